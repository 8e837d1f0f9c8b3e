"""What only one process does at a time: a name in the results database and who holds it. A part of the SQL store.

No clock is compared with another. A holder raises its beat; who stands by takes over what has not changed for so long by its
own watch, and only if it has still not changed. The row is locked by every transaction of its holder, so that one which was
taken over commits nothing more.
"""

import contextlib
from functools import partial
from typing import Any, Protocol

from sqlalchemy import Dialect, and_, bindparam, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from eyeline.core.errors import StoreError, Superseded
from eyeline.stores.results.base import Holding
from eyeline.stores.results.lines import Writer
from eyeline.stores.results.schema import holders
from eyeline.stores.results.statements import Prepared


class HolderStatements:
    """What holding needs, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        insert: Any = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
        mine = and_(holders.c.name == bindparam("name"), holders.c.holder == bindparam("holder"))
        clause = insert(holders).values(name=bindparam("name"), holder=bindparam("holder"), beat=bindparam("first"))
        unchanged = and_(holders.c.holder == bindparam("seen_holder"), holders.c.beat == bindparam("seen_beat"))
        take = clause.on_conflict_do_update(
            index_elements=["name"],
            set_={"holder": clause.excluded.holder, "beat": holders.c.beat + 1},
            where=or_(holders.c.holder == clause.excluded.holder, unchanged),
        )
        self.take = Prepared(take.returning(holders.c.holder, holders.c.beat), dialect)
        self.look = Prepared(
            select(holders.c.holder, holders.c.beat).where(holders.c.name == bindparam("name")), dialect
        )
        self.confirm = Prepared(
            update(holders).where(mine).values(beat=holders.c.beat + 1).returning(holders.c.beat), dialect
        )
        self.give_up = Prepared(delete(holders).where(mine), dialect)


class _Lines(Protocol):
    """What the store brings along."""

    _writer: Writer
    _holders: HolderStatements
    _held: tuple[str, str] | None

    def _confirm(self, name: str, holder: str, cursor: Any) -> None: ...


class Holders:
    """The methods of ResultStore that are about what only one process does."""

    _held: tuple[str, str] | None

    async def hold(self: _Lines, name: str, holder: str, seen: Holding | None = None) -> Holding:
        """Nothing here needs the disk: what a power cut undoes is taken anew."""
        do, known = self._holders, seen or Holding(holder="", beat=-1)
        values = {"name": name, "holder": holder, "first": 1, "seen_holder": known.holder, "seen_beat": known.beat}

        def take(cursor: Any) -> Holding:
            found = do.take.rows(cursor, **values) or do.look.rows(cursor, name=name)
            if not found:  # given up between the two: the next call finds it free
                return Holding(holder="", beat=0)
            return Holding(**found[0])

        now = await self._writer.write(take, durable=False)
        if now.holder == holder:
            self._held = (name, holder)
            self._writer.guard = partial(self._confirm, name, holder)
        return now

    def _confirm(self: _Lines, name: str, holder: str, cursor: Any) -> None:
        """Within each of the holder's transactions. Raises Superseded."""
        if not self._holders.confirm.rows(cursor, name=name, holder=holder):
            raise Superseded(f"another process took over {name!r} from {holder}; this one writes nothing more")

    async def _give_up(self: _Lines) -> None:
        """Who stands by need not wait; where that fails, it does."""
        if self._held is None:
            return
        name, holder = self._held
        with contextlib.suppress(StoreError):
            await self._writer.write(
                lambda cursor: self._holders.give_up.one(cursor, name=name, holder=holder) and None, durable=False
            )

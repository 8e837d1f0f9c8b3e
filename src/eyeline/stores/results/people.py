"""People in the results database: users, and their sessions. A part of the SQL store."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Dialect, Select, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from eyeline.core.clock import isoformat
from eyeline.stores.results import rows
from eyeline.stores.results.audit import note_action
from eyeline.stores.results.base import Action, SessionRow, UserRow
from eyeline.stores.results.lines import Readers, Writer
from eyeline.stores.results.schema import sessions, users
from eyeline.stores.results.statements import Prepared


class PeopleStatements:
    """What is asked and written, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        insert: Any = postgresql.insert if dialect.name == "postgresql" else sqlite.insert

        def prepared(clause: Any) -> Prepared:
            return Prepared(clause, dialect)

        def add(table: Any) -> Any:
            return insert(table).values({column.name: bindparam(column.name) for column in table.columns})

        which, whose = sessions.c.sha256 == bindparam("which"), sessions.c.user == bindparam("whose")
        added = add(users)
        fresh = {name: added.excluded[name] for name in ("password", "role", "sites", "created_at", "removed_at")}
        self.put_user = prepared(added.on_conflict_do_update(index_elements=["name"], set_=fresh))
        self.rehash = prepared(
            update(users)
            .where(users.c.name == bindparam("which"), users.c.password == bindparam("old"))
            .values(password=bindparam("new"))
        )
        self.add_session = prepared(add(sessions))
        self.session = prepared(
            select(
                sessions,
                *(users.c[name] for name in ("name", "password", "role", "sites", "removed_at")),
                users.c.created_at.label("user_since"),
            )
            .join(users, users.c.name == sessions.c.user)
            .where(which)
        )
        self.touch = prepared(update(sessions).where(which).values(seen_at=bindparam("seen_at")))
        self.end = prepared(delete(sessions).where(which).returning(sessions.c.user))
        self.end_all = prepared(delete(sessions).where(whose))
        self.end_expired = prepared(delete(sessions).where(sessions.c.expires_at <= bindparam("now")))
        newest = select(sessions.c.sha256).where(whose).order_by(sessions.c.created_at.desc()).limit(bindparam("most"))
        self.end_oldest = prepared(delete(sessions).where(whose, sessions.c.sha256.not_in(newest)))


class _Store(Protocol):
    """What the store brings along."""

    _writer: Writer
    _readers: Readers
    _people: PeopleStatements

    async def _rows(self, query: Select[Any]) -> Sequence[rows.Row]: ...


class People:
    """The methods of ResultStore that are about people."""

    async def put_user(self: _Store, row: UserRow, *, by: str = "") -> None:
        """The hash goes nowhere but into its row."""
        values = rows.user_row(row)
        told = {name: values[name] for name in ("name", "role", "sites", "removed_at")}

        def put(cursor: Any) -> None:
            self._people.put_user.one(cursor, **values)
            self._people.end_all.one(cursor, whose=row.name)
            note_action(cursor, self, Action(what="user", by=by, body=told))

        await self._writer.write(put)

    async def rehash(self: _Store, name: str, old: str, new: str) -> None:
        """Only where nobody changed the password meanwhile."""
        do = self._people.rehash
        await self._writer.write(lambda cursor: do.one(cursor, which=name, old=old, new=new) and None)

    async def users(self: _Store) -> list[UserRow]:
        """By name."""
        return [rows.user_of(row) for row in await self._rows(select(users).order_by(users.c.name))]

    async def begin_session(
        self: _Store, row: SessionRow, *, most: int, ends: str | None = None, address: str = ""
    ) -> None:
        """One transaction, so that an old token and a new one are never both valid."""
        do = self._people

        def begin(cursor: Any) -> None:
            do.end_expired.one(cursor, now=isoformat(row.created_at))
            if ends is not None:
                do.end.one(cursor, which=ends)
            do.add_session.one(cursor, **rows.session_row(row))
            do.end_oldest.one(cursor, whose=row.user, most=most)
            note_action(cursor, self, Action(what="login", by=row.user, body={"address": address}))

        await self._writer.write(begin)

    async def session(self: _Store, sha256: str) -> tuple[SessionRow, UserRow] | None:
        """By the token's hash."""
        found = await self._readers.ask(lambda cursor: self._people.session.rows(cursor, which=sha256))
        if not found:
            return None
        row = found[0]
        return rows.session_of(row), rows.user_of({**row, "created_at": row["user_since"]})

    async def touch_session(self: _Store, sha256: str, seen_at: datetime) -> None:
        """In company of other writes where there are any."""
        values = {"which": sha256, "seen_at": isoformat(seen_at)}
        await self._writer.write(lambda cursor: self._people.touch.one(cursor, **values) and None, durable=False)

    async def end_session(self: _Store, sha256: str) -> bool:
        """The row goes, and the action says whose it was."""

        def end(cursor: Any) -> bool:
            ended = self._people.end.rows(cursor, which=sha256)
            for row in ended:
                note_action(cursor, self, Action(what="logout", by=row["user"]))
            return bool(ended)

        return await self._writer.write(end)

"""The audit in the results database: blocks over its rows, and what people did. A part of the SQL store.

Nothing is hashed here but bodies; what a block is made of is the sealer's affair (`eyeline.ops.audit`).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from sqlalchemy import Dialect, Double, Select, bindparam, case, cast, extract, func, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite

from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import StoreError
from eyeline.core.ids import uuid7
from eyeline.stores.results import rows
from eyeline.stores.results.base import Action, AuditBlock, AuditRecord
from eyeline.stores.results.lines import Readers, Writer
from eyeline.stores.results.schema import (
    actions,
    audit,
    audit_blocks,
    audit_checkpoints,
    leases,
    results,
)
from eyeline.stores.results.statements import TO_A_RESULT, Prepared, Statements, body_of, commits_to

#: The name of the sealer's lease.
LEASE = "audit/sealer"


class AuditStatements:
    """What the audit needs, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        insert: Any = postgresql.insert if dialect.name == "postgresql" else sqlite.insert

        def prepared(clause: Any) -> Prepared:
            return Prepared(clause, dialect)

        def add(table: Any) -> Any:
            return insert(table).values({column.name: bindparam(column.name) for column in table.columns})

        which: Any = bindparam("which")
        self.add_action = prepared(add(actions))
        self.add_block = prepared(add(audit_blocks).on_conflict_do_nothing().returning(audit_blocks.c.number))
        self.add_checkpoint = prepared(add(audit_checkpoints).on_conflict_do_nothing())
        self._hold = prepared(_hold(insert(leases), dialect))
        self.place = prepared(
            update(audit)
            .where(audit.c.seq == which, audit.c.block.is_(None))
            .values(block=bindparam("block"), position=bindparam("position"))
            .returning(audit.c.seq)
        )
        self.last_block = prepared(select(audit_blocks).order_by(audit_blocks.c.number.desc()).limit(literal(1)))
        waiting, order = audit.c.block.is_(None), (audit.c.block, audit.c.position, audit.c.seq)
        # in the index's own order, or PostgreSQL would look through everything that is sealed
        self.unsealed = prepared(select(audit).where(waiting).order_by(*order).limit(bindparam("limit")))
        self.unsealed_bodies = prepared(_with_bodies().where(waiting).order_by(*order).limit(bindparam("limit")))
        self.sealed = prepared(
            _with_bodies().where(audit.c.block.between(bindparam("first"), bindparam("last"))).order_by(*order)
        )

    def take_turn(self, cursor: Any, name: str, holder: str, lease: float) -> bool:
        """Whether the lease is this holder's, from now on for so many seconds."""
        return bool(self._hold.rows(cursor, name=name, holder=holder, lease=lease, now=time.time()))


def _hold(insert: Any, dialect: Dialect) -> Any:
    """The lease, for its holder or for whoever comes after its end, by one clock for all of them: the server's, where there
    is one, and else this machine's.
    """
    servers = dialect.name == "postgresql"
    now: Any = cast(extract("epoch", func.clock_timestamp()), Double) if servers else bindparam("now", type_=Double)
    clause = insert.values(name=bindparam("name"), holder=bindparam("holder"), until=now + bindparam("lease"))
    fresh = clause.excluded
    free = (leases.c.holder == fresh.holder) | (leases.c.until < now)
    return clause.on_conflict_do_update(
        index_elements=["name"], set_={"holder": fresh.holder, "until": fresh.until}, where=free
    ).returning(leases.c.name)


def _with_bodies() -> Select[Any]:
    return select(
        audit, case((TO_A_RESULT, body_of(audit.c.id))).label("result_body"), actions.c.body.label("action_body")
    ).outerjoin(actions, (actions.c.id == audit.c.id) & (audit.c.kind == "action"))


class _Store(Protocol):
    """What the store brings along."""

    _writer: Writer
    _readers: Readers
    _audit: AuditStatements
    _statements: Statements

    async def _rows(self, query: Select[Any]) -> Sequence[rows.Row]: ...


class Audit:
    """The methods of ResultStore that are about the audit."""

    async def record_action(self: _Store, action: Action) -> str:
        """The action and its audit row in one transaction."""
        ident = uuid7()
        await self._writer.write(lambda cursor: note_action(cursor, self, action, ident))
        return ident

    async def last_block(self: _Store) -> AuditBlock | None:
        """By number."""
        found = await self._readers.ask(self._audit.last_block.rows)
        return AuditBlock(**found[0]) if found else None

    async def unsealed(self: _Store, limit: int, *, bodies: bool = False) -> list[AuditRecord]:
        """What a reader sees is committed; what is committed later, whatever its number, is seen by the next look."""
        look = self._audit.unsealed_bodies if bodies else self._audit.unsealed
        found = await self._readers.ask(lambda cursor: look.rows(cursor, limit=limit))
        return [_record(row) for row in found]

    async def seal(self: _Store, block: AuditBlock, seqs: Sequence[int], *, holder: str, lease: float) -> bool:
        """The number of a block is a key: of two who seal at once, one is refused."""
        do = self._audit

        def seal(cursor: Any) -> bool:
            if not do.take_turn(cursor, LEASE, holder, lease) or not do.add_block.rows(cursor, **asdict(block)):
                return False
            places = [{"which": seq, "block": block.number, "position": place} for place, seq in enumerate(seqs)]
            if len(do.place.many(cursor, places).fetchall()) != len(places):
                raise StoreError(f"block {block.number} of the audit: some of its records are sealed already")
            return True

        return await self._writer.write(seal)

    async def blocks(self: _Store, after: int, limit: int) -> list[AuditBlock]:
        """By number."""
        query = select(audit_blocks).where(audit_blocks.c.number > after).order_by(audit_blocks.c.number).limit(limit)
        return [AuditBlock(**dict(row)) for row in await self._rows(query)]

    async def sealed(self: _Store, first: int, last: int) -> list[AuditRecord]:
        """The records of those blocks with their bodies."""
        found = await self._readers.ask(lambda cursor: self._audit.sealed.rows(cursor, first=first, last=last))
        return [_record(row) for row in found]

    async def records(self: _Store, ids: Sequence[str]) -> list[AuditRecord]:
        """By the index of the audit's ids."""
        query = _with_bodies().where(audit.c.id.in_(ids)).order_by(audit.c.seq)
        return [_record(row) for row in await self._rows(query)]

    async def unaudited(self: _Store, limit: int) -> list[str]:
        """By the index of the audit's ids."""
        query = select(results.c.id).outerjoin(audit, commits_to(results.c.id)).where(audit.c.id.is_(None))
        return [row["id"] for row in await self._rows(query.order_by(results.c.id).limit(limit))]

    async def add_checkpoint(self: _Store, block: int, at: str, body: bytes) -> None:
        """Insert, or leave what is there."""
        row = {"block": block, "at": at, "body": body}
        await self._writer.write(lambda cursor: self._audit.add_checkpoint.one(cursor, **row) and None)

    async def checkpoints(self: _Store) -> list[bytes]:
        """By block."""
        order = (audit_checkpoints.c.block, audit_checkpoints.c.at)
        return [row["body"] for row in await self._rows(select(audit_checkpoints).order_by(*order))]


def note_action(cursor: Any, store: Any, action: Action, ident: str | None = None) -> None:
    """Within the caller's transaction: what a person did, and the audit row that commits to it."""
    ident, at = ident or uuid7(), isoformat(utcnow())
    body = rows.encode({"what": action.what, "by": action.by, "at": at, **action.body})
    store._audit.add_action.one(cursor, id=ident, body=body)  # noqa: SLF001 - a part of the same store
    store._statements.add_audit.many(cursor, rows.audit_rows([(ident, body)], "action", at))  # noqa: SLF001


def _record(row: Mapping[str, Any]) -> AuditRecord:
    values = dict(row)
    result, action = values.pop("result_body", None), values.pop("action_body", None)
    return AuditRecord(**values, body=action if result is None else result)

"""Rules in the results database: every version that people made of each. A part of the SQL store."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from sqlalchemy import Dialect, Select, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite

from eyeline.core.clock import isoformat, parse_time
from eyeline.stores.results import rows
from eyeline.stores.results.audit import note_action
from eyeline.stores.results.base import Action, AlertHour, RuleRecord, RuleRow
from eyeline.stores.results.schema import alerts, rules
from eyeline.stores.results.statements import Prepared, Statements

T = TypeVar("T")

#: Characters of a time down to its hour: 2026-01-31T12.
HOUR = 13


class RuleStatements:
    """What is written, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        insert: Any = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
        clause = insert(rules).values({column.name: bindparam(column.name) for column in rules.columns})
        self.add_rule = Prepared(clause.on_conflict_do_nothing().returning(rules.c.version), dialect)


class _Store(Protocol):
    """What the store brings along."""

    _statements: Statements
    _rules: RuleStatements

    async def _tell(self, work: Callable[[Any], T]) -> T: ...

    async def _rows(self, query: Select[Any]) -> Sequence[rows.Row]: ...


class Rules:
    """The methods of ResultStore that are about rules."""

    async def add_rule(self: _Store, row: RuleRow) -> bool:
        """All in one transaction."""
        values = {"name": row.name, "version": row.version, "at": isoformat(row.at), "by": row.by}
        told = {"name": row.name, "version": row.version, "rule": row.body}
        event = {"type": "rule", **told, "by": row.by, "at": values["at"]}

        def add(cursor: Any) -> bool:
            body = None if row.body is None else rows.encode(row.body)
            if not self._rules.add_rule.one(cursor, **values, body=body).fetchall():
                return False
            note_action(
                cursor, self, Action(what="rule.put" if row.body is not None else "rule.delete", by=row.by, body=told)
            )
            self._statements.add_event.one(
                cursor, kind="system", site="default", at=values["at"], result_id=None, body=rows.encode(event)
            )
            return True

        return await self._tell(add)

    async def rules(self: _Store) -> list[RuleRow]:
        """By name."""
        newest = select(rules.c.name, func.max(rules.c.version).label("version")).group_by(rules.c.name).subquery()
        query = select(rules).join(newest, (newest.c.name == rules.c.name) & (newest.c.version == rules.c.version))
        return [_rule_of(row) for row in await self._rows(query.order_by(rules.c.name))]

    async def rule_versions(self: _Store, name: str) -> list[RuleRow]:
        """By version."""
        query = select(rules).where(rules.c.name == name).order_by(rules.c.version.desc())
        return [_rule_of(row) for row in await self._rows(query)]

    async def rule_records(self: _Store, *, since: datetime, sites: Sequence[str] | None = None) -> list[RuleRecord]:
        """Counted in the database."""
        groups = (alerts.c.rule, alerts.c.camera, alerts.c.disposition)
        query = select(*groups, func.count().label("count"), func.max(alerts.c.opened_at).label("last_at"))
        query = query.where(alerts.c.opened_at >= isoformat(since)).group_by(*groups)
        if sites is not None:
            query = query.where(alerts.c.site.in_(sites))
        return [RuleRecord(**{**row, "last_at": parse_time(row["last_at"])}) for row in await self._rows(query)]

    async def alert_hours(self: _Store, *, since: datetime, sites: Sequence[str] | None = None) -> list[AlertHour]:
        """Counted in the database, where times are texts that begin with their hour."""
        hour = func.substr(alerts.c.opened_at, 1, HOUR)
        groups = (alerts.c.rule, alerts.c.camera, alerts.c.site)
        query = select(*groups, hour.label("start"), func.count().label("count")).group_by(*groups, hour)
        query = query.where(alerts.c.opened_at >= isoformat(since)[:HOUR])
        if sites is not None:
            query = query.where(alerts.c.site.in_(sites))
        return [AlertHour(**{**row, "start": parse_time(f"{row['start']}:00:00Z")}) for row in await self._rows(query)]


def _rule_of(row: rows.Row) -> RuleRow:
    values = dict(row)
    body = row["body"]
    values.update(at=parse_time(row["at"]), body=None if body is None else rows.decode(body))
    return RuleRow(**values)

"""Alerts in the results database: what the engine says, what people decide, what is owed to channels. A part of the SQL store.

The engine and the people write different columns of one row, each in one statement or under its lock: neither can undo
what the other did.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Protocol, TypeVar

from sqlalchemy import Dialect, Select, bindparam, case, select, update
from sqlalchemy.dialects import postgresql, sqlite

from eyeline.core.cases import Case, Decision, Refused, decided
from eyeline.core.clock import isoformat, parse_time, utcnow
from eyeline.core.ids import first_id, uuid7
from eyeline.stores.results import rows
from eyeline.stores.results.audit import note_action
from eyeline.stores.results.base import Action, AlertQuery, AlertRow, Decided, DeliveryRow, HistoryRow
from eyeline.stores.results.lines import Readers, Writer
from eyeline.stores.results.schema import PENDING, UNRESOLVED, alert_history, alerts, deliveries
from eyeline.stores.results.statements import Prepared, Statements

T = TypeVar("T")

#: What the engine may say again of an alert that is there.
_ENGINES = ("severity", "last_at", "count", "result_id", "body", "camera")
#: What people decide.
_PEOPLES = ("state", "disposition", "assignee", "snoozed_until", "version", "changed_at", "changed_by")


class AlertStatements:
    """What is written, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        insert: Any = postgresql.insert if dialect.name == "postgresql" else sqlite.insert

        def prepared(clause: Any) -> Prepared:
            return Prepared(clause, dialect)

        def add(table: Any) -> Any:
            return insert(table).values({column.name: bindparam(column.name) for column in table.columns})

        which: Any = bindparam("which")
        self.put_alert = prepared(_engines_word(add(alerts)))
        self.add_delivery = prepared(add(deliveries).on_conflict_do_nothing())
        self.add_history = prepared(add(alert_history))
        # the row is held until the end of the transaction; SQLite has one writer anyway
        self.hold_alert = prepared(select(alerts).where(alerts.c.id == which).with_for_update())
        self.change_alert = prepared(
            update(alerts).where(alerts.c.id == which).values({name: bindparam(name) for name in _PEOPLES})
        )
        self.move_alert = prepared(
            update(alerts)
            .where(alerts.c.id == which)
            .values(tier=bindparam("tier"), snoozed_until=bindparam("snoozed_until"))
        )
        self.history = prepared(
            select(alert_history).where(alert_history.c.alert_id == which).order_by(alert_history.c.id)
        )
        self.update_delivery = prepared(
            update(deliveries)
            .where(deliveries.c.id == which)
            .values({name: bindparam(name) for name in _OF_AN_ATTEMPT})
        )


_OF_AN_ATTEMPT = ("attempts", "state", "next_at", "last_error", "delivered_at", "answer")


def _engines_word(clause: Any) -> Any:
    """Of what people decided the engine changes nothing, but that it may say that an alert is over."""
    fresh = {name: clause.excluded[name] for name in _ENGINES}
    fresh["state"] = case((clause.excluded.state == "resolved", clause.excluded.state), else_=alerts.c.state)
    return clause.on_conflict_do_update(index_elements=["id"], set_=fresh).returning(*alerts.columns)


class _Store(Protocol):
    """What the store brings along."""

    _writer: Writer
    _readers: Readers
    _statements: Statements
    _alerts: AlertStatements

    async def _rows(self, query: Select[Any]) -> Sequence[rows.Row]: ...

    async def _tell(self, work: Any) -> Any: ...


class Alerts:
    """The methods of ResultStore that are about alerts."""

    async def commit_alerts(
        self: _Store,
        *,
        state: Mapping[str, bytes],
        alerts: Sequence[AlertRow],
        deliveries: Sequence[DeliveryRow],
    ) -> None:
        """All in one transaction; each event tells the alert as it stands then, with what people decided."""
        at = isoformat(utcnow())
        written = [rows.alert_row(alert) for alert in sorted(alerts, key=lambda alert: alert.id)]

        def commit(cursor: Any) -> None:
            for row in written:
                [kept] = self._alerts.put_alert.rows(cursor, **row)
                self._statements.add_event.one(cursor, **rows.alert_event(rows.alert_of(kept), at))
            self._alerts.add_delivery.many(cursor, map(rows.delivery_row, deliveries))
            self._statements.put_state.many(cursor, ({"name": name, "value": value} for name, value in state.items()))

        await (self._tell(commit) if alerts else self._writer.write(commit))

    async def due_deliveries(
        self: _Store, now: datetime, limit: int, channel: str | None = None, *, but: Sequence[str] = ()
    ) -> list[DeliveryRow]:
        """Oldest first. What was never tried is due, though the clock was set back since."""
        due = (deliveries.c.next_at <= isoformat(now)) | (deliveries.c.attempts == 0)
        query = select(deliveries).where(PENDING, due)
        if channel is not None:
            query = query.where(deliveries.c.channel == channel)
        if but:
            query = query.where(deliveries.c.channel.not_in(but))
        return [rows.delivery_of(row) for row in await self._rows(query.order_by(deliveries.c.next_at).limit(limit))]

    async def update_delivery(self: _Store, row: DeliveryRow) -> None:
        """What an attempt changed."""
        values = rows.delivery_row(row) | {"which": row.id}
        await self._writer.write(lambda cursor: self._alerts.update_delivery.one(cursor, **values) and None)

    async def find_alerts(self: _Store, query: AlertQuery) -> tuple[list[AlertRow], str | None]:
        """Keyset pagination by id."""
        found = [rows.alert_of(row) for row in await self._rows(_find(query).limit(query.limit + 1))]
        return found[: query.limit], found[query.limit - 1].id if len(found) > query.limit else None

    async def get_alert(self: _Store, id: str) -> AlertRow | None:  # noqa: A002
        """By its id."""
        found = await self._rows(select(alerts).where(alerts.c.id == id))
        return rows.alert_of(found[0]) if found else None

    async def list_deliveries(self: _Store, alert_id: str) -> list[DeliveryRow]:
        """In the order they were made."""
        query = select(deliveries).where(deliveries.c.alert_id == alert_id).order_by(deliveries.c.id)
        return [rows.delivery_of(row) for row in await self._rows(query)]

    async def decide(
        self: _Store, decision: Decision, versions: Mapping[str, int | None], *, sites: Sequence[str] | None = None
    ) -> list[Decided]:
        """Rows are locked in one order by everybody; answers come in the order of asking."""

        def decide(cursor: Any) -> list[Decided]:
            done = {ident: _decide(cursor, self, decision, ident, versions[ident], sites) for ident in sorted(versions)}
            return [done[ident] for ident in versions]

        answers: list[Decided] = await self._tell(decide)
        return answers

    async def step_alert(
        self: _Store, before: AlertRow, entry: HistoryRow, deliveries: Sequence[DeliveryRow], *, tier: int
    ) -> bool:
        """The row is locked, compared and changed; what is told is what stands there then."""
        do = self._alerts

        def step(cursor: Any) -> bool:
            found = do.hold_alert.rows(cursor, which=before.id)
            alert = rows.alert_of(found[0]) if found else None
            if alert is None or _clocks(alert) != _clocks(before):
                return False
            do.move_alert.one(cursor, which=alert.id, tier=tier, snoozed_until=None)
            do.add_history.one(cursor, **rows.history_row(entry))
            do.add_delivery.many(cursor, map(rows.delivery_row, deliveries))
            alert = replace(alert, tier=tier, snoozed_until=None)
            self._statements.add_event.one(cursor, **rows.alert_event(alert, isoformat(entry.at)))
            return True

        stepped: bool = await self._tell(step)
        return stepped

    async def waking(self: _Store, now: datetime, limit: int) -> list[AlertRow]:
        """Over the index of those that are snoozed."""
        query = select(alerts).where(UNRESOLVED, alerts.c.snoozed_until <= isoformat(now))
        return [rows.alert_of(row) for row in await self._rows(query.order_by(alerts.c.snoozed_until).limit(limit))]

    async def history(self: _Store, alert_id: str) -> list[HistoryRow]:
        """In the order of time."""
        found = await self._readers.ask(lambda cursor: self._alerts.history.rows(cursor, which=alert_id))
        return [rows.history_of(row) for row in found]

    async def site_history(self: _Store, site: str, since: datetime, until: datetime, limit: int) -> list[HistoryRow]:
        """By their ids, which begin with the time."""
        query = (
            select(alert_history)
            .join(alerts, alerts.c.id == alert_history.c.alert_id)
            .where(alerts.c.site == site, alert_history.c.id >= first_id(since), alert_history.c.id < first_id(until))
            .order_by(alert_history.c.id)
            .limit(limit)
        )
        return [rows.history_of(row) for row in await self._rows(query)]


def _find(query: AlertQuery) -> Select[Any]:
    chosen = select(alerts).order_by(alerts.c.id.desc())
    for name in ("severity", "site", "camera", "rule", "assignee", "disposition", "result_id"):
        value = getattr(query, name)
        if value is not None:
            chosen = chosen.where(alerts.c[name] == value)
    if query.sites is not None:
        chosen = chosen.where(alerts.c.site.in_(query.sites))
    if query.states is not None:
        chosen = chosen.where(alerts.c.state.in_(query.states))
        if "resolved" not in query.states:
            chosen = chosen.where(UNRESOLVED)
    if query.snoozed is not None:
        sleeping = alerts.c.snoozed_until > isoformat(query.now or utcnow())
        chosen = chosen.where(sleeping if query.snoozed else alerts.c.snoozed_until.is_(None) | ~sleeping)
    if query.since is not None:
        chosen = chosen.where(alerts.c.opened_at >= isoformat(query.since))
    if query.until is not None:
        chosen = chosen.where(alerts.c.opened_at < isoformat(query.until))
    if query.cursor is not None:
        chosen = chosen.where(alerts.c.id < query.cursor)
    return chosen


def _decide(
    cursor: Any, store: _Store, decision: Decision, ident: str, version: int | None, sites: Sequence[str] | None
) -> Decided:
    """One alert, within the caller's transaction."""
    found = store._alerts.hold_alert.rows(cursor, which=ident)  # noqa: SLF001 - a part of the same store
    alert = rows.alert_of(found[0]) if found else None
    if alert is None or (sites is not None and alert.site not in sites):
        return Decided(id=ident, alert=None, outcome="unknown")
    entries = [rows.history_of(row) for row in store._alerts.history.rows(cursor, which=ident)]  # noqa: SLF001
    if _undone_already(entries, decision, version):
        return Decided(id=ident, alert=alert, outcome="unchanged")
    before = case_of(alert)
    try:
        after = decided(before, decision, _before_last_change(entries))
    except Refused as refused:
        return Decided(id=ident, alert=alert, outcome="conflict", why=str(refused))
    if after == before and (not decision.note or _said_already(entries, decision)):
        return Decided(id=ident, alert=alert, outcome="unchanged")
    if after != before and version not in (None, alert.version):
        why = f"the alert was changed by {alert.changed_by or 'someone'} since (version {alert.version}, not {version})"
        return Decided(id=ident, alert=alert, outcome="conflict", why=why)
    return Decided(id=ident, alert=_written(cursor, store, decision, alert, after), outcome="changed")


def _written(cursor: Any, store: _Store, decision: Decision, alert: AlertRow, after: Case) -> AlertRow:
    """The alert with the decision on it, its history, its audit row and its event."""
    before = case_of(alert)
    told: dict[str, Any] = {"note": decision.note} if decision.note else {}
    if after != before:
        told |= {"before": _case_told(before), "after": _case_told(after)}
        changes: Any = asdict(after) | {"version": alert.version + 1}
        alert = replace(alert, **changes, changed_at=decision.at, changed_by=decision.by)
        row = rows.alert_row(alert)
        store._alerts.change_alert.one(cursor, **{name: row[name] for name in _PEOPLES}, which=alert.id)  # noqa: SLF001
    entry = HistoryRow(
        id=uuid7(),
        alert_id=alert.id,
        at=decision.at,
        by=decision.by,
        what=decision.what,
        version=alert.version,
        body=told,
    )
    store._alerts.add_history.one(cursor, **rows.history_row(entry))  # noqa: SLF001
    note_action(cursor, store, Action(what=f"alert.{decision.what}", by=decision.by, body={"alert": alert.id, **told}))
    store._statements.add_event.one(cursor, **rows.alert_event(alert, isoformat(decision.at)))  # noqa: SLF001
    return alert


def _clocks(alert: AlertRow) -> tuple[object, ...]:
    """What the clock looks at before it does something."""
    return alert.state, alert.tier, alert.snoozed_until


def case_of(alert: AlertRow) -> Case:
    """What people decided on it."""
    return Case(
        state=alert.state,
        disposition=alert.disposition,
        assignee=alert.assignee,
        snoozed_until=alert.snoozed_until,
    )


def _case_told(case: Case) -> dict[str, Any]:
    until = case.snoozed_until
    return asdict(case) | {"snoozed_until": None if until is None else isoformat(until)}


def _before_last_change(entries: Sequence[HistoryRow]) -> Case | None:
    """What stood before the last change of the case."""
    for entry in reversed(entries):
        if "before" in entry.body:
            told = dict(entry.body["before"])
            until = told["snoozed_until"]
            return Case(**told | {"snoozed_until": None if until is None else parse_time(until)})
    return None


def _said_already(entries: Sequence[HistoryRow], decision: Decision) -> bool:
    """Whether this person's last word on the alert is this very one: its answer was lost on the way, and it comes again."""
    mine = [entry for entry in entries if entry.by == decision.by]
    return bool(mine) and mine[-1].what == decision.what and mine[-1].body.get("note") == decision.note


def _undone_already(entries: Sequence[HistoryRow], decision: Decision, version: int | None) -> bool:
    """Whether this very undo was done: a second one would bring back what it took away."""
    undone = [entry for entry in entries if entry.by == decision.by and entry.what == "undo"]
    return decision.what == "undo" and bool(undone) and version is not None and undone[-1].version == version + 1

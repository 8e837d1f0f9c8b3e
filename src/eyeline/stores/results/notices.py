"""Deliveries as people look after them, silences, and what people did: a part of the SQL store."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Dialect, Select, bindparam, case, delete, func, literal, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite

from eyeline.core.clock import isoformat, parse_time
from eyeline.core.ids import first_id
from eyeline.stores.results import rows
from eyeline.stores.results.alerts import AlertStatements
from eyeline.stores.results.audit import note_action
from eyeline.stores.results.base import Action, ChannelState, DeliveryQuery, DeliveryRow, SilenceRow
from eyeline.stores.results.lines import Writer
from eyeline.stores.results.schema import HELD, actions, alerts, deliveries, silences
from eyeline.stores.results.statements import Prepared


class NoticeStatements:
    """What is written, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        insert: Any = postgresql.insert if dialect.name == "postgresql" else sqlite.insert

        def prepared(clause: Any) -> Prepared:
            return Prepared(clause, dialect)

        which: Any = bindparam("which")
        now: Any = bindparam("now")
        self.add_silence = prepared(
            insert(silences).values({each.name: bindparam(each.name) for each in silences.columns})
        )
        self.end_silence = prepared(
            update(silences)
            .where(silences.c.id == which, silences.c.until.is_(None) | (silences.c.until > now))
            .values(until=now)
            .returning(silences.c.id)
        )
        self.retry = prepared(
            update(deliveries)
            .where(deliveries.c.id == which, deliveries.c.state == bindparam("failed"))
            .values(state=bindparam("state"), attempts=bindparam("attempts"), next_at=now)
            .returning(deliveries.c.id)
        )
        self.mark_summarised = prepared(
            update(deliveries).where(deliveries.c.id == which, HELD).values(state=bindparam("state"))
        )
        self.forget = prepared(
            delete(deliveries).where(
                deliveries.c.kind == bindparam("kind"),
                deliveries.c.state == bindparam("state"),
                deliveries.c.next_at < bindparam("before"),
            )
        )


class _Store(Protocol):
    """What the store brings along."""

    _writer: Writer
    _alerts: AlertStatements
    _notices: NoticeStatements

    async def _rows(self, query: Select[Any]) -> Sequence[rows.Row]: ...
    async def _error(self, id: str) -> str | None: ...  # noqa: A002


class Notices:
    """The methods of ResultStore that are about deliveries, silences and actions."""

    async def get_delivery(self: _Store, id: str) -> DeliveryRow | None:  # noqa: A002
        """By its id, with the site of its alert."""
        found = await self._rows(_sited(deliveries.c.payload).where(deliveries.c.id == id))
        return rows.delivery_of(found[0]) if found else None

    async def find_deliveries(self: _Store, query: DeliveryQuery) -> tuple[list[DeliveryRow], str | None]:
        """Keyset pagination by id."""
        chosen = _sited(literal(b"").label("payload")).order_by(deliveries.c.id.desc()).limit(query.limit + 1)
        for name in ("channel", "state", "kind"):
            value = getattr(query, name)
            if value is not None:
                failed = name == "state" and value == "failed"
                chosen = chosen.where(_FAILED if failed else deliveries.c[name] == value)
        if query.sites is not None:
            chosen = chosen.where(_SITE.in_(query.sites))
        if query.cursor is not None:
            chosen = chosen.where(deliveries.c.id < query.cursor)
        found = [rows.delivery_of(row) for row in await self._rows(chosen)]
        return found[: query.limit], found[query.limit - 1].id if len(found) > query.limit else None

    async def channel_states(
        self: _Store, names: Sequence[str], *, sites: Sequence[str] | None = None
    ) -> dict[str, ChannelState]:
        """Counts over the indexes of what waits, is held and has failed; of the rest the newest alone is looked at."""
        asked = [_counted(which, sites) for which in (_WAITING, _HELD, _FAILED)]
        waiting, held, failed = [{row["channel"]: row for row in await self._rows(query)} for query in asked]
        states = {}
        for name in names:
            delivered = await self._rows(_delivered(name, sites))
            wrong = max((str(found[name]["wrong"] or "") for found in (waiting, failed) if name in found), default="")
            stands = wrong > (str(delivered[0]["id"]) if delivered else "")
            states[name] = ChannelState(
                waiting=waiting[name]["count"] if name in waiting else 0,
                held=held[name]["count"] if name in held else 0,
                since=parse_time(waiting[name]["since"]) if name in waiting else None,
                failed=failed[name]["count"] if name in failed else 0,
                delivered_at=parse_time(delivered[0]["delivered_at"]) if delivered else None,
                error=await self._error(wrong) if stands else None,
            )
        return states

    async def _error(self: _Store, id: str) -> str | None:  # noqa: A002
        found = await self._rows(select(deliveries.c.last_error).where(deliveries.c.id == id))
        return found[0]["last_error"] if found else None

    async def retry_delivery(self: _Store, id: str, now: datetime, action: Action) -> bool:  # noqa: A002
        """Only a failed one, whoever else asks at the same time."""
        values = {"which": id, "failed": "failed", "state": "pending", "attempts": 0, "now": isoformat(now)}

        def retry(cursor: Any) -> bool:
            if not self._notices.retry.rows(cursor, **values):
                return False
            note_action(cursor, self, action)
            return True

        return await self._writer.write(retry)

    async def held_deliveries(self: _Store, now: datetime, limit: int) -> list[DeliveryRow]:
        """Over the index of held ones."""
        query = select(deliveries).where(HELD, deliveries.c.next_at <= isoformat(now))
        return [rows.delivery_of(row) for row in await self._rows(query.order_by(deliveries.c.next_at).limit(limit))]

    async def summarise(self: _Store, held: Sequence[str], summary: DeliveryRow) -> None:
        """All in one transaction."""

        def summarise(cursor: Any) -> None:
            self._alerts.add_delivery.one(cursor, **rows.delivery_row(summary))
            self._notices.mark_summarised.many(
                cursor, ({"which": ident, "state": "summarised"} for ident in sorted(held))
            )

        await self._writer.write(summarise)

    async def forget_deliveries(self: _Store, kind: str, before: datetime) -> int:
        """In one transaction."""
        values = {"kind": kind, "state": "delivered", "before": isoformat(before)}
        return await self._writer.write(lambda cursor: int(self._notices.forget.one(cursor, **values).rowcount))

    async def add_silence(self: _Store, silence: SilenceRow, action: Action) -> None:
        """With its audit row in one transaction."""

        def add(cursor: Any) -> None:
            self._notices.add_silence.one(cursor, **rows.silence_row(silence))
            note_action(cursor, self, action)

        await self._writer.write(add)

    async def end_silence(self: _Store, id: str, now: datetime, action: Action) -> bool:  # noqa: A002
        """With its audit row in one transaction."""

        def end(cursor: Any) -> bool:
            if not self._notices.end_silence.rows(cursor, which=id, now=isoformat(now)):
                return False
            note_action(cursor, self, action)
            return True

        return await self._writer.write(end)

    async def silences(self: _Store, now: datetime) -> list[SilenceRow]:
        """By when they were made."""
        query = select(silences).where(silences.c.until.is_(None) | (silences.c.until > isoformat(now)))
        return [rows.silence_of(row) for row in await self._rows(query.order_by(silences.c.id))]

    async def actions(self: _Store, since: datetime, until: datetime, limit: int) -> list[dict[str, Any]]:
        """By their ids, which begin with the time."""
        query = (
            select(actions.c.body)
            .where(actions.c.id >= first_id(since), actions.c.id < first_id(until))
            .order_by(actions.c.id)
            .limit(limit)
        )
        return [rows.decode(row["body"]) for row in await self._rows(query)]


#: Of a delivery about an alert, the alert's.
_SITE = func.coalesce(deliveries.c.site, alerts.c.site)


def _sited(payload: Any) -> Select[Any]:
    columns = [column for column in deliveries.columns if column.name not in {"payload", "site"}]
    return select(*columns, payload, _SITE.label("site")).outerjoin(alerts, alerts.c.id == deliveries.c.alert_id)


# written out, for a partial index serves only a query that says the same words; and alerts have a state, too
_WAITING, _HELD, _FAILED, _DELIVERED = (
    deliveries.c.state == literal_column(word) for word in ("'pending'", "'held'", "'failed'", "'delivered'")
)


def _within(chosen: Select[Any], sites: Sequence[str] | None) -> Select[Any]:
    if sites is None:
        return chosen
    return chosen.outerjoin(alerts, alerts.c.id == deliveries.c.alert_id).where(_SITE.in_(sites))


def _counted(which: Any, sites: Sequence[str] | None) -> Select[Any]:
    """How many of each channel, when the oldest picture was captured, and the newest with an error. Neither of some channels
    alone nor by the column itself: SQLite would then go through all that there ever was, by the index of channels.
    """
    channel = deliveries.c.channel.op("||")(literal_column("''"))
    since = func.min(deliveries.c.captured_at).label("since")
    wrong = func.max(case((deliveries.c.last_error.is_not(None), deliveries.c.id))).label("wrong")
    chosen = select(channel.label("channel"), func.count().label("count"), since, wrong).select_from(deliveries)
    return _within(chosen.where(which), sites).group_by(channel)


def _delivered(name: str, sites: Sequence[str] | None) -> Select[Any]:
    """The newest that arrived."""
    chosen = select(deliveries.c.id, deliveries.c.delivered_at).select_from(deliveries)
    chosen = chosen.where(deliveries.c.channel == name, _DELIVERED)
    return _within(chosen, sites).order_by(deliveries.c.id.desc()).limit(1)

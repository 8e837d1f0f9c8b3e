"""Items in the results database: what tracking makes of many results, and counting. A part of the SQL store."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, time
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from sqlalchemy import Dialect, Select, bindparam, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from eyeline.core.clock import isoformat, parse_time
from eyeline.stores.results import rows
from eyeline.stores.results.base import Count, CountQuery, ItemQuery, ItemRow, SightingRow
from eyeline.stores.results.lines import Writer
from eyeline.stores.results.schema import item_codes, item_labels, item_sightings, items, result_labels, results, states
from eyeline.stores.results.statements import Prepared

#: Characters of an RFC 3339 time that tell the hour, the minute.
_HOUR, _MINUTE = 13, 16
#: Seconds of a bucket that is a day of the calendar.
_DAY = 86_400
#: Ids in one question: every database has a bound on values.
_MANY = 500


class ItemStatements:
    """What is written, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        insert: Any = postgresql.insert if dialect.name == "postgresql" else sqlite.insert

        def add(table: Any, update: Sequence[str] = ()) -> Prepared:
            clause = insert(table).values({column.name: bindparam(column.name) for column in table.columns})
            if not update:
                return Prepared(clause.on_conflict_do_nothing(), dialect)
            fresh = {name: clause.excluded[name] for name in update}
            keys = [column.name for column in table.primary_key]
            return Prepared(clause.on_conflict_do_update(index_elements=keys, set_=fresh), dialect)

        self.put_item = add(items, [column.name for column in items.columns if column.name != "id"])
        self.forget_labels = Prepared(delete(item_labels).where(item_labels.c.item_id == bindparam("which")), dialect)
        self.add_label = add(item_labels)
        self.add_code = add(item_codes)
        self.add_sighting = add(item_sightings)
        self.put_state = add(states, ["value"])


class _Lines(Protocol):
    """What the store brings along."""

    _writer: Writer
    _items: ItemStatements

    async def _rows(self, query: Select[Any]) -> Sequence[rows.Row]: ...


class Items:
    """The methods of ResultStore that are about items."""

    async def commit_items(
        self: _Lines, *, state: Mapping[str, bytes], items: Sequence[ItemRow], sightings: Sequence[SightingRow]
    ) -> None:
        """All in one transaction."""
        do = self._items

        def commit(cursor: Any) -> None:
            do.put_item.many(cursor, map(_item_row, items))
            do.forget_labels.many(cursor, ({"which": item.id} for item in items))
            do.add_label.many(cursor, _label_rows(items))
            do.add_code.many(cursor, ({"code": code, "item_id": item.id} for item in items for code in item.codes))
            do.add_sighting.many(cursor, map(_sighting_row, sightings))
            do.put_state.many(cursor, ({"name": name, "value": value} for name, value in state.items()))

        await self._writer.write(commit)

    async def find_items(self: _Lines, query: ItemQuery) -> tuple[list[ItemRow], str | None]:
        """A page by id, newest first."""
        found = await self._rows(_find(query).limit(query.limit + 1))
        page = [_item_of(row) for row in found[: query.limit]]
        return page, page[-1].id if len(found) > query.limit and page else None

    async def sightings(self: _Lines, item_ids: Sequence[str]) -> list[SightingRow]:
        """In the order of results."""
        seen: list[SightingRow] = []
        for start in range(0, len(item_ids), _MANY):
            part = item_ids[start : start + _MANY]
            query = select(item_sightings).where(item_sightings.c.item_id.in_(part))
            seen += [SightingRow(**dict(row)) for row in await self._rows(query.order_by(item_sightings.c.result_id))]
        return seen

    async def count_items(self: _Lines, query: CountQuery) -> list[Count]:
        """By when each was first seen."""
        columns = {"site": items.c.site, "camera": items.c.camera, "label": item_labels.c.label}
        chosen = _counted(query, items.c.first_at, columns)
        if "label" in query.by:
            chosen = chosen.join_from(items, item_labels, item_labels.c.item_id == items.c.id)
        if query.sites is not None:
            chosen = chosen.where(items.c.site.in_(query.sites))
        return _counts(query, await self._rows(chosen))

    async def count_results(self: _Lines, query: CountQuery, *, but: Sequence[str] = ()) -> list[Count]:
        """By when each was captured."""
        columns = {"site": results.c.site, "camera": results.c.camera, "label": result_labels.c.label}
        chosen = _counted(query, results.c.captured_at, columns).where(results.c.status == "completed")
        if "label" in query.by:
            chosen = chosen.join_from(results, result_labels, result_labels.c.result_id == results.c.id)
        if query.sites is not None:
            chosen = chosen.where(results.c.site.in_(query.sites))
        if but:
            chosen = chosen.where(results.c.pipeline.not_in(but) | results.c.camera.is_(None))
        return _counts(query, await self._rows(chosen))


def _find(query: ItemQuery) -> Select[Any]:
    chosen = select(items).order_by(items.c.id.desc())
    if query.code is not None:
        chosen = chosen.join(item_codes, item_codes.c.item_id == items.c.id).where(item_codes.c.code == query.code)
    if query.label is not None:
        chosen = chosen.join(item_labels, item_labels.c.item_id == items.c.id).where(item_labels.c.label == query.label)
    for name in ("id", "site", "camera"):
        value = getattr(query, name)
        if value is not None:
            chosen = chosen.where(items.c[name] == value)
    if query.sites is not None:
        chosen = chosen.where(items.c.site.in_(query.sites))
    if query.since is not None:
        chosen = chosen.where(items.c.first_at >= isoformat(query.since))
    if query.until is not None:
        chosen = chosen.where(items.c.first_at < isoformat(query.until))
    if query.cursor is not None:
        chosen = chosen.where(items.c.id < query.cursor)
    return chosen


def _counted(query: CountQuery, moment: Any, columns: Mapping[str, Any]) -> Select[Any]:
    """The database adds up by the minute or the hour: times are text, and the first letters of one are its bucket."""
    start = func.substr(moment, 1, _letters(query)).label("start")
    names = query.by if query.bucket < _DAY else tuple(dict.fromkeys((*query.by, "site")))  # whose day it is
    groups = [start, *(columns[name].label(name) for name in names)]
    return (
        select(*groups, func.count().label("count"))
        .where(moment >= isoformat(query.since), moment < isoformat(query.until))
        .group_by(start, *(columns[name] for name in names))
    )


def _letters(query: CountQuery) -> int:
    """Hours are enough, unless some zone's day begins within one."""
    if query.bucket >= _DAY:
        zones = {query.zone, *query.zones.values()}
        offsets = [
            moment.astimezone(ZoneInfo(zone)).utcoffset() for zone in zones for moment in (query.since, query.until)
        ]
        return (
            _HOUR if all(offset is not None and offset.total_seconds() % 3600 == 0 for offset in offsets) else _MINUTE
        )
    return _HOUR if query.bucket % 3600 == 0 else _MINUTE


def _counts(query: CountQuery, found: Iterable[rows.Row]) -> list[Count]:
    """Minutes and hours added up to the buckets that were asked for."""
    totals: dict[tuple[Any, ...], int] = {}
    for row in found:
        key = (_begin(query, row), *(row[name] for name in query.by))
        totals[key] = totals.get(key, 0) + row["count"]
    return [Count(start=key[0], by=dict(zip(query.by, key[1:], strict=True)), count=n) for key, n in totals.items()]


def _begin(query: CountQuery, row: rows.Row) -> float:
    """When the bucket of a row begins."""
    moment = parse_time(row["start"] + "0000-00-00T00:00:00Z"[len(row["start"]) :])
    if query.bucket < _DAY:
        return moment.timestamp() - moment.timestamp() % query.bucket
    zone = query.zones.get(row["site"], query.zone)
    date = moment.astimezone(ZoneInfo(zone)).date()
    return datetime.combine(date, time.min, ZoneInfo(zone if "site" in query.by else query.zone)).timestamp()


def _item_row(item: ItemRow) -> dict[str, Any]:
    return {
        "id": item.id,
        "site": item.site,
        "camera": item.camera,
        "pipeline": item.pipeline,
        "label": item.label,
        "first_at": isoformat(item.first_at),
        "last_at": isoformat(item.last_at),
        "frames": item.frames,
        "score": item.score,
        "result_id": item.result_id,
        "body": rows.encode({"labels": item.labels, "codes": item.codes}),
    }


def _item_of(row: rows.Row) -> ItemRow:
    values = dict(row)
    body = rows.decode(values.pop("body"))
    values.update(first_at=parse_time(row["first_at"]), last_at=parse_time(row["last_at"]))
    return ItemRow(**values, labels=body["labels"], codes=tuple(body["codes"]))


def _label_rows(items: Iterable[ItemRow]) -> Iterable[dict[str, Any]]:
    return (
        {"label": label, "item_id": item.id, "score": score} for item in items for label, score in item.labels.items()
    )


def _sighting_row(sighting: SightingRow) -> dict[str, Any]:
    return {"item_id": sighting.item_id, "result_id": sighting.result_id, "detection": sighting.detection}

"""Items, one thing's whole story, and counts."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import InputError, NotFound
from eyeline.core.settings import Settings, SiteSettings
from eyeline.core.telemetry import printable
from eyeline.core.types import Result
from eyeline.gateway.replies import reply
from eyeline.gateway.results import moment, packed
from eyeline.gateway.state import State, allowed, checked_id
from eyeline.gateway.trace import entries, item_told, told
from eyeline.stores.results.base import Count, CountQuery, ItemQuery, ItemRow, ResultQuery, ResultStore, SightingRow

Caller = Annotated[Principal, Depends(allowed("read"))]
Text = Annotated[str | None, Field(max_length=200)]
Group = Literal["label", "camera", "site"]
#: Results of one thing that are told at most, and items of one code.
MOST, MOST_ITEMS = 1000, 100
BUCKETS = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "1d": 86_400}
#: Buckets in one answer at most.
MOST_BUCKETS = 2000


class Listed(BaseModel):
    """A page of items. `since` and `until` are about when an item was first seen."""

    model_config = ConfigDict(extra="forbid")

    site: Text = None
    camera: Text = None
    label: Text = None
    code: Text = None
    since: Text = Field(None, description="RFC 3339, inclusive")
    until: Text = Field(None, description="RFC 3339, exclusive")
    cursor: Annotated[str | None, Field(max_length=64, description="`next` of the page before")] = None
    limit: int = Field(100, ge=1, le=1000)


class Counted(BaseModel):
    """What is counted."""

    model_config = ConfigDict(extra="forbid")

    by: str = Field("label,camera,site", max_length=60, description="any of label, camera, site, with commas between")
    bucket: str = Field("1h", description="1m, 5m, 15m, 1h or 1d (a day of the calendar in the zone of its site)")
    since: Text = Field(None, description="RFC 3339, inclusive; none: a day ago")
    until: Text = Field(None, description="RFC 3339, exclusive; none: now")


def routes(state: State) -> APIRouter:
    """The routes of items. The key of a thing may hold anything, slashes too: a QR code is often an address."""
    router = APIRouter(tags=["items"])

    @router.get("/v1/items", summary="Items, newest first")
    async def listed(who: Caller, wanted: Annotated[Listed, Query()]) -> Response:
        if wanted.cursor is not None:
            checked_id("item", wanted.cursor)
        values = wanted.model_dump() | {"since": moment("since", wanted.since), "until": moment("until", wanted.until)}
        found, following = await state.results.find_items(ItemQuery(sites=who.sites, **values))
        return reply({"items": [item_told(item) for item in found], "next": following})

    @router.get("/v1/items/{key:path}/evidence", summary="One evidence pack of every picture of a thing (ZIP)")
    async def evidence(key: str, who: Caller) -> Response:
        found = await trace(state.results, state.settings, key, who)
        return await packed(state, [entry["result"] for entry in found["entries"]], who)

    @router.get("/v1/items/{key:path}", summary="Everything about one ref, barcode or item, in the order of time")
    async def traced(key: str, who: Caller) -> Response:
        return reply(await trace(state.results, state.settings, key, who))

    @router.get("/v1/counts", summary="How many things, by label, camera and site, in buckets of time")
    async def counted(who: Caller, wanted: Annotated[Counted, Query()]) -> Response:
        query = _query(wanted, who, state.settings.sites)
        tracked = [pipeline.name for pipeline in state.settings.pipelines if pipeline.track is not None]
        found = await state.results.count_results(query, but=tracked)
        items = await state.results.count_items(query) if tracked else []
        rows = [_count(one, "items") for one in items] + [_count(one, "results") for one in found]
        rows.sort(key=lambda row: (row["start"], *(str(row[name]) for name in query.by), row["of"]))
        return reply(
            {"bucket": wanted.bucket, "by": query.by, "since": query.since, "until": query.until, "counts": rows}
        )

    return router


async def trace(results: ResultStore, settings: Settings, key: str, who: Principal) -> dict[str, Any]:
    """What is known of a thing, as far as the caller may see it. Raises NotFound."""
    items, sightings = await _items(results, key, who)
    by_ref, more_refs = await results.find(ResultQuery(sites=who.sites, ref=key, limit=MOST))
    by_code, more_codes = await results.find(ResultQuery(sites=who.sites, code=key, limit=MOST))
    ids = list(dict.fromkeys(sighting.result_id for sighting in sightings))[:MOST]
    seen = await results.get_many(ids) if ids else {}
    found = entries(key, by_ref, by_code, _visible(seen, who), sightings)
    if not found and not items:
        raise NotFound(f"nothing is known of {printable(key, 80)!r} as a ref, a barcode or an item, or not to this key")
    return told(key, found, items, settings.items, more_refs is not None or more_codes is not None or len(ids) == MOST)


async def _items(results: ResultStore, key: str, who: Principal) -> tuple[list[ItemRow], list[SightingRow]]:
    """The items that bear the code, or the one with that id; and where they were seen."""
    items, _ = await results.find_items(ItemQuery(sites=who.sites, code=key, limit=MOST_ITEMS))
    if not items:
        items, _ = await results.find_items(ItemQuery(sites=who.sites, id=key, limit=1))
    items.sort(key=lambda item: item.first_at)
    return items, await results.sightings([item.id for item in items]) if items else []


def _visible(results: dict[str, Result], who: Principal) -> dict[str, Result]:
    return {id: result for id, result in results.items() if who.sees(result.site)}  # noqa: A001


def _query(wanted: Counted, who: Principal, sites: Sequence[SiteSettings]) -> CountQuery:
    by = tuple(dict.fromkeys(name for name in get_args(Group) if name in wanted.by.split(",")))
    strange = set(wanted.by.split(",")) - set(by) - {""}
    if strange:
        raise InputError(f"by={printable(wanted.by, 60)!r}: count by any of {', '.join(get_args(Group))}")
    if wanted.bucket not in BUCKETS:
        raise InputError(f"bucket={printable(wanted.bucket, 20)!r}: there are {', '.join(BUCKETS)}")
    until = moment("until", wanted.until) or utcnow()
    since = moment("since", wanted.since) or until - timedelta(days=1)
    if (until - since).total_seconds() > MOST_BUCKETS * BUCKETS[wanted.bucket]:
        raise InputError(
            f"more than {MOST_BUCKETS} buckets of {wanted.bucket}; ask for a shorter time or larger buckets"
        )
    zones = {site.name: site.timezone for site in sites}
    return CountQuery(
        by=by,
        bucket=BUCKETS[wanted.bucket],
        since=since,
        until=until,
        sites=who.sites,
        zones=zones,
        zone=next(iter(zones.values()), "UTC"),
    )


def _count(one: Count, of: str) -> dict[str, object]:
    """A row of the answer; `of` says what was counted."""
    return {"start": datetime.fromtimestamp(one.start, UTC), **one.by, "of": of, "count": one.count}

"""The dashboard's searches over many results in PostgreSQL, measured: `python -m tests.benchmark.searches --rows 10000000`.

A month of four sites: forty cameras and a rare one, common labels and rare ones, refs, codes, late captures. Rows are made by
the server itself, in the order of their ids, and indexed afterwards, as a database would be that grew.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from eyeline.stores.results.base import ResultQuery
from eyeline.stores.results.postgresql import PostgresqlResults

#: When the month of these results begins, and how long it is.
BEGIN, DAYS = datetime(2026, 3, 1, tzinfo=UTC), 30
#: Rows made by one statement.
CHUNK = 250_000
#: What is measured: p95 over all searches, in seconds.
PROMISE = 0.050

_FILL = (Path(__file__).parent / "fill.sql").read_text()
_INDEXES = """
SELECT i.relname AS name, replace(pg_get_indexdef(i.oid), ' ON ONLY ', ' ON ') AS made
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
WHERE t.relname = ANY($1) AND NOT x.indisprimary AND t.relkind IN ('r', 'p')
"""
TABLES = ("results", "result_labels", "result_codes", "audit")


def searches(rows: int) -> Mapping[str, ResultQuery]:
    """What people look for, by name: the common, the rare, the old, the next page."""
    middle = BEGIN + timedelta(days=DAYS / 2)
    one = random.Random(7).randrange(rows)
    return {
        "newest": ResultQuery(limit=50),
        "site": ResultQuery(site="south", limit=50),
        "rare site": ResultQuery(site="far", limit=50),
        "camera": ResultQuery(camera="belt-7", limit=50),
        "rare camera": ResultQuery(camera="rare", limit=50),
        "failed": ResultQuery(status="failed", limit=50),
        "failed of a camera": ResultQuery(status="failed", camera="belt-7", limit=50),
        "label": ResultQuery(label="damaged", limit=50),
        "rare label": ResultQuery(label="burnt", limit=50),
        "label and site": ResultQuery(label="damaged", site="east", limit=50),
        "label and camera": ResultQuery(label="damaged", camera="belt-7", limit=50),
        "rare label and camera": ResultQuery(label="burnt", camera="belt-7", limit=50),
        "label nobody has": ResultQuery(label="nothing", limit=50),
        "score": ResultQuery(min_score=0.8, limit=50),
        "rare score": ResultQuery(min_score=0.9999, limit=50),
        "label and score": ResultQuery(label="damaged", min_score=0.8, limit=50),
        "label and rare score": ResultQuery(label="intact", min_score=0.9999, limit=50),
        "ref": ResultQuery(ref=f"order-{one // 3}", limit=50),
        "code": ResultQuery(code=f"P{one // 2}", limit=50),
        "an hour of a camera": ResultQuery(camera="belt-7", since=middle, until=middle + timedelta(hours=1), limit=50),
        "an hour": ResultQuery(since=middle, until=middle + timedelta(hours=1), limit=50),
        "a day": ResultQuery(since=middle, until=middle + timedelta(days=1), limit=50),
        "since yesterday": ResultQuery(since=BEGIN + timedelta(days=DAYS - 1), limit=50),
        "the first week": ResultQuery(until=BEGIN + timedelta(days=7), limit=50),
        "label on a day": ResultQuery(label="damaged", since=middle, until=middle + timedelta(days=1), limit=50),
        "pipeline": ResultQuery(pipeline="bottles", limit=50),
        "what a caller of one site sees": ResultQuery(sites=["far"], limit=50),
    }


async def fill(url: str, rows: int, seconds: float = 1e9) -> int:
    """Make up to `rows` results in the upgraded, empty database, or as many as fit into so many seconds; how many there are."""
    connection = await asyncpg.connect(url)
    try:
        indexes = await connection.fetch(_INDEXES, list(TABLES))
        for index in indexes:
            await connection.execute(f'DROP INDEX "{index["name"]}"')
        await connection.execute("SET synchronous_commit TO off; SET maintenance_work_mem TO '1GB'")
        begun, made = time.monotonic(), 0
        while made < rows and time.monotonic() - begun < seconds:
            last = min(made + CHUNK, rows)
            await connection.execute(_FILL, made, last - 1, DAYS * 86_400 / rows, timeout=None)
            made = last
        for index in indexes:
            await connection.execute(index["made"], timeout=None)
        await connection.execute("VACUUM (ANALYZE) results, result_labels, result_codes, audit", timeout=None)
    finally:
        await connection.close()
    return made


async def measured(store: PostgresqlResults, query: ResultQuery, times: int) -> list[float]:
    """Seconds of each of so many pages, one after the other; from the end on, the first page again."""
    taken, cursor = [], None
    for _ in range(times):
        begun = time.perf_counter()
        _, cursor = await store.find(ResultQuery(**{**_fields(query), "cursor": cursor}))
        taken.append(time.perf_counter() - begun)
    return taken


def _fields(query: ResultQuery) -> dict[str, Any]:
    return {name: getattr(query, name) for name in query.__dataclass_fields__}


def p95(seconds: Sequence[float]) -> float:
    """The value under which 95 % lie."""
    return statistics.quantiles(seconds, n=20)[-1]


async def run(rows: int, seconds: float, times: int, url: str | None) -> None:
    """Fill a server of our own (or the database at `url`, if it is filled already), measure, print a table."""
    from tests.contract.servers import new_database

    target = url or new_database()
    store = PostgresqlResults(target)
    if url is None:
        await store.upgrade()
        await store.make_room(BEGIN - timedelta(days=20))  # the month has a partition of its own
        begun = time.monotonic()
        rows = await fill(target, rows, seconds)
        print(f"{rows:,} results made in {time.monotonic() - begun:.0f} s: {target}", flush=True)
    everything: list[float] = []
    for name, query in searches(rows).items():
        taken = await measured(store, query, times)
        everything += taken
        marks = (
            f"p50 {statistics.median(taken) * 1e3:7.1f}  p95 {p95(taken) * 1e3:7.1f}  most {max(taken) * 1e3:7.1f} ms"
        )
        print(f"{name:32} {marks}", flush=True)
    told = "kept" if p95(everything) < PROMISE else "not kept"
    print(
        f"all {len(everything)} pages: p95 {p95(everything) * 1e3:.1f} ms; {PROMISE * 1e3:.0f} ms is {told}", flush=True
    )
    await store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop filling after so many")
    parser.add_argument("--times", type=int, default=40, help="pages of each search")
    parser.add_argument("--url", help="a database that is filled already")
    given = parser.parse_args()
    asyncio.run(run(given.rows, given.seconds, given.times, given.url))

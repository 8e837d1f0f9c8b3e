"""The short form of the searches' benchmark: twenty thousand results, and no search that no index serves. No time is asserted."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from eyeline.stores.results.finding import Names, find_page
from eyeline.stores.results.postgresql import PostgresqlResults
from eyeline.stores.results.statements import with_places
from tests.benchmark.searches import fill, searches
from tests.contract.servers import new_database

ROWS = 20_000


@pytest.fixture
async def store() -> AsyncIterator[PostgresqlResults]:
    url = new_database()
    opened = PostgresqlResults(url)
    await opened.upgrade()
    assert await fill(url, ROWS) == ROWS
    yield opened
    await opened.close()


async def test_every_search_finds_its_way_by_an_index(store: PostgresqlResults) -> None:
    for name, query in searches(ROWS).items():
        await store.find(query)
        page = with_places(find_page(query, Names(), store.reading.dialect).limit(query.limit + 1))
        said = str(page.compile(dialect=store.reading.dialect, compile_kwargs={"literal_binds": True}))
        plan = await asyncio.to_thread(_plan, store, said)
        assert "Seq Scan" not in plan, f"{name}:\n{plan}"


def _plan(store: PostgresqlResults, query: str) -> str:
    """How the server would find it, if reading everything were no way."""
    with store.reading.connect() as connection:
        connection.execute(text("SET enable_seqscan TO off"))
        return "\n".join(row[0] for row in connection.execute(text("EXPLAIN " + query.replace(":", r"\:"))))

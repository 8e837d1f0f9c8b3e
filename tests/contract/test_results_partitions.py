"""Results in PostgreSQL lie in partitions by months of their ids: made ahead, dropped when empty, and never in anybody's way."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import msgspec
import pytest
from sqlalchemy import Connection, text

from eyeline.core.clock import utcnow
from eyeline.core.errors import StoreError
from eyeline.core.ids import derived_id, first_id, uuid7
from eyeline.core.types import Result
from eyeline.ops.audit import trail
from eyeline.stores.results.base import ResultQuery
from eyeline.stores.results.partitions import AHEAD, Partition, partitions
from eyeline.stores.results.postgresql import PostgresqlResults
from eyeline.stores.results.retaining import Hold
from eyeline.stores.results.schema import metadata
from eyeline.stores.results.upgrade import differences, upgrade
from tests.contract.servers import copied_database, new_database
from tests.contract.test_results import make_job, make_result

NEXT = (utcnow().replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
FAR = datetime(2099, 5, 6, tzinfo=UTC)


@pytest.fixture
async def store() -> AsyncIterator[PostgresqlResults]:
    opened = PostgresqlResults(copied_database())
    yield opened
    await opened.close()


def received(moment: datetime) -> Result:
    return msgspec.structs.replace(make_result(make_job()), id=derived_id(moment, uuid7()))


async def lie(store: PostgresqlResults) -> dict[str, list[str]]:
    """Which ids lie in which partition."""

    def look(connection: Connection) -> dict[str, list[str]]:
        there = partitions(connection)
        whole(there)
        asked = "SELECT id FROM {} ORDER BY id"
        return {each.name: list(connection.execute(text(asked.format(each.name))).scalars()) for each in there}

    return await store._readers.read(look)


def whole(there: Sequence[Partition]) -> None:
    """From no beginning to no end without a gap."""
    assert [each.begins for each in there] == [None, *(each.ends for each in there[:-1])]
    assert there[-1].ends is None


def name(month: datetime) -> str:
    return f"results_{month:%Y_%m}"


async def test_the_table_of_the_release_before_becomes_the_first_partition_under_writers() -> None:
    url, clerk = new_database(), f"clerk{uuid4().hex}"
    before = PostgresqlResults(url)
    await asyncio.to_thread(upgrade, before._migrating(), url, "0010")
    old, ahead, saved = [received(utcnow()) for _ in range(30)], received(FAR), list[Result]()
    await before.save_many([*old, ahead])
    owner = await asyncpg.connect(url)
    await owner.execute(f"CREATE ROLE {clerk} LOGIN; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {clerk}")
    await owner.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {clerk}")
    await owner.close()

    after = PostgresqlResults(url.replace("postgres@", f"{clerk}@"))
    upgrading = asyncio.create_task(PostgresqlResults(url).upgrade())
    while not upgrading.done():
        saved.append(received(utcnow()))
        assert await before.save_many(saved[-1:]) == {saved[-1].id}
    await upgrading
    there = [*old, *saved]
    assert await lie(before) == {"results_past": sorted(each.id for each in there), name(NEXT): [ahead.id]}
    newest, _ = await before.find(ResultQuery(limit=300))
    assert [each.id for each in newest] == sorted([ahead.id, *(each.id for each in there)], reverse=True)
    assert await after.save_many([old[0], ahead]) == set()
    assert len(await after.save_many([received(utcnow())])) == 1  # what was granted on the table holds on this one
    await after.make_room(utcnow())  # tables are not his
    assert len(await lie(before)) == 2
    assert await asyncio.to_thread(differences, before._migrating(), metadata) == []
    await before.close()
    await after.close()


async def test_many_processes_make_the_coming_months_at_once_while_results_come(store: PostgresqlResults) -> None:
    others = [PostgresqlResults(store._url) for _ in range(3)]
    results = [received(utcnow()) for _ in range(60)]
    made = [each.make_room(utcnow()) for each in (store, *others)]
    await asyncio.gather(*made, *(others[n % 3].save_many([each]) for n, each in enumerate(results)))
    following = [(NEXT + timedelta(days=32 * n)).replace(day=1) for n in range(AHEAD)]
    there = await lie(store)
    assert list(there) == ["results_past", *map(name, following)]
    assert there["results_past"] == sorted(each.id for each in results)
    for each in others:
        await each.close()


async def test_an_id_of_any_time_finds_a_place_and_goes_over_to_its_month(store: PostgresqlResults) -> None:
    early, late, later = received(datetime(1980, 1, 2, tzinfo=UTC)), received(FAR), received(FAR + timedelta(days=90))
    assert len(await store.save_many([early, late, later])) == 3
    assert (await lie(store))[name(NEXT)] == [late.id, later.id]
    await store.make_room(FAR - timedelta(days=30))
    there = await lie(store)
    assert (there["results_past"], there["results_2099_05"]) == ([early.id], [late.id])
    assert there["results_2099_06"] == [later.id]
    assert await store.save_many([late]) == set()
    assert [each.id for each in (await store.find(ResultQuery()))[0]] == [later.id, late.id, early.id]


async def test_old_partitions_go_once_nothing_is_left_in_them(store: PostgresqlResults) -> None:
    long_after = (NEXT + timedelta(days=70)).replace(day=1)
    held, kept = received(utcnow()), received(NEXT + timedelta(days=40))
    await store.save_many([held, kept])
    hold = Hold(id=uuid7(), placed_at=utcnow(), result=held.id)
    await store.place_hold(hold)
    assert await store.erase([held.id], jobs=True) == set()
    await store.make_room(utcnow())
    await store.make_room(long_after)
    assert (await lie(store))["results_past"] == [held.id]
    await store.lift_hold(hold.id)
    assert await store.erase([held.id], jobs=True) == {held.id}
    await store.make_room(utcnow())  # its month is not over
    assert name(NEXT) in await lie(store)
    await store.make_room(long_after)
    there = await lie(store)
    assert (list(there)[:2], there["results_past"]) == (["results_past", name(NEXT + timedelta(days=40))], [])
    late = received(utcnow())
    assert await store.save_many([late]) == {late.id}
    assert (await lie(store))["results_past"] == [late.id]
    assert (await trail.verify(store)).good


async def test_a_table_in_use_is_left_for_the_next_look(store: PostgresqlResults) -> None:
    reader = await asyncpg.connect(store._url)
    async with reader.transaction():
        await reader.execute("SELECT count(*) FROM results")
        with pytest.raises(StoreError, match="lock timeout") as caught:
            await store.make_room(utcnow())
        assert caught.value.transient
        result = received(utcnow())
        assert await store.save_many([result]) == {result.id}
    await reader.close()
    await store.make_room(utcnow())
    assert len(await lie(store)) == 1 + AHEAD


async def test_pages_are_read_one_partition_after_the_other(store: PostgresqlResults) -> None:
    await store.make_room(utcnow())
    newest = "EXPLAIN SELECT id FROM results {} ORDER BY id DESC LIMIT 50"

    async def plan(where: str) -> str:
        found = await store._readers.read(lambda c: c.execute(text(newest.format(where))).scalars().all())
        return "\n".join(found)

    whole_plan = await plan("")
    assert "Append" in whole_plan
    assert "Merge Append" not in whole_plan
    assert "Sort" not in whole_plan
    assert "results_past" not in await plan(f"WHERE id >= '{first_id(NEXT)}'")

"""What PostgreSQL itself holds to, whatever it is asked: some sites' rows alone, and nothing of the owner's for others."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Engine, LargeBinary, Table, Text, insert, select

from eyeline.core.access import reach
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import StoreError
from eyeline.core.ids import uuid7
from eyeline.stores.results.base import ResultQuery
from eyeline.stores.results.grants import LIMITED, SERVICE, WALLED, renew
from eyeline.stores.results.postgresql import PostgresqlResults
from eyeline.stores.results.schema import events, metadata, new_events
from eyeline.stores.results.upgrade import upgrade
from tests.contract.servers import as_service, copied_database, emptied_database, new_database, postgres
from tests.contract.test_results import make_job, make_result

PLACES = ("north", "south")
REFUSED = (
    "DROP TABLE alerts",
    "ALTER TABLE results ADD COLUMN a text",
    "ALTER TABLE results DISABLE ROW LEVEL SECURITY",
    "CREATE TABLE a (a text)",
    "TRUNCATE jobs",
    "UPDATE audit SET body_sha256 = ''",
    "DELETE FROM audit",
    "UPDATE audit_blocks SET root = ''",
    "DELETE FROM audit_checkpoints",
    "UPDATE actions SET body = ''",
    "DELETE FROM rules",
    "DELETE FROM holds",
    "UPDATE alembic_version SET version_num = ''",
    "SELECT FROM results_past",  # where no policy holds
)


@pytest.fixture
def url() -> str:
    return emptied_database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresqlResults]:
    opened = PostgresqlResults(as_service(url))
    yield opened
    await opened.close()


async def seen(store: PostgresqlResults, table: Table) -> list[str]:
    """The sites of its rows, by a query without a word about sites."""
    return sorted(str(row["site"]) for row in await store._rows(select(table.c.site)))


def a_row(table: Table, site: str | None) -> dict[str, Any]:
    kinds = {Text: str(site), LargeBinary: b"{}"}
    row = {each.name: kinds.get(type(each.type), PLACES.index(site) if site else 2) for each in table.columns}
    return row | {"id": uuid7(), "captured_at": isoformat(utcnow()), "enqueued": True, "site": site}


async def test_a_query_that_forgets_the_sites_finds_rows_of_those_alone(url: str, store: PostgresqlResults) -> None:
    owner = PostgresqlResults(url)
    assert {*WALLED, events, new_events} == {table for table in metadata.tables.values() if "site" in table.c}
    for table in WALLED:
        names = {each.name for each in table.columns}
        sites = [*PLACES, None] if table.c.site.nullable else PLACES
        given = [{name: value for name, value in a_row(table, site).items() if name in names} for site in sites]

        def fill(engine: Engine, table: Table = table, given: Sequence[dict[str, Any]] = given) -> None:
            with engine.begin() as connection:
                connection.execute(insert(table), given)

        await owner._aside(fill)
    for each in (store, owner):
        for table in WALLED:
            everybodys = ["None"] if table.c.site.nullable else []
            reach.set(("north", "it's"))
            assert await seen(each, table) == [*everybodys, "north"], table
            reach.set(())
            assert await seen(each, table) == everybodys, table
            reach.set(None)
            assert await seen(each, table) == [*everybodys, *PLACES], table
    await owner.close()


async def test_the_stores_own_look_ups_keep_to_the_sites_and_what_all_share_does_not(store: PostgresqlResults) -> None:
    ours, theirs = make_result(make_job(1)), make_result(make_job(2), site="south")
    await store.save_many([ours, theirs])
    reach.set(("north",))
    found, _ = await store.find(ResultQuery())
    assert [result.id for result in found] == [ours.id]
    assert await store.get(theirs.id) is None
    assert await store.get(ours.id) is not None
    assert len(await store.tail(0, 10)) == await store.last_seq() == 2  # one reader follows it for everybody
    reach.set(None)
    assert await store.get(theirs.id) is not None


async def test_the_service_user_changes_no_table_and_no_record_of_the_past(store: PostgresqlResults) -> None:
    connection = await asyncpg.connect(store._url)
    for statement in REFUSED:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


async def test_tables_of_a_release_before_are_told_to_who_may_not_change_them() -> None:
    url = new_database()
    owner, service = PostgresqlResults(url), PostgresqlResults(as_service(url))
    before: list[Callable[[Engine], None]] = [
        lambda _: None,
        lambda engine: upgrade(engine, url, "0012"),
        lambda engine: run(engine, f"GRANT SELECT ON alembic_version TO {SERVICE}"),
    ]
    for change in before:
        await owner._aside(change)
        with pytest.raises(StoreError, match="run `eyeline db upgrade` as the user who owns its tables") as caught:
            await service.upgrade()
        assert caught.value.transient  # which is waited for
    await owner.upgrade()
    await service.upgrade()
    assert len(await service.save_many([make_result(make_job())])) == 1
    await owner.close()
    await service.close()


async def test_grants_are_made_once_and_again_where_they_are_missing() -> None:
    url = copied_database()
    owner, service = PostgresqlResults(url), PostgresqlResults(as_service(url))

    def nothing_new(engine: Engine) -> None:
        with engine.begin() as connection:
            renew(connection)
            assert connection.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()").scalar() is None

    await owner._aside(nothing_new)
    await owner._aside(lambda engine: run(engine, f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {SERVICE}"))
    with pytest.raises(StoreError, match="permission denied"):
        await service.save_many([make_result(make_job())])
    await owner.upgrade()
    assert len(await service.save_many([make_result(make_job())])) == 1
    await owner._aside(nothing_new)
    await owner.close()
    await service.close()


async def test_a_service_user_that_would_see_nothing_is_told_to_the_owner(url: str) -> None:
    owner = PostgresqlResults(url)
    connection = await asyncpg.connect(f"{postgres()}/postgres")
    await connection.execute(f"GRANT {LIMITED} TO {SERVICE} WITH INHERIT TRUE")
    try:
        with pytest.raises(StoreError, match=f"GRANT {LIMITED} TO {SERVICE}"):
            await owner.upgrade()
    finally:
        await connection.execute(f"GRANT {LIMITED} TO {SERVICE} WITH INHERIT FALSE")
        await connection.close()
    await owner.upgrade()
    await owner.close()


def run(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)

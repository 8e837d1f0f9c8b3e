"""What several writers, a restart and two upgrades at once do to a result store in PostgreSQL: nothing that is seen."""

import asyncio
import re
import shlex
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from eyeline.core.errors import StoreError
from eyeline.core.types import Code, Result
from eyeline.ops.audit.sealer import Sealer
from eyeline.ops.audit.trail import verify
from eyeline.stores.results import postgresql_driver as driver
from eyeline.stores.results import sql
from eyeline.stores.results.base import NewJob, ResultQuery
from eyeline.stores.results.postgresql import PostgresqlResults
from eyeline.stores.results.schema import metadata
from eyeline.stores.results.upgrade import HEAD, current, differences
from tests.contract.servers import (
    Postgres,
    as_service,
    emptied_database,
    free_port,
    guarded,
    new_database,
    password,
    postgres_program,
)
from tests.contract.test_results import make_job, make_result


@pytest.fixture
def url() -> str:
    return emptied_database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresqlResults]:
    opened = PostgresqlResults(url)
    yield opened
    await opened.close()


async def test_a_password_lets_us_in_and_a_wrong_one_is_told_without_it(url: str) -> None:
    store, result = PostgresqlResults(guarded(url, password())), make_result(make_job(1))
    assert await store.save_many([result]) == {result.id}
    assert len(await store.tail(0, 10, wait=5.0)) == 1  # by the connection of the bell, too
    await store.close()
    stranger = PostgresqlResults(guarded(url, "CANARY-guess"))
    for work in (stranger.save_many([result]), stranger.get(result.id)):
        with pytest.raises(StoreError, match=r"does not let us in.*password.*check user, password") as caught:
            await work
        assert not caught.value.transient
        assert "CANARY" not in str(caught.value)
    await stranger.close()


async def test_a_dump_restores_as_the_documentation_says(store: PostgresqlResults, url: str, tmp_path: Path) -> None:
    waits, result = make_job(1), make_result(make_job(2))
    await store.keep_jobs([NewJob(job=waits)])
    await store.mark_enqueued([waits.id])
    await store.save_many([result])
    await Sealer(store).seal_all()
    server, _, name = url.rpartition("/")
    said = (Path(__file__).parents[2] / "docs/backends/results-postgresql.md").read_text()
    commands = re.findall(r"^(?:pg_dump|createdb|pg_restore) .*$", said, re.MULTILINE)
    assert [line.split()[0] for line in commands] == ["pg_dump", "createdb", "pg_restore"]
    for line in commands:
        told = line.replace("$SERVER", f"{server}/postgres").replace("$DATABASE", url)
        told = told.replace("$RESTORED", f"{server}/{name}r").replace(" restored ", f" {name}r ")
        program, *words = shlex.split(told, comments=True)
        process = await asyncio.create_subprocess_exec(postgres_program(program), *words, cwd=tmp_path)
        assert await process.wait() == 0, told
    restored = PostgresqlResults(f"{server}/{name}r")
    await restored.upgrade()
    report = await verify(restored)
    assert (report.problems, report.records, report.unsealed) == ([], 1, 0)
    assert await restored.get(result.id) == await store.get(result.id) is not None
    assert [job.id for job in await restored.long_queued(-60.0, "", 10)] == [waits.id]
    service = PostgresqlResults(as_service(f"{server}/{name}r"))  # what was granted came along
    assert await service.save_many([make_result(make_job(3))])  # and the numbers go on where they were
    await service.close()
    events = await restored.tail(0, 10)
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    assert len(events) == 2
    await restored.close()


class Slow(PostgresqlResults):
    """Its transactions are written, and then wait to be committed until they are let go."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.written, self.go = threading.Event(), threading.Event()

    def _record(self, cursor: Any, *rest: Any) -> None:
        super()._record(cursor, *rest)
        self.written.set()
        assert self.go.wait(30)


async def test_an_event_committed_late_is_not_passed_by(store: PostgresqlResults, url: str) -> None:
    slow, first, second = Slow(url), make_result(make_job(1)), make_result(make_job(2))
    saving = asyncio.create_task(slow.save_many([first]))
    assert await asyncio.to_thread(slow.written.wait, 30)
    await store.save_many([second])
    seen = await store.tail(0, 10)
    assert [event.body["id"] for event in seen] == [second.id]
    slow.go.set()
    assert await saving == {first.id}
    later = await store.tail(seen[-1].seq, 10)
    assert [event.body["id"] for event in later] == [first.id]
    assert [event.seq for event in (*seen, *later)] == [1, 2]
    await slow.close()


async def test_what_a_server_that_died_before_the_commit_was_told_is_not_taken_for_kept(
    store: PostgresqlResults,
) -> None:
    def work(cursor: Any) -> None:
        cursor.execute("INSERT INTO states (name, value) VALUES ('a', '1')")
        cursor._connection.raw.terminate()

    with pytest.raises(StoreError):
        await store._writer.write(work)


async def test_a_sealer_whose_clock_is_ahead_takes_nobodys_turn(
    store: PostgresqlResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Sealer(store, lease=60.0), Sealer(store, lease=60.0)
    await store.save_many([make_result(make_job(1))])
    assert await first.step() == 1
    await store.save_many([make_result(make_job(2))])
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 3600)
    assert await second.step() == 0
    assert await first.step() == 1


async def test_a_record_committed_late_is_sealed_in_a_later_block(store: PostgresqlResults, url: str) -> None:
    slow, sealer = Slow(url), Sealer(store, lease=0.0)
    first, second = make_result(make_job(1)), make_result(make_job(2))
    saving = asyncio.create_task(slow.save_many([first]))
    assert await asyncio.to_thread(slow.written.wait, 30)
    await store.save_many([second])
    assert await sealer.seal_all() == 1
    slow.go.set()
    assert await saving == {first.id}
    assert await sealer.seal_all() == 1
    records = await store.sealed(0, 1)
    assert [(record.id, record.block, record.position) for record in records] == [(second.id, 0, 0), (first.id, 1, 0)]
    assert records[0].seq > records[1].seq
    assert (await verify(store)).good
    await slow.close()


async def test_who_waits_is_woken_by_other_processes(
    store: PostgresqlResults, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "LOOK", 60.0)  # nobody looks by himself
    other, result = PostgresqlResults(url), make_result(make_job(1))
    for number in range(3):
        waiting = asyncio.create_task(store.tail(number, 10, wait=60.0))
        await asyncio.sleep(0.2 if number else 1.0)  # the first one connects
        await other.save_many([make_result(make_job(number + 10))])
        async with asyncio.timeout(20):
            assert len(await waiting) == 1
    waiting = asyncio.create_task(store.tail(3, 10, wait=60.0))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(_hang_up_listeners, url)  # what is rung meanwhile is looked for afterwards
    await other.save_many([result])
    async with asyncio.timeout(20):
        assert [event.body["id"] for event in await waiting] == [result.id]
    await other.close()


def _hang_up_listeners(url: str) -> None:
    connection = driver.connect(url)
    connection.cursor().execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR query LIKE 'NOTIFY%'"
    )
    connection.close()


async def test_many_writers_and_readers_see_each_event_once_and_in_one_order(url: str) -> None:
    stores = [PostgresqlResults(url) for _ in range(4)]
    results = [make_result(make_job(number), camera=f"belt-{number % 3}") for number in range(120)]

    async def follow(store: PostgresqlResults) -> list[str]:
        seen: list[str] = []
        after = 0
        while len(seen) < len(results):
            for event in await store.tail(after, 7, wait=0.05):
                assert event.seq == after + 1
                seen.append(event.body["id"])
                after = event.seq
        return seen

    readers = [asyncio.create_task(follow(store)) for store in stores]
    await asyncio.gather(*(stores[n % 4].save_many([result]) for n, result in enumerate(results)))
    async with asyncio.timeout(60):
        orders = await asyncio.gather(*readers)
    assert sorted(orders[0]) == sorted(result.id for result in results)
    assert all(order == orders[0] for order in orders)
    for store in stores:
        await store.close()


async def test_the_same_results_from_two_workers_in_other_orders_are_kept_once(url: str) -> None:
    one, two = PostgresqlResults(url), PostgresqlResults(url)
    jobs = [make_job(number, camera=f"belt-{number % 5}") for number in range(40)]
    await one.keep_jobs([NewJob(job=job) for job in jobs])
    results = [make_result(job) for job in jobs]
    turns = [
        asyncio.gather(one.save_many(results[n : n + 10]), two.save_many(results[n : n + 10][::-1]))
        for n in (0, 10, 20, 30)
    ]
    new = [len(mine) + len(theirs) for mine, theirs in await asyncio.gather(*turns)]
    assert new == [10, 10, 10, 10]
    counts = await one.camera_counts()
    assert sum(count["completed"] for count in counts.values()) == 40
    await one.close()
    await two.close()


async def test_processes_that_upgrade_at_once_take_turns() -> None:
    url = new_database()
    stores = [PostgresqlResults(url) for _ in range(6)]
    await asyncio.gather(*(store.upgrade() for store in stores))
    assert await stores[5].save_many([make_result(make_job())])
    assert await stores[0]._readers.read(current) == HEAD
    count = text("SELECT count(*) FROM alembic_version")
    assert await stores[0]._readers.read(lambda connection: connection.execute(count).scalar()) == 1
    for store in stores:
        await store.close()


async def test_migrations_lead_to_the_tables_that_the_code_knows(store: PostgresqlResults) -> None:
    assert await asyncio.to_thread(differences, store._migrating(), metadata) == []


async def test_a_table_of_no_release_is_said(store: PostgresqlResults) -> None:
    empty = PostgresqlResults(new_database())
    with pytest.raises(StoreError, match="refused a statement") as caught:
        await empty.save_many([make_result(make_job())])
    assert not caught.value.transient
    await empty.close()


async def test_a_nul_in_a_barcode_is_kept_and_found(store: PostgresqlResults) -> None:
    result = make_result(make_job(), codes=[Code("AB\x00C", "DataMatrix", (0, 0, 1, 1))])
    await store.save_many([result])
    found, _ = await store.find(ResultQuery(code="AB\x00C"))
    assert found == [result]


async def test_marks_need_not_be_forced_to_the_disk(store: PostgresqlResults, monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[bool] = []
    begin = driver.Connection.begin

    def told(self: driver.Connection, *, durable: bool = True) -> None:
        begin(self, durable=durable)
        forced.append(self.cursor().execute("SHOW synchronous_commit").fetchone()[0] == "on")

    monkeypatch.setattr(driver.Connection, "begin", told)
    job = make_job()
    await store.keep_jobs([NewJob(job=job)])
    await store.mark_enqueued([job.id])
    await store.keep_jobs([NewJob(job=make_job(2))])
    assert forced == [True, False, True]


async def test_statements_that_a_migration_made_stale_are_made_anew(url: str) -> None:
    def work() -> list[Any]:
        one, other = driver.connect(url), driver.connect(url)
        other.cursor().execute("CREATE TABLE IF NOT EXISTS stale (a integer)")
        one.cursor().execute("SELECT * FROM stale")
        other.cursor().execute("ALTER TABLE stale ADD COLUMN b text")
        with pytest.raises(driver.OperationalError, match="cached"):
            one.cursor().execute("SELECT * FROM stale")
        again = one.cursor().execute("SELECT * FROM stale").description
        other.cursor().execute("DROP TABLE stale")
        one.close()
        other.close()
        return [column[0] for column in again or ()]

    assert await asyncio.to_thread(work) == ["a", "b"]


async def failure(store: PostgresqlResults, result: Result) -> tuple[StoreError, float]:
    begun = time.monotonic()
    with pytest.raises(StoreError) as caught:
        await store.save_many([result])
    return caught.value, time.monotonic() - begun


async def test_a_server_that_is_not_there_is_told_at_once_without_the_password() -> None:
    store = PostgresqlResults(f"postgresql://me:secret@127.0.0.1:{free_port()}/db")
    error, seconds = await failure(store, make_result(make_job()))
    assert error.transient
    assert seconds < 6
    assert "secret" not in str(error)
    await store.close()


async def test_a_server_that_does_not_answer_is_told_in_seconds() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    store = PostgresqlResults(f"postgresql://me@127.0.0.1:{server.sockets[0].getsockname()[1]}/db")
    error, seconds = await failure(store, make_result(make_job()))
    assert error.transient
    assert seconds < driver.CONNECT + 3
    await store.close()
    server.close()


async def test_a_database_that_is_not_there_is_no_passing_trouble(url: str) -> None:
    store = PostgresqlResults(url.rpartition("/")[0] + "/nowhere")
    error, _ = await failure(store, make_result(make_job()))
    assert not error.transient
    assert "check user, password and database" in str(error)
    await store.close()


async def test_a_restart_is_a_passing_trouble_and_then_all_goes_on() -> None:
    server = Postgres()
    server.start()
    store = PostgresqlResults(f"{server.url}/postgres")
    await store.upgrade()
    before, during, after = (make_result(make_job(number)) for number in range(3))
    await store.save_many([before])
    assert len(await store.tail(0, 10)) == 1
    server.stop()
    error, seconds = await failure(store, during)
    assert error.transient
    assert seconds < 6
    with pytest.raises(StoreError) as caught:
        await store.tail(0, 10)
    assert caught.value.transient
    server.start()
    assert await store.save_many([during]) == {during.id}
    assert (await store.get(before.id)) == before
    assert len((await store.find(ResultQuery()))[0]) == 2
    server.stop()
    server.start()  # away and back while nobody asked: nobody's error
    assert await store.save_many([after]) == {after.id}
    assert [event.body["id"] for event in await store.tail(0, 10)] == [before.id, during.id, after.id]
    assert len((await store.find(ResultQuery()))[0]) == 3
    assert set(await store.get_many([before.id, after.id])) == {before.id, after.id}
    await store.close()
    server.stop()

"""What holds behind the result store's promises: group commit, plans, migrations, errors that say what to do."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Select, create_engine, text

from eyeline.core import embedded
from eyeline.core.errors import ConfigError, StoreError
from eyeline.core.ids import uuid7
from eyeline.core.types import BlobRef, Job, Result
from eyeline.stores.results import driver, notices
from eyeline.stores.results.alerts import _find as found_by
from eyeline.stores.results.base import AlertQuery, ItemQuery, NewJob
from eyeline.stores.results.copying import copy_rows
from eyeline.stores.results.schema import metadata
from eyeline.stores.results.sqlite import SqliteResults, checkpoint, database_path
from eyeline.stores.results.statements import Statements
from eyeline.stores.results.upgrade import HEAD, differences, upgrade

NOW = datetime(2026, 3, 4, tzinfo=UTC)


def new_job() -> NewJob:
    blob = BlobRef("north/" + "0" * 64, 1, "0" * 64)
    job = Job(id=uuid7(), site="north", pipeline="p", lane="live", blob=blob, received_at=NOW, captured_at=NOW)
    return NewJob(job=job)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteResults]:
    opened = SqliteResults(f"sqlite:///{path}")
    await opened.upgrade()
    yield opened
    await opened.close()


def test_the_sqlite_in_use_has_no_wal_reset_bug() -> None:
    assert driver.sqlite_version_info >= (3, 51, 3)


async def test_many_callers_share_one_commit(store: SqliteResults, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = 0
    commit = driver.Connection.commit

    def counting(self: driver.Connection) -> None:
        nonlocal commits
        commits += self.in_transaction
        commit(self)

    monkeypatch.setattr(driver.Connection, "commit", counting)
    await asyncio.gather(*(store.keep_jobs([new_job()]) for _ in range(64)))
    assert (await store.unfinished()).count == 64
    assert commits <= 3  # the first may go alone, the rest together


async def test_marks_ride_with_other_writes_and_force_nothing_to_the_disk_alone(
    store: SqliteResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await store.keep_jobs([new_job(), new_job()])
    forced: list[bool] = []
    begin = driver.Connection.begin

    def told(self: driver.Connection, *, durable: bool = True) -> None:
        forced.append(durable)
        begin(self, durable=durable)

    monkeypatch.setattr(driver.Connection, "begin", told)
    await store.mark_enqueued([kept[0].job.id])
    assert forced == [False]
    await asyncio.gather(store.mark_enqueued([kept[1].job.id]), store.keep_jobs([new_job()]))
    assert forced == [False, True]
    assert await store.unqueued(-1.0, 10) != []


async def test_a_caller_whose_loop_is_gone_does_not_stop_the_writer(path: Path) -> None:
    store = SqliteResults(f"sqlite:///{path}")
    await store.upgrade()

    def leave() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(store.keep_jobs([new_job()]))
        loop.call_soon(loop.stop)
        loop.run_forever()
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()

    for _ in range(20):
        await asyncio.to_thread(leave)
    assert len(await store.keep_jobs([new_job()])) == 1
    await store.close()


async def test_migrations_lead_to_the_tables_that_the_code_knows(store: SqliteResults, path: Path) -> None:
    engine = create_engine(f"sqlite+apsw:///{path}")
    assert differences(engine, metadata) == []
    with engine.connect() as connection:
        tables = connection.execute(text("SELECT name, sql FROM sqlite_schema")).all()
    engine.dispose()
    told = {name: sql for name, sql in tables if sql}
    assert "WITHOUT ROWID" in told["result_labels"]
    assert "AUTOINCREMENT" in told["events"]
    assert "WHERE status = 'queued'" in told["jobs_queued"]


async def test_a_newer_database_is_left_alone_and_refused_once_something_was_taken_away(
    store: SqliteResults, path: Path
) -> None:
    engine = create_engine(f"sqlite+apsw:///{path}?writing=1")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    upgrade(engine, "here")
    assert len(await store.keep_jobs([new_job()])) == 1
    with pytest.raises(ConfigError, match="is at schema 9999"):
        copy_rows(store, store, lambda _: None)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO states (name, value) VALUES ('schema/floor', CAST('9998' AS BLOB))"))
    with pytest.raises(StoreError, match="run the newer release"):
        upgrade(engine, "here")
    engine.dispose()


async def test_a_database_of_the_release_before_gets_the_new_tables_and_keeps_what_it_has(path: Path) -> None:
    engine = create_engine(f"sqlite+apsw:///{path}?writing=1")
    await asyncio.to_thread(upgrade, engine, "here", "0001")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO states (name, value) VALUES ('alerts/cursor', X'37')"))
    upgraded = SqliteResults(f"sqlite:///{path}")
    await upgraded.upgrade()
    assert await upgraded.load_state("alerts/cursor") == b"7"
    assert await upgraded.find_items(ItemQuery()) == ([], None)
    await upgraded.close()
    assert differences(engine, metadata) == []
    engine.dispose()


async def test_the_head_that_the_code_names_is_the_newest_migration() -> None:
    versions = Path(driver.__file__).parent / "migrations" / "versions"
    assert max(file.name for file in versions.glob("[0-9]*.py")).startswith(HEAD)


async def test_counting_the_waiting_reads_only_the_waiting(store: SqliteResults, path: Path) -> None:
    engine = create_engine(f"sqlite+apsw:///{path}")
    with engine.connect() as connection:
        waiting = Statements(engine.dialect).unfinished
        plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {waiting.sql}").all())
    engine.dispose()
    assert "COVERING INDEX jobs_queued" in plan


async def test_the_alerts_of_a_result_are_found_over_their_index(store: SqliteResults, path: Path) -> None:
    engine = create_engine(f"sqlite+apsw:///{path}")
    query = found_by(AlertQuery(sites=["north"], result_id="1")).limit(101)
    with engine.connect() as connection:
        told = query.compile(engine, compile_kwargs={"literal_binds": True})
        plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {told}").all())
    engine.dispose()
    assert "USING INDEX alerts_result" in plan


async def test_a_full_disk_is_said_and_passes(store: SqliteResults, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = driver.Connection.begin
    limit = 1

    def limited(self: driver.Connection, *, durable: bool = True) -> None:
        self.raw.execute(f"PRAGMA max_page_count={limit}")
        begin(self, durable=durable)

    monkeypatch.setattr(driver.Connection, "begin", limited)
    jobs = [new_job() for _ in range(200)]
    with pytest.raises(StoreError, match=r"is full.*free space") as caught:
        await store.keep_jobs(jobs)
    assert caught.value.transient
    limit = 1_000_000
    assert len(await store.keep_jobs(jobs)) == 200


async def test_a_locked_database_is_worth_another_try(
    store: SqliteResults, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "PATIENCE", 0.05)
    holder = driver.connect(str(path), writing=True)
    holder.begin()
    with pytest.raises(StoreError, match="cannot be used now") as caught:
        await store.keep_jobs([new_job()])
    holder.rollback()
    holder.close()
    assert caught.value.transient
    assert not (await store.keep_jobs([new_job()]))[0].existing


async def test_a_file_that_is_no_database_says_how_to_get_one_back(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)
    store = SqliteResults(f"sqlite:///{path}")
    with pytest.raises(StoreError, match="eyeline restore") as caught:
        await store.upgrade()
    assert not caught.value.transient
    await store.close()


async def test_a_checkpoint_moves_the_log_into_the_database(store: SqliteResults, path: Path) -> None:
    await store.keep_jobs([new_job() for _ in range(50)])
    before = path.stat().st_size
    await asyncio.to_thread(checkpoint, path)
    assert path.stat().st_size > before


async def test_bodies_are_committed_to_with_a_salt_of_their_own(store: SqliteResults, path: Path) -> None:
    results = [
        Result(
            id=uuid7(),
            status="completed",
            site="n",
            pipeline="p",
            captured_at=NOW,
            received_at=NOW,
            completed_at=NOW,
        )
        for _ in range(2)
    ]
    await store.save_many(results)
    reader = driver.connect(str(path))
    rows = reader.cursor().execute("SELECT id, length(salt), body_sha256 FROM audit ORDER BY seq").fetchall()
    reader.close()
    assert [(row[0], row[1]) for row in rows] == [(result.id, 16) for result in results]
    assert rows[0][2] != rows[1][2]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="needs a file"):
        database_path(url)


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        (notices._counted(notices._WAITING, None), "deliveries_due"),
        (notices._counted(notices._HELD, None), "deliveries_held"),
        (notices._counted(notices._FAILED, None), "deliveries_failed"),
        (notices._delivered("ops", None), "deliveries_channel (channel=?)"),
    ],
    ids=["waiting", "held", "failed", "delivered"],
)
def test_how_channels_do_is_told_without_looking_at_all_that_was_ever_sent(asked: Select[Any], index: str) -> None:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as connection:
        said = asked.compile(engine, compile_kwargs={"literal_binds": True})
        assert f"USING INDEX {index}" in str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {said}").all())
    engine.dispose()

"""Somebody with the database in hand: each change on the disk is found by `eyeline audit verify`, and by the file alone."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from eyeline.core.clock import utcnow
from eyeline.core.errors import ConfigError
from eyeline.core.ids import uuid7
from eyeline.core.types import Result
from eyeline.ops.audit import trail
from eyeline.ops.audit.sealer import Sealer
from eyeline.ops.audit.signing import load_key
from eyeline.stores.results import driver, rows
from eyeline.stores.results.base import Action
from eyeline.stores.results.schema import audit, results
from eyeline.stores.results.sqlite import SqliteResults, checkpoint
from eyeline.stores.results.upgrade import upgrade
from tests.unit.ops.audit.chains import flipped

#: Records before the action that ends a block, and blocks.
EACH, BLOCKS = 11, 5
COLUMNS = ("seq", "id", "kind", "at", "salt", "body_sha256", "block", "position")

#: A statement, and its values, that takes a change back.
Undo = tuple[str, tuple[Any, ...]]


def result(ref: str | None = None) -> Result:
    now = utcnow()
    return Result(
        id=uuid7(),
        status="completed",
        site="n",
        pipeline="p",
        captured_at=now,
        received_at=now,
        completed_at=now,
        ref=ref,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteResults]:
    opened = SqliteResults(f"sqlite:///{path}")
    await opened.upgrade()
    for _ in range(BLOCKS):
        await opened.save_many([result() for _ in range(EACH)])
        await opened.record_action(Action(what="note", by="mia"))
        await Sealer(opened, lease=0.0).seal_all()
    yield opened
    await opened.close()


class Hand:
    """Whoever can write the file: each change is made, looked at, and taken back."""

    def __init__(self, path: Path) -> None:
        self._connection = driver.connect(str(path), writing=True)

    def rows(self, sql: str, *values: Any) -> list[Any]:
        return self._connection.cursor().execute(sql, values).fetchall()

    def close(self) -> None:
        self._connection.close()


Change = Callable[[Hand, dict[str, Any], random.Random], Undo]


@pytest.fixture
def hand(store: SqliteResults, path: Path) -> Any:
    made = Hand(path)
    yield made
    made.close()


def _flip(column: str) -> Change:
    def change(hand: Hand, row: dict[str, Any], rng: random.Random) -> Undo:
        # a number that is taken would be refused by the table itself
        value = row["seq"] ^ (1 << rng.randrange(8, 40)) if column == "seq" else flipped(row[column], rng)
        now = value if column == "seq" else row["seq"]
        hand.rows(f"UPDATE audit SET {column} = ? WHERE seq = ?", value, row["seq"])
        return f"UPDATE audit SET {column} = ? WHERE seq = ?", (row[column], now)

    return change


def _body(hand: Hand, row: dict[str, Any], rng: random.Random) -> Undo:
    table = "results" if row["kind"] == "result" else "actions"
    body = hand.rows(f"SELECT body FROM {table} WHERE id = ?", row["id"])[0][0]
    hand.rows(f"UPDATE {table} SET body = ? WHERE id = ?", flipped(body, rng), row["id"])
    return f"UPDATE {table} SET body = ? WHERE id = ?", (body, row["id"])


def _delete(hand: Hand, row: dict[str, Any], rng: random.Random) -> Undo:
    hand.rows("DELETE FROM audit WHERE seq = ?", row["seq"])
    names = ", ".join(COLUMNS)
    marks = ", ".join("?" * len(COLUMNS))
    return f"INSERT INTO audit ({names}) VALUES ({marks})", tuple(row[name] for name in COLUMNS)


def _unseal(hand: Hand, row: dict[str, Any], rng: random.Random) -> Undo:
    hand.rows("UPDATE audit SET block = NULL, position = NULL WHERE seq = ?", row["seq"])
    values = (row["block"], row["position"], row["seq"])
    return "UPDATE audit SET block = ?, position = ? WHERE seq = ?", values


def _wipe(hand: Hand, row: dict[str, Any], rng: random.Random) -> Undo:
    """The salt goes, so that it looks erased."""
    hand.rows("UPDATE audit SET salt = x'' WHERE seq = ?", row["seq"])
    return "UPDATE audit SET salt = ? WHERE seq = ?", (row["salt"], row["seq"])


def _insert(hand: Hand, row: dict[str, Any], rng: random.Random) -> Undo:
    names = [name for name in COLUMNS if name != "seq"]
    copied = ", ".join("'forged'" if name == "id" else name for name in names)
    hand.rows(f"INSERT INTO audit ({', '.join(names)}) SELECT {copied} FROM audit WHERE seq = ?", row["seq"])
    return "DELETE FROM audit WHERE id = 'forged'", ()


CHANGES: dict[str, Change] = {
    **{f"flip {column}": _flip(column) for column in COLUMNS},
    "flip body": _body,
    "delete": _delete,
    "unseal": _unseal,
    "wipe": _wipe,
    "insert": _insert,
}


async def changed_and_found(store: SqliteResults, hand: Hand, change: str, trials: int) -> list[Any]:
    """Changes of random records that were not found at their place."""
    rng, missed = random.Random(change), []
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in hand.rows(f"SELECT {', '.join(COLUMNS)} FROM audit")]
    for _ in range(trials):
        row = rng.choice(rows)
        sql, values = CHANGES[change](hand, row, rng)
        report = await trail.verify(store)
        places = {(problem.block, problem.position) for problem in report.problems}
        if (row["block"], row["position"]) not in places:
            missed.append((row["seq"], report.problems))
        hand.rows(sql, *values)
    assert (await trail.verify(store)).good  # all was taken back: it was the change that was found
    return missed


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_in_the_database_is_found_and_located(store: SqliteResults, hand: Hand, change: str) -> None:
    assert await changed_and_found(store, hand, change, 5) == []


@pytest.mark.soak
@pytest.mark.parametrize("change", CHANGES)
async def test_a_thousand_changes_in_the_database_are_found_and_located(
    store: SqliteResults, hand: Hand, change: str
) -> None:
    assert await changed_and_found(store, hand, change, 1000) == []


async def test_a_result_put_in_by_hand_is_named(store: SqliteResults, hand: Hand) -> None:
    names = "status, site, camera, pipeline, ref, captured_at, top_score, body"
    hand.rows(f"INSERT INTO results (id, {names}) SELECT 'forged', {names} FROM results LIMIT 1")
    assert "result forged" in str((await trail.verify(store)).problems[0])


@pytest.mark.parametrize("left", ["audit_blocks WHERE number = 4", "audit_blocks WHERE number = 2"])
async def test_a_block_that_is_gone_is_found_by_what_it_left(store: SqliteResults, hand: Hand, left: str) -> None:
    hand.rows(f"DELETE FROM {left}")
    assert not (await trail.verify(store)).good


async def test_an_end_cut_off_is_seen_only_with_a_checkpoint_from_outside(
    store: SqliteResults, hand: Hand, tmp_path: Path
) -> None:
    kept = await trail.checkpoint(store, tmp_path / "key")
    for sql in (
        "DELETE FROM audit_blocks WHERE number = 4",
        "DELETE FROM results WHERE id IN (SELECT id FROM audit WHERE block = 4)",
        "DELETE FROM audit WHERE block = 4",
        "DELETE FROM audit_checkpoints",
    ):
        hand.rows(sql)
    assert (await trail.verify(store)).good
    assert "its end was cut off" in str((await trail.verify(store, [kept])).problems[0])


async def test_what_is_recorded_and_erased_during_a_check_is_no_alarm(store: SqliteResults) -> None:
    ids = [record.id for record in await store.sealed(0, BLOCKS) if record.kind == "result"]
    sealer, done = Sealer(store, lease=0.0), False

    async def go_on() -> None:
        for ident in ids:
            await store.save_many([result()])
            await store.erase([ident])
            await sealer.seal_all()

    going = asyncio.create_task(go_on())
    checks = 0
    while not done:
        done = going.done()
        report = await trail.verify(store)
        assert report.good, report.problems
        checks += 1
    await going
    assert checks > 3
    assert report.erased == len(ids)


async def test_what_is_erased_is_not_in_the_file_any_more(store: SqliteResults, path: Path) -> None:
    made = [result(f"pallet-of-mia-{number}") for number in range(20)]
    await store.save_many(made)
    checkpoint(path)
    assert b"pallet-of-mia-7" in path.read_bytes()
    await store.erase([one.id for one in made])
    checkpoint(path)
    assert b"pallet-of-mia" not in path.read_bytes()


async def test_records_of_the_release_before_are_sealed_by_this_one(tmp_path: Path) -> None:
    old = SqliteResults(f"sqlite:///{tmp_path / 'old.db'}")
    await asyncio.to_thread(upgrade, old.writing, old.where, "0003")
    with old.writing.begin() as connection:  # as it wrote them
        for one in (result(), result()):
            row = rows.result_row(one, [])
            del row["models"]
            connection.execute(insert(results).values(row))
            noted = rows.audit_rows([(one.id, row["body"])], "result", "2026-03-04T12:00:00.000000Z")
            connection.execute(insert(audit).values(noted[0]))
    await old.upgrade()
    assert (await trail.verify(old)).unsealed == 2
    assert await Sealer(old).seal_all() == 2
    assert (await trail.verify(old)).good
    await old.close()


async def test_an_export_that_cannot_be_written_says_where(store: SqliteResults, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        await trail.export(store, tmp_path / "nowhere" / "export.jsonl")


async def test_there_is_no_checkpoint_of_nothing(tmp_path: Path) -> None:
    empty = SqliteResults(f"sqlite:///{tmp_path / 'empty.db'}")
    await empty.upgrade()
    with pytest.raises(ConfigError, match="nothing is recorded"):
        await trail.checkpoint(empty, tmp_path / "key")
    await empty.close()


@pytest.mark.parametrize(("text", "mode"), [("no key", 0o600), ("ab" * 31, 0o600), ("ab" * 32, 0o644)])
def test_a_file_that_holds_no_key_or_is_open_to_others_is_refused(tmp_path: Path, text: str, mode: int) -> None:
    key = tmp_path / "key"
    key.write_text(text)
    key.chmod(mode)
    with pytest.raises(ConfigError, match=r"holds no key|read by others"):
        load_key(key)


def test_the_key_is_made_once(tmp_path: Path) -> None:
    assert load_key(tmp_path / "key") == load_key(tmp_path / "key")
    assert json.loads(f'"{(tmp_path / "key").read_text().strip()}"') == load_key(tmp_path / "key").hex()

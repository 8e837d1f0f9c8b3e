"""The audit on every result store: what is committed is sealed once, in an order that does not change, whoever dies."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eyeline.core.errors import StoreError
from eyeline.core.types import Classification, Code, Result
from eyeline.ops.audit import trail, verifier
from eyeline.ops.audit.sealer import ROWS, Sealer, SealerService, next_block
from eyeline.stores.results import open_results
from eyeline.stores.results.base import Action, NewJob, ResultQuery, ResultStore
from tests.contract.test_results import make_job, make_result


@pytest.fixture
def url(results_url: str) -> str:
    return results_url


@pytest.fixture
async def store(url: str) -> AsyncIterator[ResultStore]:
    opened = open_results(url)
    await opened.upgrade()
    yield opened
    await opened.close()


async def recorded(store: ResultStore, count: int, **changes: object) -> list[Result]:
    jobs = [make_job(number) for number in range(count)]
    await store.keep_jobs([NewJob(job=job) for job in jobs])
    made = [make_result(job, ref="order-7", **changes) for job in jobs]
    await store.save_many(made)
    return made


async def test_a_result_has_no_place_until_it_is_sealed_and_then_keeps_it(store: ResultStore) -> None:
    made = await recorded(store, 3)
    assert (await store.get(made[0].id)) == made[0]
    assert await Sealer(store).seal_all() == 3
    places = []
    for result in made:
        found = await store.get(result.id)
        assert found is not None
        assert found.chain is not None
        places.append((found.chain.block, found.chain.position))
    assert sorted(places) == [(0, 0), (0, 1), (0, 2)]
    page, _ = await store.find(ResultQuery(ref="order-7", limit=2))
    several = await store.get_many([result.id for result in made])
    for result in [*page, *several.values()]:
        assert (result.chain.block, result.chain.position) == places[[one.id for one in made].index(result.id)]  # type: ignore[union-attr]


async def test_blocks_follow_each_other_and_hold_a_thousand_records_at_most(store: ResultStore) -> None:
    await recorded(store, ROWS + 5)
    sealer = Sealer(store)
    assert [await sealer.step(), await sealer.step(), await sealer.step()] == [ROWS, 5, 0]
    await recorded(store, 2)
    assert await sealer.step() == 2
    blocks = await store.blocks(-1, 10)
    assert [(block.number, block.count, block.size) for block in blocks] == [
        (0, ROWS, ROWS), (1, 5, ROWS + 5), (2, 2, ROWS + 7),
    ]  # fmt: skip
    assert [block.previous for block in blocks[1:]] == [block.hash for block in blocks[:-1]]
    assert await store.last_block() == blocks[-1]
    assert await store.blocks(1, 10) == blocks[2:]
    report = await trail.verify(store)
    assert (report.good, report.records, report.blocks, report.unsealed) == (True, ROWS + 7, 3, 0)


async def test_failures_and_human_actions_are_records_too(store: ResultStore) -> None:
    await recorded(store, 1, status="failed", reason="bad_image")
    ident = await store.record_action(Action(what="note", by="mia", body={"text": "belt stopped"}))
    waiting = await store.unsealed(10, bodies=True)
    assert [record.kind for record in waiting] == ["result", "action"]
    assert waiting[1].id == ident
    assert waiting[1].body is not None
    assert json.loads(waiting[1].body) | {"at": ""} == {"what": "note", "by": "mia", "at": "", "text": "belt stopped"}
    assert (await trail.verify(store)).unsealed == 2


async def test_only_one_sealer_has_the_turn_and_another_takes_it_when_the_lease_ends(store: ResultStore) -> None:
    await recorded(store, 1)
    first, second = Sealer(store, lease=0.3), Sealer(store, lease=0.3)
    assert await first.step() == 1
    await recorded(store, 1)
    assert await second.step() == 0
    assert await first.step() == 1
    await recorded(store, 1)
    await asyncio.sleep(0.35)
    assert await second.step() == 1
    await recorded(store, 1)
    assert await first.step() == 0


async def test_the_same_block_or_the_same_record_is_not_sealed_twice(store: ResultStore) -> None:
    await recorded(store, 2)
    records = await store.unsealed(10)
    block = next_block(None, records, "2026-03-04T12:00:00.000000Z")
    seqs = [record.seq for record in records]
    assert await store.seal(block, seqs, holder="a", lease=0.0)
    assert not await store.seal(block, seqs, holder="b", lease=0.0)
    with pytest.raises(StoreError, match="sealed already"):
        await store.seal(next_block(block, records, "2026-03-04T12:00:01.000000Z"), seqs, holder="b", lease=0.0)
    assert await store.blocks(-1, 10) == [block]
    assert (await trail.verify(store)).good


async def test_two_who_seal_at_once_while_others_record_seal_each_record_once(url: str, store: ResultStore) -> None:
    other = open_results(url)
    sealers = [Sealer(store, lease=0.0), Sealer(other, lease=0.0)]
    busy = True

    async def seal(sealer: Sealer) -> int:
        total = 0
        while busy:
            try:
                total += await sealer.step()
            except StoreError:  # the other one was there first
                continue
        return total

    sealing = [asyncio.create_task(seal(sealer)) for sealer in sealers]
    for _ in range(8):
        await asyncio.gather(*(recorded(each, 5) for each in (store, other, store)))
    busy = False
    totals = await asyncio.gather(*sealing)
    left = await sealers[0].seal_all()
    report = await trail.verify(store)
    assert (report.good, report.records, report.unsealed) == (True, 120, 0), report.problems
    assert sum(totals) + left == 120
    await other.close()


KILLED = """
import asyncio, os, signal, sys
from eyeline.stores.results import open_results
from eyeline.ops.audit.sealer import Sealer

url, when = sys.argv[1:]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Dying:
    def __init__(self, statement, after):
        self.statement, self.after = statement, after
    def many(self, cursor, rows):
        if not self.after:
            die()
        self.statement.many(cursor, rows)
        die()

async def main():
    store = open_results(url)
    if when == "block":
        store._audit.place = Dying(store._audit.place, False)
    if when == "places":
        store._audit.place = Dying(store._audit.place, True)
    await Sealer(store, lease=0.0).step()
    die()

asyncio.run(main())
"""


@pytest.mark.parametrize(("when", "sealed"), [("block", 0), ("places", 0), ("committed", 3)])
async def test_a_sealer_killed_at_any_step_leaves_a_whole_block_or_none(
    url: str, store: ResultStore, when: str, sealed: int
) -> None:
    await recorded(store, 3)
    command = [sys.executable, "-c", KILLED, url, when]
    died = await asyncio.to_thread(subprocess.run, command, check=False)
    assert died.returncode == -signal.SIGKILL
    report = await trail.verify(store)
    assert (report.good, report.records, report.unsealed) == (True, sealed, 3 - sealed), report.problems
    await recorded(store, 2)
    assert await Sealer(store, lease=0.0).seal_all() == 5 - sealed
    report = await trail.verify(store)
    assert (report.good, report.records, report.unsealed) == (True, 5, 0)


async def test_the_service_seals_within_seconds_and_what_is_left_when_it_stops(url: str, store: ResultStore) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(SealerService(open_results(url)).run(stop))
    await recorded(store, 2)
    for _ in range(200):
        if await store.last_block() is not None:
            break
        await asyncio.sleep(0.05)
    assert (await trail.verify(store)).unsealed == 0
    await recorded(store, 3)
    stop.set()
    await running
    report = await trail.verify(store)
    assert (report.good, report.records, report.unsealed) == (True, 5, 0)


async def test_erased_results_are_gone_and_the_chain_verifies(store: ResultStore) -> None:
    words = {
        "classifications": [Classification("mias-face", 0.9, "look")],
        "codes": [Code(text="secret-code", format="qr", box=(0.0, 0.0, 1.0, 1.0))],
    }
    made, sealer = await recorded(store, 10, **words), Sealer(store)
    await sealer.seal_all()
    before = await store.last_block()
    gone = [made[3].id, made[7].id]
    assert await store.erase([*gone, "unknown"], by="mia", reason="asked to") == set(gone)
    assert await store.erase(gone) == set()
    assert await store.get(gone[0]) is None
    assert len((await store.find(ResultQuery(code="secret-code")))[0]) == 8
    assert len((await store.find(ResultQuery(label="mias-face")))[0]) == 8
    kept = await store.get_job(gone[0])
    assert kept is not None
    assert (kept.status, kept.job.meta, kept.job.ref) == ("completed", {}, None)
    report = await trail.verify(store)
    assert (report.good, report.erased, report.unsealed) == (True, 2, 1)
    assert await store.last_block() == before
    await sealer.seal_all()
    assert (await trail.verify(store)).good
    actions = [record.body for record in await store.sealed(0, 1) if record.kind == "action"]
    assert json.loads(actions[0] or b"")["ids"] == sorted(gone)


async def test_what_is_erased_before_it_is_sealed_is_sealed_all_the_same(store: ResultStore) -> None:
    made = await recorded(store, 3)
    await store.erase([made[0].id])
    await Sealer(store).seal_all()
    report = await trail.verify(store)
    assert (report.good, report.records, report.erased) == (True, 4, 1)


async def test_an_id_that_comes_again_after_its_erasure_is_another_record(store: ResultStore) -> None:
    made = await recorded(store, 1)
    await store.erase([made[0].id])
    await store.save_many(made)
    await Sealer(store).seal_all()
    report = await trail.verify(store)
    assert (report.good, report.records, report.erased) == (True, 3, 1)
    assert [result.chain is not None for result in (await store.find(ResultQuery()))[0]] == [True]


async def test_a_checkpoint_is_kept_inside_and_shows_outside_what_was_cut_off(
    store: ResultStore, tmp_path: Path
) -> None:
    await recorded(store, 2)
    made = await trail.checkpoint(store, tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    await recorded(store, 2)
    later = await trail.checkpoint(store, tmp_path / "key")
    assert [json.loads(body) for body in await store.checkpoints()] == [made, later]
    assert (await trail.verify(store, [made, later], made["key"])).good
    assert not (await trail.verify(store, [later | {"size": 5}])).good


async def test_an_export_is_checked_by_the_file_alone(store: ResultStore, tmp_path: Path) -> None:
    made = await recorded(store, 5, classifications=[Classification("Schäden \U0001f4e6", 0.9, "look")])
    kept = await trail.checkpoint(store, tmp_path / "key")
    await store.erase([made[0].id])
    await recorded(store, 1)
    await trail.export(store, tmp_path / "export.jsonl")
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    alone = tmp_path / "verify.py"
    alone.write_text(Path(str(verifier.__file__)).read_text())
    command = [sys.executable, "-I", "-S", "verify.py", "export.jsonl", "kept.json"]
    told = await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.stdout.startswith("GOOD: 5 records in 1 blocks, 1 erased, 2 not sealed yet; 1 checkpoints"), told
    assert told.returncode == 0
    text = (tmp_path / "export.jsonl").read_text()
    (tmp_path / "export.jsonl").write_text(text.replace('\\"score\\":0.9', '\\"score\\":0.1', 1))
    told = await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "block 0, position 1: the body, salt or digest of record" in told.stdout

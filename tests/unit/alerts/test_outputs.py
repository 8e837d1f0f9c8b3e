"""Outputs: in order, at least once under one id, from where they stopped; a stuck one delays nobody and piles nothing up."""

import asyncio
import contextlib
import csv
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyeline.alerts import outputs
from eyeline.alerts.outputs import Output, check_output
from eyeline.core.errors import ChannelError, ConfigError, StoreError
from eyeline.core.ids import uuid7
from eyeline.core.settings import OutputSettings
from eyeline.core.telemetry import OUTPUT_LAG
from eyeline.core.types import Classification, Code, Result
from eyeline.stores.results.base import DeliveryQuery, DeliveryRow, ResultStore
from tests.migrated import migrated

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def a_result(number: int, label: str = "damaged", **fields: Any) -> Result:
    at = NOON + timedelta(seconds=number)
    known: dict[str, Any] = {
        "id": uuid7(),
        "status": "completed",
        "site": "north",
        "pipeline": "parcels",
        "camera": "belt-1",
        "ref": f"={number}",
        "captured_at": at,
        "received_at": at,
        "completed_at": at,
        "classifications": [Classification(label, 0.9, "damage")],
    }
    return Result(**{**known, **fields})


class Warehouse:
    """Takes what it is sent, unless it is told not to."""

    def __init__(self) -> None:
        self.got: list[DeliveryRow] = []
        self.error: ChannelError | None = None
        self.hates = ""

    async def send(self, delivery: DeliveryRow) -> str:
        if self.error is not None:
            raise self.error
        if self.hates and self.hates.encode() in delivery.payload:
            raise ChannelError("HTTP 422: no such parcel", refused=True)
        self.got.append(delivery)
        return "HTTP 204"

    async def close(self) -> None:
        pass

    @property
    def refs(self) -> list[str]:
        return [msgspec.json.decode(row.payload)["data"]["result"]["ref"] for row in self.got]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ResultStore]:
    results = await migrated(tmp_path)
    yield results
    await results.close()


@pytest.fixture
def warehouse(monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    there = Warehouse()
    monkeypatch.setattr(outputs, "open_channel", lambda _settings: there)
    return there


def settings(**fields: Any) -> OutputSettings:
    known = {"name": "wms", "url": "https://wms.example.com/in", "when": "label == 'damaged'"}
    return OutputSettings(**{**known, **fields})


async def an_output(store: ResultStore, **fields: Any) -> Output:
    output = Output(settings(**fields), store)
    await output.step()
    return output


async def record(store: ResultStore) -> list[DeliveryRow]:
    return (await store.find_deliveries(DeliveryQuery(kind="output")))[0][::-1]


async def test_what_fits_is_told_in_order_and_recorded_with_the_answer(
    store: ResultStore, warehouse: Warehouse
) -> None:
    await store.save_many([a_result(0)])  # before the output was there
    output = await an_output(store)
    await store.save_many([a_result(n, "fine" if n % 2 else "damaged") for n in range(1, 9)])
    assert await output.step() == 4
    assert warehouse.refs == ["=2", "=4", "=6", "=8"]
    rows = await record(store)
    assert [(row.state, row.answer, row.site, row.channel) for row in rows] == [
        ("delivered", "HTTP 204", "north", "wms")
    ] * 4
    again = Output(settings(), store)
    assert await again.step() == 0  # it goes on where the other one stopped
    await store.save_many([a_result(10)])
    await again.step()
    assert warehouse.refs[4:] == ["=10"]


async def test_while_nobody_answers_the_cursor_waits_and_nothing_piles_up(
    store: ResultStore, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "PAGE", 40)
    output = await an_output(store)
    warehouse.error = ChannelError("not reached")
    await store.save_many([a_result(n) for n in range(200)])
    for _ in range(5):
        with pytest.raises(ChannelError):
            await output.step()
    assert len(output._picks) <= outputs.PAGE + outputs.BATCH
    assert await record(store) == []
    warehouse.error = None
    while await output.step():
        pass
    assert warehouse.refs == [f"={n}" for n in range(200)]
    assert OUTPUT_LAG.labels("wms")._value.get() == 0


async def test_a_result_that_is_refused_is_set_aside_to_be_sent_by_hand_and_the_line_goes_on(
    store: ResultStore, warehouse: Warehouse
) -> None:
    output = await an_output(store)
    warehouse.hates = '"=1"'
    await store.save_many([a_result(n) for n in range(3)])
    for _ in range(outputs.REFUSALS + 1):
        with contextlib.suppress(ChannelError):
            await output.step()
    assert warehouse.refs == ["=0", "=2"]
    [failed] = [row for row in await record(store) if row.state == "failed"]
    kept = await store.get_delivery(failed.id)
    assert kept is not None
    assert kept.last_error == "HTTP 422: no such parcel"
    assert msgspec.json.decode(kept.payload)["data"]["result"]["ref"] == "=1"


class Dying:
    """A store that fails every third commit: before it, or after it and before it could say so."""

    def __init__(self, store: ResultStore, after: bool) -> None:
        self._store, self._after, self._count = store, after, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit_alerts(self, **kept: Any) -> None:
        self._count += 1
        dies = self._count % 3 == 0
        if not dies or self._after:
            await self._store.commit_alerts(**kept)
        if dies:
            raise StoreError("the power is gone")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_around_a_commit_nothing_is_missed_and_repeats_have_their_id(
    store: ResultStore, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr("eyeline.alerts.outputs.Told.most", 7)
    await an_output(store)
    await store.save_many([a_result(n) for n in range(60)])
    dying: Any = Dying(store, after)
    output = Output(settings(), dying)
    idle = 0
    while idle < 2:
        try:
            idle = 0 if await output.step() else idle + 1
        except StoreError:
            output = Output(settings(), dying)  # killed; another one starts
            idle = 0
    assert set(warehouse.refs) == {f"={n}" for n in range(60)}
    ids = {(row.id, ref) for row, ref in zip(warehouse.got, warehouse.refs, strict=True)}
    assert len(ids) == 60
    firsts = list(dict.fromkeys(warehouse.refs))
    assert firsts == [f"={n}" for n in range(60)]
    rows = await record(store)
    assert Counter(row.state for row in rows) == {"delivered": 60}


async def test_csv_files_appear_whole_and_end_by_count_and_by_time(store: ResultStore, tmp_path: Path) -> None:
    drop = tmp_path / "drop ö"
    output = await an_output(store, name="files", url=f"file://{drop}", rows=3, seconds=600)
    await store.save_many([a_result(n, codes=[Code("4006381333931", "EAN13", (0, 0, 1, 1))]) for n in range(4)])
    assert await output.step() == 3
    assert await output.step() == 0  # the fourth waits for company
    assert await output.step(flush=True) == 1
    files = sorted(drop.iterdir())
    assert [len(list(csv.reader(file.open()))) for file in files] == [4, 2]
    row = next(csv.DictReader(files[0].open()))
    assert (row["ref"], row["labels"], row["codes"]) == ("'=0", "damaged", "4006381333931")  # no formula
    assert [entry.answer for entry in await record(store)] == [files[0].name] * 3 + [files[1].name]
    assert not list(drop.glob(".*"))


async def test_a_file_written_again_after_a_crash_takes_its_own_place(store: ResultStore, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/drop"
    await an_output(store, name="files", url=url, rows=2)
    await store.save_many([a_result(n) for n in range(2)])
    dying: Any = Dying(store, False)
    dying._count = 1
    for _ in range(3):
        with contextlib.suppress(StoreError):
            await Output(settings(name="files", url=url, rows=2), dying).step(flush=True)
    [file] = (tmp_path / "drop").iterdir()
    assert len(file.read_text().splitlines()) == 3


async def test_a_folder_that_cannot_be_written_holds_the_cursor(store: ResultStore, tmp_path: Path) -> None:
    (tmp_path / "drop").write_text("")
    output = await an_output(store, name="files", url=f"file://{tmp_path}/drop")
    await store.save_many([a_result(0)])
    with pytest.raises(ChannelError, match="see to its room and its rights"):
        await output.step(flush=True)


async def test_a_stuck_output_delays_no_other_and_says_why(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, well = Warehouse(), Warehouse()
    stuck.error = ChannelError("not reached: no route")
    monkeypatch.setattr(outputs, "open_channel", lambda asked: stuck if asked.name == "stuck" else well)
    both = [Output(settings(name=name), store) for name in ("stuck", "well")]
    for output in both:
        await output.step()
    stop = asyncio.Event()
    running = [asyncio.create_task(output.run(stop)) for output in both]
    await store.save_many([a_result(n) for n in range(5)])
    async with asyncio.timeout(30):
        while len(well.got) < 5 or not await store.load_state("outputs/stuck/trouble"):
            await asyncio.sleep(0.02)
    told = msgspec.json.decode(await store.load_state("outputs/stuck/trouble") or b"{}")
    assert told["error"] == "not reached: no route"
    stuck.error = None
    async with asyncio.timeout(30):
        while len(stuck.got) < 5 or await store.load_state("outputs/stuck/trouble"):
            await asyncio.sleep(0.02)
    stop.set()
    await asyncio.gather(*running)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "smtp://mail"}, "no output; there are file"),
        ({"url": "file://host/x"}, "no folder; write file:///path"),
        ({"when": "lable == 'x'"}, "outputs 'wms': column 1"),
        ({"url": "http://127.0.0.1/x"}, "this URL may not be used"),
    ],
)
async def test_an_output_that_cannot_work_says_why(fields: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        await check_output(settings(**fields))

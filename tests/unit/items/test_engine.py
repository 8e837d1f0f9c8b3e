"""The item engine over a real store: exactly once, wherever it is stopped."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from eyeline.core.clock import utcnow
from eyeline.core.errors import StoreError
from eyeline.core.settings import PipelineSettings
from eyeline.core.types import Detection, Result
from eyeline.items.engine import ItemEngine
from eyeline.stores.results import open_results
from eyeline.stores.results.base import ItemQuery, ResultStore

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
STEPS = [{"name": "find", "model": "finder"}, {"name": "follow", "kind": "track", "on": "find"}]
PIPELINE = PipelineSettings.model_validate({"name": "belt", "steps": STEPS})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ResultStore]:
    opened = open_results(f"sqlite:///{tmp_path}/results.db")
    await opened.upgrade()
    yield opened
    await opened.close()


def passing(name: str, camera: str | None = "c", pipeline: str = "belt", start: float = 0.0) -> list[Result]:
    """A parcel that crosses the picture in two seconds."""
    results = []
    for number in range(10):
        at = NOON + timedelta(seconds=start + number / 5)
        box = (number * 40.0, 0.0, number * 40.0 + 100, 100.0)
        attributes = {"codes": [{"text": name, "format": "QRCode"}]} if number == 5 else {}
        results.append(
            Result(
                id=f"{name}-{camera}-{number}", status="completed", site="s", pipeline=pipeline, camera=camera,
                captured_at=at, received_at=at, completed_at=at,
                detections=[Detection("parcel", 0.9, box, "find", attributes)],
            )
        )  # fmt: skip
    return results


async def run_out(store: ResultStore, engine: ItemEngine) -> None:
    while await engine.step():
        pass
    await engine.keep()


async def test_items_with_their_sightings_are_kept_once_after_any_stop(store: ResultStore) -> None:
    await store.save_many(passing("A") + passing("B", camera="d"))
    for _ in range(3):  # each engine is a new process
        engine = ItemEngine([PIPELINE], store, reorder=0.0)
        await engine.load()
        await engine.step()  # what it does not keep is done again
    engine = ItemEngine([PIPELINE], store, reorder=0.0)
    await engine.load()
    await run_out(store, engine)
    found, _ = await store.find_items(ItemQuery())
    assert sorted((item.camera, item.frames, item.codes) for item in found) == [("c", 10, ("A",)), ("d", 10, ("B",))]
    assert len(await store.sightings([item.id for item in found])) == 20
    again = ItemEngine([PIPELINE], store, reorder=0.0)
    await again.load()
    assert await again.step() == 0


async def test_an_item_grows_over_a_restart(store: ResultStore) -> None:
    results = passing("A")
    for part in (results[:4], results[4:]):
        await store.save_many(part)
        engine = ItemEngine([PIPELINE], store, reorder=0.0)
        await engine.load()
        await run_out(store, engine)
    (item,), _ = await store.find_items(ItemQuery(code="A"))
    assert item.frames == 10
    assert (item.first_at, item.last_at) == (NOON, NOON + timedelta(seconds=1.8))


async def test_what_could_not_be_kept_is_kept_next_time(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.save_many(passing("A"))
    engine = ItemEngine([PIPELINE], store, reorder=0.0)
    await engine.load()
    commit = store.commit_items

    async def fails(**_: object) -> None:
        raise StoreError("away")

    monkeypatch.setattr(store, "commit_items", fails)
    with pytest.raises(StoreError):
        await engine.step()
    monkeypatch.setattr(store, "commit_items", commit)
    await run_out(store, engine)
    (item,), _ = await store.find_items(ItemQuery())
    assert len(await store.sightings([item.id])) == 10


async def test_frames_wait_for_those_that_they_overtook(store: ResultStore) -> None:
    await store.save_many(passing("A"))
    engine = ItemEngine([PIPELINE], store, reorder=60.0)
    await engine.load()
    await run_out(store, engine)
    assert (await store.find_items(ItemQuery()))[0] == []
    assert await store.load_state("items/state") is not None


async def test_pictures_without_a_camera_or_without_tracking_make_no_items(store: ResultStore) -> None:
    failed = Result(
        id="f", status="failed", site="s", pipeline="belt", camera="c", reason="x: y",
        captured_at=NOON, received_at=NOON, completed_at=utcnow(),
    )  # fmt: skip
    await store.save_many([*passing("A", camera=None), *passing("B", pipeline="other"), failed])
    engine = ItemEngine([PIPELINE], store, reorder=0.0)
    await engine.load()
    await run_out(store, engine)
    assert (await store.find_items(ItemQuery()))[0] == []

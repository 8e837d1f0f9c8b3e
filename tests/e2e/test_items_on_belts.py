"""Items on the bundled belts against what the clips are known to hold: each passage once, nothing twice, nothing of nothing."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eyeline.core.settings import Settings, load_settings
from eyeline.core.types import Result
from eyeline.inference.local import LocalPredictor
from eyeline.items.camera import CameraItems, Item, frame_of
from eyeline.ops.demo import BUNDLED
from eyeline.pipeline.boxes import iou
from eyeline.pipeline.drawing import encode_jpeg
from eyeline.worker.tryout import tryout

FPS = 10
START = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
STEPS: list[dict[str, Any]] = [
    {"name": "find", "model": "parcel-finder"},
    {"name": "damage", "model": "parcel-damage", "on": "find"},
    {"name": "codes", "kind": "barcodes", "on": "find", "formats": ["QRCode", "Code128"]},
    {"name": "follow", "kind": "track", "on": "find"},
]


@dataclass
class Belt:
    """The results of a clip's frames, and what each frame holds."""

    results: list[Result]
    truth: list[list[dict[str, Any]]]


async def watched(clip: str, frames: range, folder: Path) -> Belt:
    tree = {"data_dir": str(folder), "pipelines": [{"name": "parcels", "steps": STEPS}]}
    settings = load_settings(environ={}, overrides=tree)
    lines = (BUNDLED / "clips" / f"{clip}.jsonl").read_text().splitlines()
    predictor = LocalPredictor(settings.inference)
    try:
        results = await _results(clip, frames, settings, predictor)
    finally:
        await predictor.close()
    return Belt(results, [json.loads(lines[number])["parcels"] for number in frames])


async def _results(clip: str, frames: range, settings: Settings, predictor: LocalPredictor) -> list[Result]:
    video = cv2.VideoCapture(str(BUNDLED / "clips" / f"{clip}.mp4"))
    results = []
    async with tryout(settings, "parcels", predictor) as trial:
        for number in range(frames.stop):
            well, frame = video.read()
            assert well
            if number not in frames:
                continue
            found = (await trial.run(encode_jpeg(np.ascontiguousarray(frame[:, :, ::-1]), 90))).findings
            at = START + timedelta(seconds=number / FPS)
            results.append(
                Result(
                    id=f"{number:04d}", status="completed", site="s", camera=clip, pipeline="parcels", captured_at=at,
                    received_at=at, completed_at=at, detections=found.detections, codes=found.codes,
                )
            )  # fmt: skip
    video.release()
    return results


def followed(belt: Belt) -> tuple[list[Item], CameraItems]:
    step = load_settings(environ={}, overrides={"pipelines": [{"name": "p", "steps": STEPS}]}).pipelines[0].track
    assert step is not None
    camera = CameraItems("s", "belt", "parcels")
    items: dict[str, Item] = {}
    for result in belt.results:
        camera.take(frame_of(result, result.captured_at, "find"))
        items |= {item.id: item for item in camera.release(result.captured_at.timestamp() - 2.0, step)}
    items |= {item.id: item for item in camera.release(START.timestamp() + 1e6, step)}
    return [item for item in items.values() if item.track.hits >= step.min_frames], camera


def owner(belt: Belt, item: Item) -> str | None:
    """Which parcel an item's boxes lie on, by most of its frames."""
    votes: Counter[str | None] = Counter()
    numbers = {result.id: index for index, result in enumerate(belt.results)}
    for result_id, index in item.pending:
        parcels = belt.truth[numbers[result_id]]
        box = belt.results[numbers[result_id]].detections[index].box
        overlaps = iou(np.array([box], np.float32), np.array([p["box"] for p in parcels], np.float32).reshape(-1, 4))[0]
        votes[parcels[int(overlaps.argmax())]["id"] if len(parcels) and overlaps.max() > 0.3 else None] += 1
    return votes.most_common(1)[0][0]


def passages(truth: Sequence[Sequence[dict[str, Any]]], needed: int) -> Counter[str]:
    """How often each parcel passes, by runs of frames that show the whole of it; shorter ones need not be items."""
    runs: Counter[str] = Counter()
    length: Counter[str] = Counter()
    for parcels in truth:
        whole = {parcel["id"] for parcel in parcels if parcel["whole"]}
        for name in whole:
            length[name] += 1
            runs[name] += length[name] == needed
        for name in set(length) - whole:
            length[name] = 0
    return runs


async def test_each_parcel_of_some_seconds_is_one_item_with_its_own_code(tmp_path: Path) -> None:
    belt = await watched("inbound", range(0, 150, 5), tmp_path)
    items, _ = followed(belt)
    found = Counter(owner(belt, item) for item in items)
    sure, possible = passages(belt.truth, 4), passages(belt.truth, 1)
    assert sure.total() >= 5
    assert None not in found
    assert not sure - Counter({str(name): count for name, count in found.items()})
    assert all(count <= possible[str(name)] or count == 1 for name, count in found.items())
    read = [item for item in items if item.track.codes]
    assert len(read) >= 4
    assert [item.track.codes for item in read] == [[owner(belt, item)] for item in read]


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("clip", ["inbound", "outbound"])
async def test_all_passages_of_a_belt_are_items_and_all_damage_is_on_them(clip: str, tmp_path: Path) -> None:
    belt = await watched(clip, range(0, 500, 2), tmp_path)
    items, camera = followed(belt)
    found = Counter(str(owner(belt, item)) for item in items)
    assert found == passages(belt.truth, 4)
    damaged = {parcel["id"] for parcels in belt.truth for parcel in parcels if parcel["damaged"] and parcel["whole"]}
    said = [owner(belt, item) for item in items if "damaged" in camera.row(item).labels]
    assert damaged <= set(said)
    assert len(said) <= len(damaged) + 1

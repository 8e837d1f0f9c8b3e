"""Steps that are no models, items, counts and one thing's story, in a running system."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zxingcpp

from tests.fake_models import write_box_bundle, write_brightness_bundle
from tests.system import RunningSystem, running_system, settings_for, until

NOON = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
PIPELINES: list[dict[str, Any]] = [
    {
        "name": "belt",
        "steps": [
            {"name": "find", "model": "box"},
            {"name": "light", "model": "brightness", "on": "find"},
            {"name": "read", "kind": "barcodes", "on": "find", "formats": ["QRCode"]},
            {"name": "follow", "kind": "track", "on": "find", "sure": 0.3},
        ],
    },
    {
        "name": "gated",
        "steps": [
            {"name": "gate", "kind": "quality", "dark": 0.2, "blurred": 5.0, "reject": True},
            {"name": "light", "model": "brightness"},
            {"name": "again", "model": "second", "unsure_of": "light", "unsure": [0.4, 0.6]},
        ],
    },
    {"name": "codes", "steps": [{"name": "read", "kind": "barcodes"}]},
]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    folder = tmp_path_factory.mktemp("pipelines")
    models, frames = folder / "models", folder / "frames"
    frames.mkdir()
    write_box_bundle(models, name="box")
    write_brightness_bundle(models, name="brightness")
    write_brightness_bundle(models, name="second")
    more = {
        "pipelines": PIPELINES,
        "sites": [{"name": "north"}],
        "cameras": [{"name": "belt-1", "site": "north", "url": str(frames), "pipeline": "belt"}],
        "items": {"reorder": 0.5, "damage_labels": ["bright"]},
    }
    with running_system(folder, settings_for(folder / "data", models, more)) as running:
        yield running


def picture(level: int, text: str | None = None, noise: int = 0) -> bytes:
    """640 × 480 of one grey, with a code in the middle, and a corner that makes the bytes its own."""
    pixels = np.full((480, 640, 3), level, np.uint8)
    if text is not None:
        drawn: Any = zxingcpp.create_barcode(text, zxingcpp.BarcodeFormat.QRCode)
        symbol = np.array(zxingcpp.write_barcode_to_image(drawn, scale=4))
        top, left = 240 - symbol.shape[0] // 2, 320 - symbol.shape[1] // 2
        pixels[top : top + symbol.shape[0], left : left + symbol.shape[1]] = symbol[:, :, None]
    pixels[:8, :8] = noise
    done, data = cv2.imencode(".png", pixels)
    assert done
    return data.tobytes()


def ask(system: RunningSystem, data: bytes, **params: Any) -> dict[str, Any]:
    answer = system.client().post("/v1/images", params={"wait": 20, **params}, content=data)
    assert answer.status_code in {200, 202}, answer.text
    body: dict[str, Any] = answer.json()
    result: dict[str, Any] = body.get("result", body)
    return result


def test_codes_are_in_the_result_with_their_box_and_can_be_searched(system: RunningSystem) -> None:
    result = ask(system, picture(255, "https://example.com/p/7?x=1"), pipeline="codes")
    (code,) = result["codes"]
    assert (code["text"], code["format"]) == ("https://example.com/p/7?x=1", "QRCode")
    assert 200 < code["box"][0] < 320 < code["box"][2] < 440
    assert result["models"] == []
    page = system.client().get("/v1/results", params={"code": code["text"]}).json()["results"]
    assert [each["id"] for each in page] == [result["id"]]


def test_a_gate_fails_a_dark_picture_with_its_numbers_and_passes_a_good_one(system: RunningSystem) -> None:
    dark = ask(system, picture(10), pipeline="gated")
    assert dark["status"] == "failed"
    assert dark["reason"].startswith("quality_dark: the picture is dark")
    good = ask(system, picture(200, "X"), pipeline="gated")
    assert good["status"] == "completed"
    assert good["steps"]["gate"]["faults"] == []
    assert good["steps"]["gate"]["brightness"] > 0.5


def test_the_second_model_is_asked_only_where_the_first_is_unsure(system: RunningSystem) -> None:
    sure, unsure = ask(system, picture(230, "S"), pipeline="gated"), ask(system, picture(130, "U"), pipeline="gated")
    assert sure["steps"]["again"] == {"escalated": 0, "of": 1}
    assert {each["step"] for each in sure["classifications"]} == {"light"}
    assert unsure["steps"]["again"] == {"escalated": 1, "of": 1}
    assert {each["step"] for each in unsure["classifications"]} == {"again"}
    assert [model["name"] for model in unsure["models"]] == ["brightness", "second"]
    metrics = system.client().get("/metrics").text
    assert 'eyeline_cascade_total{outcome="escalated",pipeline="gated",step="again"}' in metrics


def test_one_parcel_in_many_frames_is_one_item_with_its_whole_story(system: RunningSystem) -> None:
    first = ask(system, picture(90, "PARCEL-1", 1), camera="belt-1", captured_at=stamp(0), ref="order/9")
    assert first["detections"][0]["attributes"]["codes"] == [{"text": "PARCEL-1", "format": "QRCode"}]
    for number in range(1, 6):
        text = "PARCEL-1" if number != 3 else None
        ask(system, picture(90 if number < 4 else 240, text, number + 1), camera="belt-1", captured_at=stamp(number))
        if number == 2:
            system.kill("items")  # started again, it goes on with what it had kept
    items = until(lambda: seen_items(system, 6), 20, "one item of six frames")
    assert (items[0]["codes"], items[0]["label"], items[0]["site"]) == (["PARCEL-1"], "thing", "north")
    story = system.client().get("/v1/items/PARCEL-1").json()
    assert len(story["entries"]) == 6
    assert [entry["via"] for entry in story["entries"]][2:4] == [["code", "item"], ["item"]]
    times = [datetime.fromisoformat(entry["captured_at"]) for entry in story["entries"]]
    assert times == sorted(times)
    assert story["first_damage"]["id"] == story["entries"][4]["id"]  # the first bright one
    assert system.client().get(story["first_damage"]["image"]).status_code == 200
    by_ref = system.client().get("/v1/items/order%2F9").json()
    assert [entry["id"] for entry in by_ref["entries"]] == [first["id"]]
    assert system.client().get("/v1/items/nothing-of-that-name").status_code == 404


def test_counts_are_of_items_where_there_is_tracking_and_of_results_elsewhere(system: RunningSystem) -> None:
    until(lambda: seen_items(system, 6), 20, "one item of six frames")
    params = {"by": "label,camera,site", "bucket": "1h", "since": (NOON - timedelta(hours=2)).isoformat()}
    counts = system.client().get("/v1/counts", params=params).json()["counts"]
    tracked = [row for row in counts if row["of"] == "items" and row["label"] == "thing"]
    assert [(row["camera"], row["site"], row["count"]) for row in tracked] == [("belt-1", "north", 1)]
    assert not [row for row in counts if row["of"] == "results" and row["camera"] == "belt-1"]
    wrong = system.client().get("/v1/counts", params={"by": "colour"})
    assert (wrong.status_code, "label, camera, site" in wrong.text) == (400, True)


def test_pipelines_show_their_steps(system: RunningSystem) -> None:
    told = system.client().get("/v1/pipelines").json()["pipelines"]
    steps = {pipeline["name"]: pipeline["steps"] for pipeline in told}
    assert [step["kind"] for step in steps["belt"]] == ["model", "model", "barcodes", "track"]
    assert steps["belt"][2] == {"name": "read", "kind": "barcodes", "on": "find", "formats": ["QRCode"]}


def test_a_pipeline_can_be_tried_on_a_picture_without_a_service(system: RunningSystem, tmp_path: Path) -> None:
    shown, config = tmp_path / "shown", system.data_dir.parent / "eyeline.toml"
    (tmp_path / "in.png").write_bytes(picture(150, "T-1"))
    command = [sys.executable, "-m", "eyeline", "pipelines", "try", "belt", str(tmp_path / "in.png")]
    done = subprocess.run(
        [*command, "--out", str(shown), "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    words = [line.split()[:3] for line in done.stdout.splitlines()]
    assert ["read", "QRCode", "'T-1'"] in words
    assert ["light", "bright"] in [row[:2] for row in words]
    pictures = {path.name: cv2.imread(str(path)) for path in shown.iterdir()}
    assert sorted(pictures) == ["1-find.png", "2-light.png", "3-read.png"]
    plain = cv2.imread(str(tmp_path / "in.png"))
    for drawn in pictures.values():
        assert drawn is not None
        assert plain is not None
        assert drawn.shape == plain.shape
        assert (drawn != plain).any()
    wrong = subprocess.run(
        [*command[:-2], "bolt", command[-1]], capture_output=True, text=True, timeout=60, check=False
    )
    assert (wrong.returncode, "'bolt'" in wrong.stderr) == (2, True)


def stamp(number: int) -> str:
    return (NOON + timedelta(seconds=number / 5)).isoformat()


def seen_items(system: RunningSystem, frames: int) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = system.client().get("/v1/items", params={"camera": "belt-1"}).json()["items"]
    return items if [item["frames"] for item in items] == [frames] else []

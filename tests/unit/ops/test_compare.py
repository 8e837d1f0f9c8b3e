"""Two pipelines compared: who is right, how sure that is, what it costs, and from when the dearer one pays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eyeline.core.errors import ConfigError
from eyeline.core.types import Classification, Detection
from eyeline.ops.compare import Run, compare, sentences, table, waited, write
from eyeline.ops.evaluate import Sample
from eyeline.ops.scores import Truth

COUNT = 40
SAMPLES = [Sample(Path(f"{at}.jpg"), label="good" if at % 2 else "bad") for at in range(COUNT)]


def run(name: str, said: list[str], *, cpu: float = 0.01, **changes: Any) -> Run:
    fields: dict[str, Any] = {
        "name": name,
        "detections": [[]] * len(said),
        "classifications": [[Classification(label, 0.9, "look")] for label in said],
        "seconds": [0.02] * len(said),
        "cpu": [cpu] * len(said),
        "escalated": [False] * len(said),
        "refused": [""] * len(said),
        "memory": 100_000_000,
        "models": ["m 1.0.0"],
    }
    return Run(**(fields | changes))


RIGHT = [sample.label for sample in SAMPLES]


def test_accuracy_cost_and_the_price_from_which_the_dearer_one_pays() -> None:
    weak = ["bad"] * 10 + RIGHT[10:]  # five wrong of forty
    figures = compare(SAMPLES, (run("small", weak), run("large", RIGHT, cpu=0.1)), price=0.36)
    small, large = figures["pipelines"]
    assert (small["score"], large["score"]) == (0.875, 1.0)
    assert small["cost_per_million"] == pytest.approx(0.01 * 1e6 / 3600 * 0.36)
    assert figures["break_even"]["price_of_an_error"] == pytest.approx((10.0 - 1.0) / 1e6 / 0.125)
    assert figures["difference"]["low"] > 0
    assert figures["difference"]["low"] < 0.125 < figures["difference"]["high"]
    assert "no difference is shown" not in sentences(figures)[0]


def test_what_is_dearer_and_no_better_is_said_to_be_of_no_use() -> None:
    figures = compare(SAMPLES, (run("small", RIGHT), run("large", RIGHT, cpu=0.1)))
    assert figures["difference"] == {"score": 0.0, "low": 0.0, "high": 0.0, "resamples": 2000}
    assert "no difference is shown" in sentences(figures)[0]
    assert "nothing is to be gained by large" in sentences(figures)[1]


def test_both_are_resampled_together() -> None:
    """Each is right on another half: resampled apart, their difference would spread less than it does in pairs."""
    first = [label if at < 20 else "?" for at, label in enumerate(RIGHT)]
    second = [label if at >= 20 else "?" for at, label in enumerate(RIGHT)]
    same = compare(SAMPLES, (run("a", first), run("b", first)))["difference"]
    other = compare(SAMPLES, (run("a", first), run("b", second)))["difference"]
    assert same["high"] - same["low"] == 0
    assert other["high"] - other["low"] > 0.5


def test_a_cascade_is_told_up_to_which_share_it_is_cheaper() -> None:
    escalated = [at < 10 for at in range(COUNT)]
    cpu = [0.11 if each else 0.01 for each in escalated]
    figures = compare(SAMPLES, (run("cascade", RIGHT, escalated=escalated, cpu=0.0), run("large", RIGHT, cpu=0.1)))
    assert "cascade" not in figures["break_even"]  # it took nothing: there is nothing to tell
    cascade = run("cascade", RIGHT, escalated=escalated)
    figures = compare(SAMPLES, (Run(**(vars(cascade) | {"cpu": cpu})), run("large", RIGHT, cpu=0.1)))
    assert figures["pipelines"][0]["escalated"] == 0.25
    assert figures["break_even"]["cascade"]["cheaper_up_to"] == pytest.approx((0.1 - 0.01) / (0.11 - 0.01))


def test_boxes_are_judged_by_overlap_and_called_by_their_crops() -> None:
    samples = [Sample(Path("a.jpg"), boxes=(Truth("damaged", (0, 0, 10, 10)),)), Sample(Path("b.jpg"))]
    crop = {"classifications": [{"label": "damaged", "score": 0.8, "step": "damage"}]}
    found = [[Detection("carton", 0.9, (0, 0, 10, 11), "find", crop)], []]
    wrong = [[Detection("carton", 0.9, (20, 20, 30, 30), "find", crop)], []]
    figures = compare(samples, (run("a", ["", ""], detections=found), run("b", ["", ""], detections=wrong)), iou=0.5)
    assert figures["measure"] == "F-score"
    assert [each["score"] for each in figures["pipelines"]] == [1.0, 0.0]


def test_the_picture_is_called_what_its_largest_box_is() -> None:
    crop = {"classifications": [{"label": "bad", "score": 0.8, "step": "damage"}]}
    boxes = [Detection("good", 0.99, (0, 0, 5, 5), "find"), Detection("carton", 0.5, (0, 0, 50, 50), "find", crop)]
    figures = compare(
        SAMPLES[:2],
        (run("a", ["", ""], classifications=[[], []], detections=[boxes, []]), run("b", ["good", "good"])),
    )
    assert [each["confusion"]["bad"] for each in figures["pipelines"]] == [{"bad": 1}, {"good": 1}]


def test_labels_that_a_pipeline_never_says_are_named() -> None:
    with pytest.raises(ConfigError, match="'odd' never says one of the labels bad, good; it says cat"):
        compare(SAMPLES, (run("odd", ["cat"] * COUNT), run("b", RIGHT)))


def test_pictures_that_one_cannot_read_count_for_neither() -> None:
    refused = ["cut off"] + [""] * (COUNT - 1)
    figures = compare(SAMPLES, (run("a", RIGHT, refused=refused), run("b", RIGHT)))
    assert (figures["pictures"], figures["refused"]) == (COUNT - 1, {"0.jpg": "cut off"})


def test_a_busy_line_waits_and_the_arrivals_are_the_same_for_both() -> None:
    seconds = np.full(500, 0.1)
    idle, busy = waited(seconds, 0.5), waited(seconds, 9.0)
    assert np.quantile(idle, 0.5) == pytest.approx(0.1)
    assert np.quantile(busy, 0.95) > 0.3
    assert (waited(seconds, 9.0) == busy).all()


def test_it_is_written_down_and_drawn(tmp_path: Path) -> None:
    figures = compare(SAMPLES, (run("small", RIGHT), run("large", RIGHT, cpu=0.1)), rate=5.0)
    file, chart = write(figures, tmp_path / "out")
    assert json.loads(file.read_text())["pipelines"][1]["pipeline"] == "large"
    assert Image.open(chart).size[0] == 900
    assert [row[0] for row in table(figures)][:3] == ["accuracy", "p50", "p95"]

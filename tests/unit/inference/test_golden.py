"""The golden check compares decisions: what a user would notice, and nothing else."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from eyeline.inference import golden
from eyeline.inference.base import ModelRuntime, Tensor
from eyeline.inference.bundles import (
    Answer,
    ExpectedClassification,
    ExpectedDetection,
    Tolerance,
    load_bundle,
)
from eyeline.inference.runtimes import Choice, open_runtimes
from tests.fake_models import write_box_bundle, write_brightness_bundle

TOLERANCE = Tolerance(iou=0.9, score=0.03)
BOX = (10.0, 10.0, 110.0, 60.0)


def _boxes(*found: tuple[str, float, tuple[float, float, float, float]]) -> Answer:
    return Answer("a.png", detections=tuple(ExpectedDetection(*each) for each in found))


def _labels(*found: tuple[str, float]) -> Answer:
    return Answer("a.png", classifications=tuple(ExpectedClassification(*each) for each in found))


def test_the_same_answer_has_no_differences() -> None:
    answer = _boxes(("open", 0.9, BOX), ("short", 0.5, BOX))
    assert golden.compare(answer, answer, TOLERANCE) == []


def test_a_box_that_moved_a_little_is_the_same_and_one_that_moved_far_is_not() -> None:
    expected = _boxes(("open", 0.9, BOX))
    assert golden.compare(expected, _boxes(("open", 0.91, (11.0, 10.0, 111.0, 60.0))), TOLERANCE) == []
    said = golden.compare(expected, _boxes(("open", 0.9, (40.0, 10.0, 140.0, 60.0))), TOLERANCE)
    assert said == [
        "a.png: no 'open' 0.900 at [10, 10, 110, 60], which was recorded",
        "a.png: 'open' 0.900 at [40, 10, 140, 60], which was not recorded",
    ]


def test_a_box_near_the_threshold_may_come_or_go() -> None:
    near, none = _boxes(("open", 0.31, BOX)), _boxes()
    assert golden.compare(near, none, TOLERANCE, threshold=0.3) == []
    assert golden.compare(none, near, TOLERANCE, threshold=0.3) == []
    assert golden.compare(_boxes(("open", 0.4, BOX)), none, TOLERANCE, threshold=0.3) != []


def test_another_label_on_the_same_box_is_a_difference() -> None:
    said = golden.compare(_boxes(("open", 0.9, BOX)), _boxes(("short", 0.9, BOX)), TOLERANCE)
    assert len(said) == 2


def test_a_flipped_class_is_told_with_both_scores() -> None:
    said = golden.compare(_labels(("good", 0.8)), _labels(("bad", 0.7)), TOLERANCE)
    assert said == ["a.png: 'bad' 0.700, recorded 'good' 0.800"]


def test_labels_that_changed_places_by_a_hair_did_not_flip() -> None:
    expected = _labels(("good", 0.501), ("bad", 0.499))
    assert golden.compare(expected, _labels(("bad", 0.502), ("good", 0.498)), TOLERANCE) == []


def test_a_score_beyond_tolerance_is_a_difference() -> None:
    assert golden.compare(_labels(("good", 0.8)), _labels(("good", 0.7)), TOLERANCE) == [
        "a.png: 'good' has 0.700, recorded 0.800"
    ]


def test_the_golden_set_passes_on_the_runtime_that_serves(tmp_path: Path) -> None:
    for path in (write_brightness_bundle(tmp_path), write_box_bundle(tmp_path)):
        bundle = load_bundle(path)
        found = golden.measure(bundle, open_runtimes(bundle, Choice())[0].infer)
        assert (found.passed, found.pictures, found.tolerance) == (True, 4, 0.01)
        assert found.score_difference < 0.001


def test_how_far_scores_are_off_is_told_of_boxes_and_labels(tmp_path: Path) -> None:
    for path in (write_brightness_bundle(tmp_path), write_box_bundle(tmp_path)):
        bundle = load_bundle(path)
        runtime = open_runtimes(bundle, Choice())[0]

        def darker(inputs: Mapping[str, Tensor], runtime: ModelRuntime = runtime) -> dict[str, Tensor]:
            return runtime.infer({name: np.maximum(value, 26) - 26 for name, value in inputs.items()})

        found = golden.measure(bundle, darker)
        assert not found.passed
        assert found.score_difference == pytest.approx(26 / 255, abs=0.001)


def test_wrong_preprocessing_fails_the_golden_check(tmp_path: Path) -> None:
    bundle = load_bundle(write_brightness_bundle(tmp_path))
    runtime = open_runtimes(bundle, Choice())[0]

    def halved(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return runtime.infer({name: value // 2 for name, value in inputs.items()})

    said = golden.check(bundle, halved)
    assert any("'dark'" in line and "bright.png" in line for line in said)


def test_a_model_that_answers_nan_fails_in_words(tmp_path: Path) -> None:
    bundle = load_bundle(write_brightness_bundle(tmp_path))
    said = golden.check(bundle, lambda _: {"scores": np.full((1, 2), np.nan, np.float32)})
    assert len(said) == 4
    assert "NaN" in said[0]


def test_another_shape_in_the_same_box_is_another_answer() -> None:
    square = ((0.0, 0.0, 10.0, 0.0, 10.0, 10.0, 0.0, 10.0),)
    triangle = ((0.0, 0.0, 10.0, 0.0, 0.0, 10.0),)

    def answer(mask: tuple[tuple[float, ...], ...]) -> Answer:
        return Answer("a.png", detections=(ExpectedDetection("thing", 0.9, (0, 0, 10, 10), mask),))

    assert golden.compare(answer(square), answer(square), Tolerance()) == []
    assert "the mask of" in golden.compare(answer(square), answer(triangle), Tolerance())[0]
    assert "the mask of" in golden.compare(answer(square), answer(()), Tolerance())[0]

"""The quality gate's numbers, on pictures whose quality is known."""

import cv2
import numpy as np
import pytest

from eyeline.core.errors import BadImage
from eyeline.core.types import Pixels
from eyeline.pipeline.quality import QualityStep, measure
from eyeline.worker.steps import gate

LIMITS = QualityStep("gate", dark=0.15, over_exposed=0.4, blurred=50.0)


def checks(low: int, high: int) -> Pixels:
    """A board of 16 pixel squares."""
    grey = np.where((np.indices((480, 640)) // 16).sum(axis=0) % 2 == 0, low, high)
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def test_each_fault_is_told_by_its_own_number() -> None:
    good = checks(40, 200)
    blurred = np.asarray(cv2.GaussianBlur(good, (0, 0), 12), np.uint8)
    assert LIMITS.faults(measure(good)) == []
    assert LIMITS.faults(measure(checks(0, 30))) == ["dark"]
    assert LIMITS.faults(measure(checks(120, 255))) == ["over_exposed"]
    assert LIMITS.faults(measure(blurred)) == ["blurred"]


def test_numbers_are_what_they_say() -> None:
    half = np.zeros((10, 10, 3), np.uint8)
    half[:5] = 255
    told = measure(half)
    assert (told.brightness, told.blown) == (0.5, 0.5)
    assert told.sharpness > 100
    assert measure(np.full((9, 9, 3), 70, np.uint8)).sharpness == 0.0


def test_a_limit_that_is_not_set_is_none() -> None:
    assert QualityStep("gate").faults(measure(np.zeros((8, 8, 3), np.uint8))) == []


def test_a_gate_tells_or_rejects_with_the_reason_and_the_numbers() -> None:
    black = measure(np.zeros((8, 8, 3), np.uint8))
    assert gate(LIMITS, black)["faults"] == ["dark", "blurred"]
    with pytest.raises(BadImage, match=r"dark and blurred \(brightness 0") as refused:
        gate(QualityStep("gate", dark=0.15, blurred=50.0, reject=True), black)
    assert refused.value.code == "quality_dark"
    assert gate(QualityStep("gate", dark=0.15, reject=True), measure(checks(40, 200)))["faults"] == []

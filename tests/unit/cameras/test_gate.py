"""The motion gate: noise is no change, ten pixels are one."""

import numpy as np
import pytest

from eyeline.cameras.gate import Gate, change
from eyeline.core.types import Pixels
from eyeline.pipeline.decode import decode
from eyeline.pipeline.drawing import encode_jpeg

LEVELS = 12.0


def board(seed: int = 0) -> Pixels:
    """A textured scene with sensor noise of its own for each seed."""
    scene = np.random.default_rng(99).integers(70, 170, (45, 80, 3)).astype(np.float32)
    scene = np.kron(scene, np.ones((8, 8, 1), np.float32))
    noise = np.random.default_rng(seed).normal(0, 1.5, scene.shape)
    return np.clip(scene + noise, 0, 255).astype(np.uint8)


def as_sent(pixels: Pixels) -> Pixels:
    return decode(encode_jpeg(pixels, 90)).pixels


@pytest.mark.parametrize("seed", range(10))
def test_noise_and_jpeg_are_no_change(seed: int) -> None:
    assert change(as_sent(board(0)), as_sent(board(seed + 1))) < LEVELS


@pytest.mark.parametrize("shape", [(2, 5), (5, 2), (1, 10), (10, 1), (3, 3)])
@pytest.mark.parametrize("seed", range(12))
def test_a_defect_of_ten_pixels_anywhere_is_a_change(seed: int, shape: tuple[int, int]) -> None:
    """Through JPEG, across the edges of its blocks and of ours; in the mean of the frame it is nothing."""
    rng = np.random.default_rng(seed)
    spoiled = board(2)
    y, x = int(rng.integers(0, 360 - shape[0])), int(rng.integers(0, 640 - shape[1]))
    spot = spoiled[y : y + shape[0], x : x + shape[1]].astype(int)
    spoiled[y : y + shape[0], x : x + shape[1]] = np.clip(np.where(spot.mean() > 120, spot - 60, spot + 60), 0, 255)
    before, now = as_sent(board(1)), as_sent(spoiled)
    assert change(before, now) >= LEVELS
    assert abs(float(now.mean()) - float(before.mean())) < 0.1


def test_a_spot_of_another_colour_and_the_same_light_is_a_change() -> None:
    before = np.full((100, 100, 3), 128, np.uint8)
    now = before.copy()
    now[50:53, 50:53] = (158, 128, 49)  # as bright as grey 128, and as green
    assert change(before, now) >= LEVELS


def test_slow_change_adds_up() -> None:
    gate = Gate(LEVELS, 1000.0)
    passed = [level for level in range(100, 160) if gate.passes(np.full((40, 40, 3), level, np.uint8), 0.0)]
    assert passed == list(range(100, 160, 12))


def test_after_its_time_a_frame_passes_though_nothing_changed() -> None:
    gate = Gate(LEVELS, 60.0)
    same = board()
    assert [gate.passes(same, now) for now in (0.0, 30.0, 59.0, 61.0, 62.0)] == [True, False, False, True, False]


def test_another_size_and_what_cannot_be_read_pass() -> None:
    gate = Gate(LEVELS, 60.0)
    assert gate.passes(board(), 0.0)
    assert gate.passes(board()[:100], 1.0)
    assert gate.passes(None, 2.0)
    assert gate.passes(board(), 3.0)

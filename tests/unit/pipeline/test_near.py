"""Near-duplicates: what is a repeated frame, and that ten pixels never are one."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.core.types import Pixels
from eyeline.pipeline.decode import decode
from eyeline.pipeline.near import distance, limit, signature

CONTRAST = 48.0
CLIPS = Path(__file__).resolve().parents[3] / "src/eyeline/bundled/clips"


def jpeg(pixels: Pixels, quality: int = 90) -> Pixels:
    """What comes back after JPEG."""
    return decode(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality)).pixels


def noisy(pixels: Pixels, sigma: float, seed: int) -> Pixels:
    noise = np.random.default_rng(seed).normal(0, sigma, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def away(one: Pixels, other: Pixels) -> float:
    return distance(signature(one), signature(other))


def is_hit(one: Pixels, other: Pixels, contrast: float = CONTRAST) -> bool:
    return away(one, other) < limit(contrast)


def ten_pixels(seed: int) -> list[tuple[int, int]]:
    """Any ten that touch each other by their edges: (row, column) from 0. Half of them are lines, more or less bent."""
    random = np.random.default_rng(seed)
    shape, straight = [(0, 0)], random.choice([0.0, 0.5, 0.9, 1.0])
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    ahead = steps[random.integers(4)]
    while len(shape) < 10:
        goes_on = random.random() < straight
        row, column = shape[-1] if goes_on else shape[random.integers(len(shape))]
        step = ahead if goes_on else steps[random.integers(4)]
        shape = list(dict.fromkeys([*shape, (row + step[0], column + step[1])]))
    top, left = min(row for row, _ in shape), min(column for _, column in shape)
    return [(row - top, column - left) for row, column in shape]


def pasted(pixels: Pixels, shape: list[tuple[int, int]], at: tuple[int, int], change: np.ndarray) -> Pixels:
    """A copy in which those pixels differ by the change, each colour to the side where there is room for all of it."""
    made = pixels.astype(np.int16)
    places = tuple(np.array([(row + at[0], column + at[1]) for row, column in shape]).T)
    found = made[places]
    up = found.max(0) + change <= 255
    down = found.min(0) - change >= 0
    made[places] += np.where(up, change, np.where(down, -change, 0)).astype(np.int16)
    assert (up | down)[change > 0].all()
    return made.astype(np.uint8)


def frame(seed: int, height: int = 96, width: int = 128) -> Pixels:
    """Something with edges and flat places, in the middle of the scale."""
    rough = np.random.default_rng(seed).integers(60, 196, (7, 9, 3)).astype(np.uint8)
    return cv2.resize(rough, (width, height), interpolation=cv2.INTER_NEAREST)  # type: ignore[return-value]


places = st.tuples(st.floats(0, 1), st.floats(0, 1))


@settings(max_examples=150)
@given(
    shape=st.integers(0, 1 << 30).map(ten_pixels),
    where=places,
    seed=st.integers(0, 50),
    colours=st.sampled_from([1, 2, 4, 7]),
    odd=st.booleans(),
)
def test_ten_pixels_in_a_noisy_repetition_are_never_a_hit(
    shape: list[tuple[int, int]], where: tuple[float, float], seed: int, colours: int, odd: bool
) -> None:
    """Whatever the shape, the place, the colour; the repetition is as noisy as one that is still a hit may be."""
    before = frame(seed, 95 if odd else 96, 127 if odd else 128)
    step = np.random.default_rng(seed).choice([-6, 6], before.shape)
    smooth = cv2.blur(step.astype(np.float32), (3, 3))
    again = np.clip(before + smooth, 0, 255).astype(np.uint8)
    height, width = max(row for row, _ in shape) + 1, max(column for _, column in shape) + 1
    at = round(where[0] * (before.shape[0] - height)), round(where[1] * (before.shape[1] - width))
    change = np.array([CONTRAST if colours >> bit & 1 else 0 for bit in range(3)])
    assert not is_hit(before, pasted(again, shape, at, change)) or not is_hit(before, again)
    assert not is_hit(before, pasted(before, shape, at, change))


def test_every_place_of_the_grid_sees_the_thinnest_line() -> None:
    before = frame(1)
    for across in (True, False):
        shape = [(0, number) if across else (number, 0) for number in range(10)]
        for row in range(4):
            for column in range(4):
                marked = pasted(before, shape, (40 + row, 50 + column), np.array([CONTRAST, 0, 0]))
                assert away(before, marked) >= CONTRAST / 4 - 1


def test_a_frame_that_came_twice_is_a_hit_and_another_size_is_none() -> None:
    before = frame(2)
    assert away(before, before) == 0
    assert is_hit(before, noisy(before, 1.0, 3))
    assert away(before, before[:-2]) == float("inf")


def test_noise_as_large_as_the_defect_allows_nothing() -> None:
    before = frame(2)
    assert not is_hit(noisy(before, 8, 1), noisy(before, 8, 2))
    assert is_hit(noisy(before, 8, 1), noisy(before, 8, 2), contrast=255)


def first_frames(clip: Path, count: int) -> list[Pixels]:
    with av.open(str(clip)) as file:
        return [each.to_ndarray(format="rgb24") for each, _ in zip(file.decode(video=0), range(count), strict=False)]


@pytest.mark.parametrize("clip", ["inbound", "boards"])
def test_a_mark_on_a_rendered_frame_survives_jpeg_and_is_no_hit(clip: str) -> None:
    mark_and_repeat(first_frames(CLIPS / f"{clip}.mp4", 1)[0][:480, :640], 10)


def test_a_mark_on_a_real_picture_survives_jpeg_and_is_no_hit(shared_data: Path) -> None:
    for path in sorted([*(shared_data / "photos").glob("*.jpg"), *(shared_data / "parcels/images").glob("*.jpg")])[
        ::40
    ][:4]:
        pixels = decode(path.read_bytes(), at_least=(480, 640)).pixels
        mark_and_repeat(pixels[:480, :640], 8)


def mark_and_repeat(pixels: Pixels, count: int) -> None:
    """The frame comes again with noise, encoded anew by the camera, and with a grey mark of ten pixels on it."""
    random = np.random.default_rng(4)
    pixels = np.clip(pixels, 0, 255 - int(1.5 * CONTRAST)).astype(np.uint8)  # a mark needs room above
    before = jpeg(pixels, 92)
    for number in range(count):
        width, height = [(10, 1), (1, 10), (5, 2), (2, 5), (4, 3)][number % 5]
        top = int(random.integers(0, pixels.shape[0] - height))
        left = int(random.integers(0, pixels.shape[1] - width))
        marked = noisy(pixels, 1.0, number)
        marked[top : top + height, left : left + width] += int(1.5 * CONTRAST)
        assert not is_hit(before, jpeg(marked, 92)), (width, height, top, left)

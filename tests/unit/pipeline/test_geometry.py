"""Placing: tensors hold what the contract says, and boxes find their way back."""

import itertools
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.pipeline.contract import InputContract
from eyeline.pipeline.geometry import Region, crop, needed_size, place, resize, tensor, upright
from tests.unit.pipeline.odd_images import COLORS, TURNS, picture

FITS: tuple[Literal["letterbox", "stretch", "crop"], ...] = ("letterbox", "stretch", "crop")


def contract(**changes: Any) -> InputContract:
    return msgspec.structs.replace(InputContract(name="images", size=(96, 128)), **changes)


sides = st.integers(1, 3000)


@given(
    width=sides,
    height=sides,
    fit=st.sampled_from(FITS),
    align=st.sampled_from(["center", "top-left"]),
    goal=st.tuples(st.integers(8, 700), st.integers(8, 700)),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_a_box_goes_to_the_tensor_and_back(
    width: int, height: int, fit: Any, align: Any, goal: tuple[int, int], data: st.DataObject
) -> None:
    placement = place(
        np.empty((1, 1, 3), np.uint8), contract(size=goal, fit=fit, align=align), region=Region.whole(width, height)
    )
    edges = st.floats(0, 1, width=32)
    box = [data.draw(edges) * width, data.draw(edges) * height, data.draw(edges) * width, data.draw(edges) * height]
    boxes = np.array([[min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])]], np.float32)
    back = placement.to_original(placement.to_tensor(boxes))
    assert np.allclose(back, boxes, atol=max(width, height) * 1e-4)


@given(width=sides, height=sides, fit=st.sampled_from(FITS))
@settings(max_examples=200, deadline=None)
def test_the_resized_image_fits_as_its_contract_says(width: int, height: int, fit: Any) -> None:
    wanted = contract(fit=fit)
    rows, columns = needed_size(wanted, width, height)
    if fit == "letterbox":
        assert rows <= 96
        assert columns <= 128
        assert rows == 96 or columns == 128
    elif fit == "crop":
        assert rows >= 96
        assert columns >= 128
        assert rows == 96 or columns == 128
    else:
        assert (rows, columns) == (96, 128)


@pytest.mark.parametrize(
    ("layout", "dtype", "color"), list(itertools.product(("nhwc", "nchw"), ("uint8", "float32"), ("rgb", "bgr")))
)
def test_layout_type_and_colour_order(layout: Any, dtype: Any, color: Any) -> None:
    wanted = contract(
        layout=layout, dtype=dtype, color=color, mean=(1.0, 2.0, 3.0), scale=(0.5, 0.25, 2.0), fit="stretch"
    )
    out, _ = tensor(picture(256, 192), wanted)
    assert out.shape == wanted.shape
    assert out.dtype == np.dtype(dtype)
    pixel = (out if layout == "nhwc" else out.transpose(1, 2, 0))[10, 10]
    expected = np.array(COLORS[0] if color == "rgb" else COLORS[0][::-1], np.float32)
    if dtype == "float32":
        expected = (expected - np.array([1, 2, 3])) * np.array([0.5, 0.25, 2.0])
    assert np.allclose(pixel, expected)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_letterbox_bars_have_the_pad_value(dtype: Any, layout: Any) -> None:
    wanted = contract(dtype=dtype, layout=layout, mean=(14.0, 14.0, 14.0), scale=(0.01, 0.01, 0.01))
    out, placement = tensor(picture(400, 100), wanted)
    hwc = out if layout == "nhwc" else out.transpose(1, 2, 0)
    value = 114 if dtype == "uint8" else 1.0
    assert np.allclose(hwc[:32], value)
    assert np.allclose(hwc[64:], value)
    assert not np.allclose(hwc[33], value)
    assert placement.offset_y == 32


def test_top_left_alignment_puts_the_image_into_the_corner() -> None:
    out, placement = tensor(picture(400, 100), contract(align="top-left"))
    assert (placement.offset_x, placement.offset_y) == (0, 0)
    assert (out[32:] == 114).all()
    assert tuple(out[2, 2]) == COLORS[0]


def test_crop_keeps_the_middle() -> None:
    out, placement = tensor(picture(1000, 96), contract(size=(96, 96), fit="crop"))
    assert placement.scale_x == 1
    assert placement.offset_x == -452
    assert tuple(out[10, 10]) == COLORS[0]
    assert tuple(out[80, 90]) == COLORS[3]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_what_is_written_into_given_memory_is_what_a_new_tensor_holds(fit: Any, layout: Any) -> None:
    wanted = contract(fit=fit, layout=layout)
    fresh, placement = tensor(picture(333, 211), wanted)
    given_memory = np.full((1, *wanted.shape), 7, np.uint8)
    assert place(picture(333, 211), wanted, given_memory) == placement
    assert np.array_equal(given_memory[0], fresh)


def test_memory_of_another_shape_or_type_is_refused() -> None:
    with pytest.raises(ValueError, match="wants uint8"):
        place(picture(), contract(), np.empty((96, 128, 3), np.float32))
    with pytest.raises(ValueError, match="96"):
        place(picture(), contract(), np.empty((96, 127, 3), np.uint8))


@pytest.mark.parametrize("fit", FITS)
def test_pixels_decoded_at_half_size_map_to_the_same_original_boxes(fit: Any) -> None:
    wanted = contract(fit=fit)
    whole = place(picture(1280, 720), wanted)
    assert place(picture(640, 360), wanted, region=Region.whole(1280, 720)) == whole


def test_a_crop_is_a_view_and_its_boxes_return_to_the_whole_image() -> None:
    pixels = picture(640, 480)
    cut = crop(pixels, (400.0, 300.0, 500.0, 380.0), 0.1, Region.whole(1280, 960))
    assert cut is not None
    part, region = cut
    assert np.shares_memory(part, pixels)
    assert (region.x, region.y) == (390, 292)
    placement = place(part, contract(fit="stretch"), region=region)
    corners = placement.to_original(np.array([[0, 0, 128, 96]], np.float32))
    assert np.allclose(corners, [[390, 292, region.x + region.width, region.y + region.height]], atol=1e-3)


def test_a_crop_outside_the_image_is_nothing() -> None:
    assert crop(picture(), (100.0, 100.0, 120.0, 120.0), 0.0, Region.whole(64, 48)) is None
    assert crop(picture(), (10.0, 10.0, 10.0, 10.0), 0.0, Region.whole(64, 48)) is None


@given(
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    box=st.tuples(*[st.floats(-50, 950)] * 4),
    margin=st.floats(0, 1),
)
@settings(max_examples=100, deadline=None)
def test_any_crop_can_be_placed(width: int, height: int, box: tuple[float, float, float, float], margin: float) -> None:
    cut = crop(np.zeros((height, width, 3), np.uint8), box, margin, Region.whole(width, height))
    if cut is not None:
        out, _ = tensor(cut[0], contract(), region=cut[1])
        assert out.shape == (96, 128, 3)


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_is_undone(turn: int) -> None:
    stored = np.ascontiguousarray(TURNS[turn](picture()))
    assert np.array_equal(upright(stored, turn), picture())


def test_strong_shrinking_averages_instead_of_skipping() -> None:
    stripes = np.zeros((640, 640, 3), np.uint8)
    stripes[:, ::10] = 250
    for kind in ("linear", "area", "cubic"):
        small = resize(stripes, 64, 64, kind)
        assert np.abs(small.astype(int) - 25).max() <= 2

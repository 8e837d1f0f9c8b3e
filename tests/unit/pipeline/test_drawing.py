"""Drawing: boxes where they are said to be, any label, no metadata."""

import io

import numpy as np
import pytest
from PIL import Image

from eyeline.core.types import Classification, Code, Detection
from eyeline.pipeline.decode import decode
from eyeline.pipeline.drawing import PALETTE, encode_jpeg, encode_webp, overlay, thumbnail
from tests.unit.pipeline.odd_images import picture


def grey(width: int = 320, height: int = 240) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((height, width, 3), 128, np.uint8)


def box(label: str, *edges: float) -> Detection:
    left, top, right, bottom = edges
    return Detection(label, 0.87, (left, top, right, bottom), "find")


def test_a_box_has_its_classs_colour_in_a_dark_casing_at_its_place() -> None:
    drawn = overlay(grey(), [box("b", 100, 100, 200, 180)], labels=("a", "b"))
    assert "#{:02X}{:02X}{:02X}".format(*drawn[140, 100]) == PALETTE[1]
    assert drawn[140, 99].max() < 60
    assert (drawn[140, 150] == 128).all()


def test_boxes_are_scaled_from_the_originals_pixels() -> None:
    drawn = overlay(grey(), [box("b", 1000, 1000, 2000, 1800)], original=(3200, 2400))
    assert (drawn[140, 100] != 128).any()
    assert (drawn[140, 150] == 128).all()


def test_a_mask_is_a_veil_with_an_edge_in_its_place_and_scale() -> None:
    triangle = [1000.0, 1000.0, 2000.0, 1000.0, 1000.0, 1800.0]
    found = Detection(
        "b", 0.9, (1000, 1000, 2000, 1800), "find", {"mask": {"polygons": [triangle, [1.0, 2.0]], "area": 1}}
    )
    drawn = overlay(grey(), [found], original=(3200, 2400), labels=("a", "b"))
    red, green, blue = (int(value) for value in drawn[120, 120])
    assert red > green > 60  # the colour of `b` over the grey
    assert green > blue
    assert (drawn[165, 185] == 128).all()  # in the box, and not in the shape


def test_the_given_pixels_stay_as_they_are() -> None:
    pixels = grey()
    overlay(pixels, [box("b", 10, 10, 50, 50)])
    assert (pixels == 128).all()


@pytest.mark.parametrize(
    "label", ["", "Schräg", "破損", "<script>", "a\nb\x1b[0m", "\ud800", "x" * 5000, "\u202ertl", "🙂"]
)
def test_any_label_can_be_drawn(label: str) -> None:
    drawn = overlay(
        grey(),
        [box(label, 10, 10, 50, 50), box(label, -50, -50, 9000, 9000), box(label, 60, 60, 50, 50)],
        [Classification(label, 0.5, "whole")],
        [Code(label, "ean13", (10.0, 100.0, 90.0, 140.0))],
    )
    assert (drawn != 128).any()


def test_many_boxes_in_one_place_are_drawn() -> None:
    assert overlay(grey(), [box(str(i), 100, 100, 150, 150) for i in range(60)]).shape == (240, 320, 3)


def test_a_tiny_picture_can_be_drawn_on() -> None:
    assert overlay(grey(1, 1), [box("a", 0, 0, 1, 1)], [Classification("b", 1.0, "s")]).shape == (1, 1, 3)


def test_encoded_pictures_carry_no_metadata_and_decode_again() -> None:
    for encoded in (encode_jpeg(picture(), 95), encode_webp(picture(), 95)):
        with Image.open(io.BytesIO(encoded)) as image:
            assert not {"exif", "icc_profile", "xmp", "comment"} & set(image.info)
        assert np.abs(decode(encoded).pixels.astype(int) - picture()).mean() < 6


def test_a_view_of_a_picture_can_be_encoded() -> None:
    assert decode(encode_jpeg(picture()[::2, ::2])).width == 32


def test_thumbnails_keep_the_shape_and_never_grow() -> None:
    assert thumbnail(grey(), 100).shape == (75, 100, 3)
    assert thumbnail(grey(), 1000).shape == (240, 320, 3)
    assert thumbnail(grey(1000, 2), 10).shape == (1, 10, 3)

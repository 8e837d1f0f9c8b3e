"""Barcodes: what is read, where it lies, and which box it belongs to."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zxingcpp

from eyeline.core.errors import ConfigError
from eyeline.core.types import Code, Detection, Pixels
from eyeline.pipeline import barcodes
from eyeline.pipeline.decode import decode
from eyeline.pipeline.geometry import Region


def sheet(*codes: tuple[str, str, int, int]) -> Pixels:
    """A white 400 × 300 picture with codes (text, format, x, y) on it."""
    picture = np.full((300, 400, 3), 255, np.uint8)
    for text, kind, x, y in codes:
        drawn: Any = zxingcpp.create_barcode(text, zxingcpp.BarcodeFormat.__members__[kind])
        symbol = np.array(zxingcpp.write_barcode_to_image(drawn, scale=3))
        picture[y : y + symbol.shape[0], x : x + symbol.shape[1]] = symbol[:, :, None]
    return picture


def detection(step: str, *box: float) -> Detection:
    return Detection("parcel", 0.9, (box[0], box[1], box[2], box[3]), step, {})


def test_text_and_kind_are_read_and_the_box_is_in_pixels_of_the_original() -> None:
    picture = sheet(("ORDER-7", "QRCode", 30, 40))
    (whole,) = barcodes.read(picture, Region.whole(400, 300))
    assert (whole.text, whole.format) == ("ORDER-7", "QRCode")
    assert 30 < whole.box[0] < 60 < whole.box[2] < 130
    assert 40 < whole.box[1] < 70 < whole.box[3] < 140
    (shown,) = barcodes.read(picture, Region(100.0, 50.0, 800.0, 600.0, 1000, 1000))
    assert shown.box == pytest.approx(tuple(np.array(whole.box) * 2 + (100, 50, 100, 50)))


def test_a_text_is_exactly_what_the_code_holds() -> None:
    text = "010460043993125621JgXJ5.T\x1d8005112000"
    (code,) = barcodes.read(sheet((text, "DataMatrix", 30, 40)), Region.whole(400, 300))
    assert code.text == text


def test_a_picture_that_is_too_large_is_read_smaller_with_boxes_in_its_own_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture = sheet(("ORDER-7", "QRCode", 30, 40)).repeat(2, axis=0).repeat(2, axis=1)
    (whole,) = barcodes.read(picture, Region.whole(800, 600))
    monkeypatch.setattr(barcodes, "MOST_PIXELS", 400 * 300)
    (smaller,) = barcodes.read(picture, Region.whole(800, 600))
    assert smaller.box == pytest.approx(whole.box, abs=6)


def test_bytes_that_are_no_text_are_read_as_something_that_can_be_kept() -> None:
    for content in (bytes(range(32)), bytes(range(128, 160))):
        drawn: Any = zxingcpp.create_barcode(content, zxingcpp.BarcodeFormat.QRCode)  # type: ignore[arg-type, unused-ignore]
        symbol = np.pad(np.array(zxingcpp.write_barcode_to_image(drawn, scale=4)), 20, constant_values=255)
        (code,) = barcodes.read(symbol[:, :, None].repeat(3, axis=2), Region.whole(*symbol.shape[::-1]))
        assert len(code.text) == 32
        assert "\0" not in code.text
        assert msgspec.json.decode(msgspec.json.encode(code), type=Code) == code


def test_several_codes_come_from_top_to_foot_and_kinds_can_be_chosen() -> None:
    picture = sheet(("second", "QRCode", 200, 160), ("first", "DataMatrix", 30, 30))
    found = barcodes.read(picture, Region.whole(400, 300))
    assert [code.text for code in found] == ["first", "second"]
    chosen = barcodes.read(picture, Region.whole(400, 300), ("QRCode",))
    assert [code.text for code in chosen] == ["second"]


def test_an_empty_picture_holds_no_code() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    assert barcodes.read(noise, Region.whole(400, 300)) == []
    assert barcodes.read(np.zeros((1, 1, 3), np.uint8), Region.whole(1, 1)) == []


def test_a_kind_that_is_misspelt_is_refused_with_the_nearest() -> None:
    barcodes.check_formats(["QRCode", "EAN13", "Code128", "DataMatrix", "PDF417"])
    with pytest.raises(ConfigError, match="did you mean 'QRCode'"):
        barcodes.check_formats(["QR-Code"])


def test_a_code_belongs_to_the_smallest_box_round_its_middle() -> None:
    pallet, parcel, other = (
        detection("find", 0, 0, 100, 100),
        detection("find", 10, 10, 50, 50),
        detection("defects", 20, 20, 40, 40),
    )
    code = Code("A", "QRCode", (25.0, 25.0, 35.0, 35.0))
    barcodes.tie([code], [pallet, parcel, other], "find")
    assert parcel.attributes == {"codes": [{"text": "A", "format": "QRCode"}]}
    assert pallet.attributes == other.attributes == {}
    barcodes.tie([Code("B", "QRCode", (60.0, 60.0, 70.0, 70.0))], [pallet, parcel, other], None)
    assert [entry["text"] for entry in pallet.attributes["codes"]] == ["B"]
    barcodes.tie([Code("C", "QRCode", (200.0, 200.0, 210.0, 210.0))], [pallet], None)
    assert len(pallet.attributes["codes"]) == 1


def test_real_photos_are_read_and_those_without_a_code_give_none(shared_data: Path) -> None:
    exact, false = 0, []
    for file in sorted((shared_data / "barcodes").glob("*/*")):
        empty = file.parent.name.startswith("falsepositives")
        text = file.with_suffix(".txt")
        if file.suffix == ".txt" or (not empty and not text.exists()):
            continue
        picture = decode(file.read_bytes())
        texts = [code.text for code in barcodes.read(picture.pixels, picture.region)]
        if empty and texts:
            false.append(file.name)
        exact += not empty and text.read_bytes().decode("utf-8", "replace") in texts
    assert exact >= 313  # of 393
    assert false == []

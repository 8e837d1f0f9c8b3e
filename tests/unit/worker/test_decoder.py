"""The decoder child's own code, in this process: what it answers to orders."""

import io
import mmap

import numpy as np
import pytest
import zxingcpp
from PIL import Image

from eyeline.pipeline.contract import InputContract
from eyeline.worker.decoder import Decoder
from eyeline.worker.orders import Broken, Order, Prepared, Refused, Room

CONTRACTS = [
    InputContract(name="a", size=(48, 64), fit="stretch"),
    InputContract(name="b", size=(32, 32), fit="letterbox", dtype="float32", layout="nchw", scale=(0.5, 0.5, 0.5)),
]
FRAME_AT = 1 << 20


class Desk:
    """A decoder over memory of this process."""

    def __init__(self) -> None:
        self.scratch = mmap.mmap(-1, 4 << 20)
        self.tensors = mmap.mmap(-1, 1 << 20)
        self.decoder = Decoder(self.scratch, self.tensors)

    def order(
        self, data: bytes, *, frame: int | None = None, max_pixels: int = 1_000_000, max_bytes: int = 1_000_000
    ) -> Prepared | Refused | Broken:
        self.scratch[: len(data)] = data
        rooms = (Room(CONTRACTS[0], 4096), Room(CONTRACTS[1], 65536))
        room = None if frame is None else (FRAME_AT, frame)
        return self.decoder.carry_out(Order((0, len(data)), rooms, room, "apply", max_pixels, max_bytes))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def png(grey: int, width: int = 64, height: int = 48) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), grey, np.uint8)).save(out, "PNG")
    return out.getvalue()


def test_every_room_gets_the_tensor_of_its_contract(desk: Desk) -> None:
    said = desk.order(png(100))
    assert isinstance(said, Prepared)
    first = np.frombuffer(desk.tensors, np.uint8, 48 * 64 * 3, 4096)
    assert (first == 100).all()
    second = np.frombuffer(desk.tensors, np.float32, 3 * 32 * 32, 65536).reshape(3, 32, 32)
    assert (second[:, 4:28] == 50).all()
    assert (second[:, :4] == 57).all()  # the letterbox's bars, scaled like all else
    assert [placement.scale_x for placement in said.placements] == [1.0, 0.5]


def test_a_frame_is_kept_only_where_crops_are_cut(desk: Desk) -> None:
    plain = desk.order(png(9))
    assert isinstance(plain, Prepared)
    assert plain.frame is None
    kept = desk.order(png(9), frame=1 << 20)
    assert isinstance(kept, Prepared)
    assert kept.frame == (48, 64)
    assert (np.frombuffer(desk.scratch, np.uint8, 48 * 64 * 3, FRAME_AT) == 9).all()


def test_a_frame_never_grows_beyond_its_room(desk: Desk) -> None:
    desk.scratch[FRAME_AT + 5000] = 77
    said = desk.order(png(9, 300, 200), frame=5000)
    assert isinstance(said, Prepared)
    assert said.frame is not None
    assert said.frame[0] * said.frame[1] * 3 <= 5000
    assert desk.scratch[FRAME_AT + 5000] == 77


@pytest.mark.parametrize("data", [b"", b"not a picture", png(3)[:60], b"\xff\xd8\xff\xd9"])
def test_what_is_no_picture_is_refused_with_a_code(desk: Desk, data: bytes) -> None:
    said = desk.order(data)
    assert isinstance(said, Refused)
    assert said.code
    assert said.message


def test_limits_come_with_the_order(desk: Desk) -> None:
    for said in (desk.order(png(1), max_pixels=100), desk.order(png(1), max_bytes=10)):
        assert isinstance(said, Refused)
        assert said.kind == "too_large"


def test_what_nobody_foresaw_is_an_answer_too(desk: Desk) -> None:
    said = desk.decoder.carry_out(Order((0, 10), (Room(CONTRACTS[0], 1 << 30),), None, "apply", 1, 1))
    assert isinstance(said, Refused | Broken)
    data = png(5)
    desk.scratch[: len(data)] = data
    beyond = Order((0, len(data)), (Room(CONTRACTS[0], 1 << 30),), None, "apply", 10**6, 10**6)
    assert isinstance(desk.decoder.carry_out(beyond), Broken)


def test_codes_are_read_and_quality_is_measured_where_the_order_says_so(desk: Desk) -> None:
    symbol = np.array(
        zxingcpp.write_barcode_to_image(zxingcpp.create_barcode("A-1", zxingcpp.BarcodeFormat.QRCode), scale=4)
    )
    out = io.BytesIO()
    Image.fromarray(symbol).convert("RGB").save(out, "PNG")
    data = out.getvalue()
    desk.scratch[: len(data)] = data
    said = desk.decoder.carry_out(Order((0, len(data)), (), None, "apply", 10**6, 10**6, (), True))
    assert isinstance(said, Prepared)
    assert [code.text for code in said.codes] == ["A-1"]
    assert said.quality is not None
    assert 0.3 < said.quality.brightness < 0.9
    plain = desk.order(data)
    assert isinstance(plain, Prepared)
    assert (plain.codes, plain.quality) == ((), None)


def test_a_model_is_shown_the_share_of_the_picture_that_it_is_meant_to_see(desk: Desk) -> None:
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[:, 100:] = 200
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    data = out.getvalue()
    desk.scratch[: len(data)] = data
    room = Room(CONTRACTS[0], 0, (0.5, 0.0, 1.0, 1.0))
    said = desk.decoder.carry_out(Order((0, len(data)), (room,), None, "apply", 10**6, 10**6))
    assert isinstance(said, Prepared)
    assert (np.frombuffer(desk.tensors, np.uint8, 48 * 64 * 3) == 200).all()
    corner = np.array([[0, 0, 64, 48]], np.float32)
    assert said.placements[0].to_original(corner).tolist() == [[100, 0, 200, 100]]

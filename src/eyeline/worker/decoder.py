"""The decoder child, `python -m eyeline.worker.decoder`: one image at a time, pixels straight into shared memory.

It gets an inherited socket and two pieces of inherited memory, and nothing else: no secrets, no network, no files. A
hostile image may kill it; its parent starts another. Run by decoders.py, never by hand.

Fault points, for tests only: EYELINE_FAULT="KIND=SHA256" makes the child abort, hang, spin or eat memory on that image.
"""

import hashlib
import io
import math
import mmap
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: threads would keep the child out of its own namespaces

import msgspec
import numpy as np
from PIL import Image

from eyeline.core.errors import BadImage, TooLarge
from eyeline.pipeline import barcodes, near, quality
from eyeline.pipeline.decode import Decoded, decode, probe
from eyeline.pipeline.geometry import Placement, Region, crop, place, resize, share_of
from eyeline.pipeline.target import decode_target
from eyeline.worker import confine
from eyeline.worker.orders import LENGTH, Broken, Order, Prepared, Ready, Refused, Room, framed

CPU_SECONDS = 5

_FAULTS: dict[str, Callable[[], object]] = {
    "decoder_abort": os.abort,
    "decoder_hang": lambda: time.sleep(3600),
    "decoder_spin": lambda: all(iter(int, 1)),
    "decoder_memory": lambda: np.ones(2**33, np.uint8),
}


class Decoder:
    """Carries out orders on the two pieces of memory: `scratch` holds images and frames, `tensors` what models read."""

    def __init__(self, scratch: mmap.mmap, tensors: mmap.mmap, fault: str = "") -> None:
        self._scratch = scratch
        self._tensors = tensors
        kind, _, self._victim = fault.partition("=")
        self._fault = _FAULTS.get(kind)

    def carry_out(self, order: Order) -> Prepared | Refused | Broken:
        """Never raises: what is wrong with the image is the answer."""
        try:
            return self._prepare(order)
        except TooLarge as error:
            return Refused("too_large", error.code, str(error))
        except BadImage as error:
            return Refused("bad_image", error.code, str(error))
        except MemoryError:
            return Refused(
                "too_large", "too_large", f"decoding needs more than {confine.MEMORY / 2**20:.0f} MiB of memory"
            )
        except Exception as error:  # noqa: BLE001 - nobody knows what a decoder raises for hostile bytes
            return Broken(f"{type(error).__name__}: {error}"[:300])

    def _prepare(self, order: Order) -> Prepared:
        start = time.perf_counter()
        offset, size = order.image
        data = self._scratch[offset : offset + size]
        self._fail_on_purpose(data)
        decoded = self._decode(data, order)
        middle = time.perf_counter()
        placements = tuple(self._place(decoded, room) for room in order.rooms)
        frame = self._keep_frame(decoded, order.frame) if order.frame else None
        measured = quality.measure(decoded.pixels) if order.measure else None
        signature = self._keep_signature(decoded, order.signature) if order.signature else None
        placed = time.perf_counter()
        codes = [] if order.codes is None else barcodes.read(decoded.pixels, decoded.region, order.codes)
        return Prepared(
            decoded.width,
            decoded.height,
            decoded.format,
            decoded.frames_ignored,
            placements,
            frame,
            middle - start,
            placed - middle,
            tuple(codes),
            time.perf_counter() - placed,
            measured,
            signature,
        )

    def _decode(self, data: bytes, order: Order) -> Decoded:
        probed = probe(data, max_pixels=order.max_pixels, max_bytes=order.max_bytes)
        target = decode_target(
            [(room.contract, room.roi) for room in order.rooms],
            probed.width,
            probed.height,
            crops=order.frame is not None,
            every_pixel=order.codes is not None or order.signature is not None,
            measured=order.measure,
        )
        return decode(data, at_least=target, exif=order.exif, max_pixels=order.max_pixels, max_bytes=order.max_bytes)

    def _place(self, decoded: Decoded, room: Room) -> Placement:
        contract = room.contract
        count = int(np.prod(contract.shape))
        out = np.frombuffer(self._tensors, contract.dtype, count, room.offset).reshape(contract.shape)
        pixels, region = decoded.pixels, decoded.region
        if room.roi is not None:
            pixels, region = crop(pixels, share_of(region, room.roi), 0.0, region) or (pixels, region)
        return place(pixels, contract, out, region=region)

    def _keep_frame(self, decoded: Decoded, room: tuple[int, int]) -> tuple[int, int]:
        """Copies the picture into its room, made smaller where it would not fit; its (height, width) there."""
        offset, size = room
        height, width = decoded.pixels.shape[:2]
        shrink = min(1.0, math.sqrt(size / decoded.pixels.nbytes))
        height, width = max(1, int(height * shrink)), max(1, int(width * shrink))
        out = np.frombuffer(self._scratch, np.uint8, height * width * 3, offset).reshape(height, width, 3)
        resize(decoded.pixels, width, height, "area", out)
        return height, width

    def _keep_signature(self, decoded: Decoded, room: tuple[int, int]) -> tuple[int, int] | None:
        """Nothing for a picture that is too large for it: it is never taken for a repeated one."""
        offset, size = room
        height, width = near.signature_size(decoded.width, decoded.height)
        if height * width * 3 > size:
            return None
        out = np.frombuffer(self._scratch, np.uint8, height * width * 3, offset).reshape(height, width, 3)
        np.copyto(out, near.signature(decoded.pixels))
        return height, width

    def _fail_on_purpose(self, data: bytes) -> None:
        if self._fault is not None and hashlib.sha256(data).hexdigest() == self._victim:
            self._fault()


def serve(control: socket.socket, decoder: Decoder) -> None:
    """Answers orders until the parent hangs up."""
    orders = msgspec.msgpack.Decoder(Order)
    while (body := _receive(control)) is not None:
        confine.allow_cpu(CPU_SECONDS)
        control.sendall(framed(decoder.carry_out(orders.decode(body))))


def _receive(control: socket.socket) -> bytes | None:
    head = _exactly(control, LENGTH.size)
    return None if head is None else _exactly(control, LENGTH.unpack(head)[0])


def _exactly(control: socket.socket, count: int) -> bytes | None:
    data = control.recv(count, socket.MSG_WAITALL)
    return data if len(data) == count else None


def _warm_up() -> None:
    """Loads what libraries load at first use, while files can still be opened."""
    for name in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, name)
        decode(file.getvalue())
    barcodes.read(np.zeros((8, 8, 3), np.uint8), Region.whole(8, 8))


def main(arguments: list[str]) -> None:
    """CONTROL_FD SCRATCH_FD SCRATCH_BYTES TENSORS_FD TENSORS_BYTES."""
    control_fd, scratch_fd, scratch_bytes, tensors_fd, tensors_bytes = (int(word) for word in arguments)
    confined = confine.leave_network()
    control = socket.socket(fileno=control_fd)
    decoder = Decoder(
        mmap.mmap(scratch_fd, scratch_bytes), mmap.mmap(tensors_fd, tensors_bytes), os.environ.get("EYELINE_FAULT", "")
    )
    _warm_up()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)  # libraries print what stands in a file; nobody should read that in a log
    os.chdir(Path("/"))
    confined += confine.drop_rights() + confine.limit_resources()
    control.sendall(framed(Ready(tuple(confined))))
    serve(control, decoder)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Decoding: every odd picture comes out right or is refused with a reason, and nothing dies."""

import contextlib
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from eyeline.core.errors import BadImage, InputError, TooLarge
from eyeline.core.types import Pixels
from eyeline.pipeline.decode import decode, probe
from tests.unit.pipeline import odd_images
from tests.unit.pipeline.odd_images import COLORS, LOSSY, Odd, all_odd, picture, save

ODD = all_odd()
# what a plug-in of Pillow has to say about broken tags is no news to us
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


def quadrant_means(pixels: Pixels) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """[4, 3] mean colours of the middles of the four quadrants."""
    height, width = pixels.shape[:2]
    rows = ((height // 8, height * 3 // 8), (height * 5 // 8, height * 7 // 8))
    columns = ((width // 8, width * 3 // 8), (width * 5 // 8, width * 7 // 8))
    means = [
        pixels[top : max(top + 1, bottom), left : max(left + 1, right)].reshape(-1, 3).mean(axis=0)
        for top, bottom in rows
        for left, right in columns
    ]
    return np.array(means)


def test_there_are_over_four_hundred_odd_images_of_different_names() -> None:
    assert len({odd.name for odd in ODD}) == len(ODD) >= 400


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd.size], ids=lambda odd: odd.name)
def test_a_good_picture_has_its_upright_size_and_colours(odd: Odd) -> None:
    decoded = decode(odd.data)
    assert (decoded.width, decoded.height) == odd.size
    assert decoded.pixels.shape == (decoded.height, decoded.width, 3)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous
    if odd.quadrants:
        assert np.abs(quadrant_means(decoded.pixels) - np.array(odd.quadrants)).max() <= odd.tolerance


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd.size], ids=lambda odd: odd.name)
def test_the_header_alone_tells_the_same_as_decoding(odd: Odd) -> None:
    probed = probe(odd.data)
    assert (probed.width, probed.height) == odd.size
    assert probed.frames_ignored == odd.frames_ignored


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd.codes], ids=lambda odd: odd.name)
def test_a_broken_one_is_refused_with_a_reason(odd: Odd) -> None:
    with pytest.raises(InputError) as refusal:
        decode(odd.data)
    assert "*" in odd.codes or refusal.value.code in odd.codes
    assert len(str(refusal.value)) > 10
    assert " at 0x" not in str(refusal.value)  # the reason is the same every time, and tells nothing of this process


@pytest.mark.parametrize("odd", [odd for odd in ODD if not odd.codes and not odd.size], ids=lambda odd: odd.name)
def test_a_damaged_one_is_whole_or_refused(odd: Odd) -> None:
    try:
        decoded = decode(odd.data)
    except InputError:
        return
    assert decoded.pixels.shape == (decoded.height, decoded.width, 3)


@pytest.mark.parametrize(
    "odd", [odd for odd in ODD if "too_large" in odd.codes or "too_many_scans" in odd.codes], ids=lambda odd: odd.name
)
def test_bombs_are_refused_from_the_header(odd: Odd) -> None:
    with pytest.raises(InputError):
        probe(odd.data)


def test_bytes_over_the_limit_are_refused_before_anything_is_read() -> None:
    with pytest.raises(TooLarge, match="at most 10"):
        probe(b"x" * 11, max_bytes=10)


def test_the_pixel_limit_is_a_setting() -> None:
    data = save(Image.fromarray(picture()), "PNG")
    assert probe(data, max_pixels=64 * 48).width == 64
    with pytest.raises(TooLarge):
        decode(data, max_pixels=64 * 48 - 1)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(
    ("needed", "factor"), [(None, 1), ((300, 400), 1), ((240, 320), 2), ((100, 160), 4), ((60, 80), 8), ((1, 1), 8)]
)
def test_a_jpeg_is_decoded_no_smaller_than_needed(turn: int, needed: tuple[int, int] | None, factor: int) -> None:
    upright = picture(640, 480)
    stored = Image.fromarray(np.ascontiguousarray(odd_images.TURNS[turn](upright)))
    data = save(stored, "JPEG", quality=95, exif=b"Exif\0\0" + odd_images.exif(turn))
    decoded = decode(data, at_least=needed)
    assert (decoded.width, decoded.height) == (640, 480)
    assert decoded.pixels.shape == (480 // factor, 640 // factor, 3)
    assert np.abs(quadrant_means(decoded.pixels) - np.array(COLORS)).max() <= LOSSY


def test_scaled_decoding_stays_close_to_shrinking_the_whole() -> None:
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (45, 80, 3), np.uint8)).resize((1280, 720), Image.Resampling.BICUBIC)
    data = save(smooth, "JPEG", quality=90)
    half = decode(data, at_least=(360, 640)).pixels.astype(float)
    whole = Image.fromarray(decode(data).pixels).resize((640, 360), Image.Resampling.BOX)
    assert np.abs(half - np.asarray(whole)).mean() < 1.5


def test_orientation_can_be_ignored_where_the_contract_says_so() -> None:
    data = save(Image.fromarray(picture()), "JPEG", quality=95, exif=b"Exif\0\0" + odd_images.exif(6))
    assert decode(data).pixels.shape == (64, 48, 3)
    ignored = decode(data, exif="ignore")
    assert (ignored.width, ignored.height) == (64, 48)


@pytest.mark.parametrize("turn", range(1, 9))
def test_heic_is_turned_once_where_its_extra_is_there(turn: int) -> None:
    heif = pytest.importorskip("pillow_heif", reason="HEIC is an extra: pip install 'eyeline[heif]'")
    heif.register_heif_opener()
    stored = Image.fromarray(np.ascontiguousarray(odd_images.TURNS[turn](picture())))
    data = save(stored, "HEIF", quality=95, chroma=444, exif=odd_images.exif(turn))
    decoded = decode(data)
    assert (decoded.width, decoded.height) == (64, 48)
    assert np.abs(quadrant_means(decoded.pixels) - np.array(COLORS)).max() <= LOSSY


def test_memoryview_and_bytes_give_the_same() -> None:
    data = save(Image.fromarray(picture()), "PNG")
    assert np.array_equal(decode(memoryview(data)).pixels, decode(data).pixels)


def test_flipped_bits_in_scan_data_never_change_the_size() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    data = simplejpeg.encode_jpeg(noise, quality=90)
    for at in range(len(data) - 400, len(data) - 2, 13):
        broken = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        try:
            assert decode(broken).pixels.shape == (64, 64, 3)
        except BadImage:
            continue


@pytest.mark.parametrize(
    "name", ["gif-20000-frames", "jpeg-800-scans", "png-ztxt-bomb", "png-iccp-bomb", "png-50-megapixels-empty"]
)
def test_a_bomb_costs_little_cpu(name: str) -> None:
    odd = next(odd for odd in ODD if odd.name == name)
    start = time.process_time()
    with contextlib.suppress(InputError):
        decode(odd.data)
    assert time.process_time() - start < 2.0  # CPU, not wall: RELIABILITY's limit for an answer is 2 s


MEMORY = """
    import resource, sys
    from pathlib import Path
    from eyeline.core.errors import InputError
    from eyeline.pipeline.decode import decode
    used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + {room}, used + {room}))
    for path in sorted(Path(sys.argv[1]).iterdir()):
        try:
            print(path.name, decode(path.read_bytes()).pixels.shape)
        except InputError as error:
            print(path.name, error.code)
"""


def in_a_small_child(folder: Path, room: int) -> dict[str, str]:
    """What decoding each file of `folder` gives within `room` bytes of address space."""
    script = textwrap.dedent(MEMORY.format(room=room))
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=120, check=True
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.skipif(sys.platform != "linux", reason="address space limits are tested on Linux")
def test_fifty_megapixels_fit_into_a_decoder_childs_memory(tmp_path: Path) -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        image = Image.new(mode, (7071, 7071), 1)
        if mode == "P":
            image.putpalette([0, 0, 0, 9, 9, 9])
        (tmp_path / f"{mode}.png").write_bytes(save(image, "PNG", compress_level=1))
    (tmp_path / "RGB.jpg").write_bytes(save(Image.new("RGB", (7071, 7071)), "JPEG"))
    assert set(in_a_small_child(tmp_path, 800_000_000).values()) == {"(7071, 7071, 3)"}


@pytest.mark.skipif(sys.platform != "linux", reason="address space limits are tested on Linux")
def test_bombs_of_every_kind_are_answered_within_a_hundred_megabytes(tmp_path: Path) -> None:
    bombs = [
        odd for odd in ODD if any(word in odd.name for word in ("bomb", "huge", "claims", "scans", "20000", "empty"))
    ]
    for odd in bombs:
        (tmp_path / odd.name).write_bytes(odd.data)
    assert len(in_a_small_child(tmp_path, 100 << 20)) == len(bombs) > 15

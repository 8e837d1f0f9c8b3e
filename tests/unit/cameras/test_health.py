"""A camera's health from its pictures: what is wrong is seen, what is ordinary is not."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from eyeline.cameras.health import Health, Usual
from eyeline.cameras.video import stamped
from eyeline.cameras.watch import shown
from eyeline.core.types import Pixels
from eyeline.pipeline.drawing import encode_jpeg
from eyeline.pipeline.looks import Looks, look

CLIPS = Path(__file__).resolve().parents[3] / "src" / "eyeline" / "bundled" / "clips"
MORNING = 1_700_000_000.0


def scene(number: int, seed: int = 1) -> Pixels:
    """A still place (its own for each seed), in which a box travels, with noise."""
    rng = np.random.default_rng(seed)
    pixels = np.full((180, 320, 3), 110, np.uint8)
    for _ in range(14):
        x, y, w, h = (int(v) for v in rng.integers((0, 0, 20, 15), (280, 150, 70, 60)))
        pixels[y : y + h, x : x + w] = rng.integers(40, 210, 3)
    left = number * 17 % 300
    pixels[80:110, left : left + 30] = 230
    noise = np.random.default_rng((seed, number)).normal(0, 2, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


@cache
def seen(number: int, seed: int = 1) -> Looks:
    return look(scene(number, seed))


def healthy(usual: Usual | None = None) -> Health:
    health = Health(stall=10.0, frozen=10.0, usual=usual)
    for second in range(60):
        health.see(seen(second), float(second), MORNING + second)
    return health


def after(health: Health, pictures: Sequence[Looks], start: float = 60.0) -> set[str]:
    """What is wrong after these, one a second."""
    now = start
    for looks in pictures:
        health.see(looks, now, MORNING + now)
        now += 1
    return set(health.conditions(now - 1, MORNING + now))


def test_an_ordinary_minute_shows_nothing() -> None:
    assert after(healthy(), [seen(number) for number in range(60, 120)]) == set()


@pytest.mark.parametrize("clip", sorted(CLIPS.glob("*.mp4")), ids=lambda path: path.stem)
def test_the_bundled_clips_show_nothing(clip: Path) -> None:
    health = Health(stall=10.0, frozen=10.0)
    capture, wrong, now = cv2.VideoCapture(str(clip)), set[str](), 0.0
    pictures = []
    while capture.grab():
        if int(capture.get(cv2.CAP_PROP_POS_FRAMES)) % 10 == 0:
            _, picture = capture.retrieve()
            pictures.append(look(np.ascontiguousarray(picture[:, :, ::-1])))
    for _ in range(8):
        for looks in pictures:
            health.see(looks, now, MORNING + now)
            wrong |= set(health.conditions(now, MORNING + now))
            now += 1
    assert wrong == set()


def shows(health: Health, pictures: Sequence[int], step: float = 0.2) -> set[str]:
    """What is wrong after frames that show these, one each `step` seconds."""
    now = 0.0
    for picture in pictures:
        now += step
        health.picture(picture.to_bytes(4, "big"), now)
    return set(health.conditions(now, MORNING))


def fresh() -> Health:
    return Health(stall=10.0, frozen=10.0)


def test_frozen_is_the_same_picture_for_ten_seconds() -> None:
    assert shows(fresh(), [7] * 45) == set()
    assert shows(fresh(), [7] * 60) == {"frozen"}
    assert shows(fresh(), [*[7] * 60, 8]) == set()


def test_a_frozen_picture_that_is_encoded_on_and_on_is_frozen() -> None:
    """Within a group of pictures the encoder refines it; the next group brings the same ones again."""
    assert shows(fresh(), [*range(20)] * 5) == {"frozen"}


def test_pictures_that_all_differ_are_a_living_camera() -> None:
    assert shows(fresh(), range(400)) == set()
    assert shows(fresh(), [*range(100)] * 4) == set()  # a film of 20 s, played again and again


def test_a_picture_now_and_then_that_is_new_is_a_living_camera() -> None:
    assert shows(fresh(), [picture // 40 for picture in range(400)]) == set()


def test_a_slow_camera_is_frozen_after_three_repeats_and_not_between_them() -> None:
    assert shows(Health(stall=100.0, frozen=10.0), [1, 1, 1], 30.0) == set()
    assert shows(Health(stall=100.0, frozen=10.0), [1, 1, 1, 1], 30.0) == {"frozen"}


def test_a_time_in_the_headers_does_not_hide_a_frozen_picture() -> None:
    jpeg = encode_jpeg(scene(1))
    assert shown(stamped(jpeg, datetime.now(UTC))) == shown(jpeg)
    assert shown(encode_jpeg(scene(2))) != shown(jpeg)


def test_dark_lasts_and_ends_with_the_light() -> None:
    health = healthy()
    black = [look(np.random.default_rng(n).integers(0, 12, (180, 320, 3)).astype(np.uint8)) for n in range(8)]
    assert after(health, black[:3]) == set()
    assert after(health, black, 63.0) == {"dark"}
    assert after(health, [seen(n) for n in range(8)], 71.0) == set()


def test_blurred_is_against_what_is_usual_here() -> None:
    blurred = [look(cv2.GaussianBlur(scene(n), (0, 0), 3).astype(np.uint8)) for n in range(12)]
    assert after(healthy(), blurred) == {"blurred"}
    always_soft = Health(stall=10.0, frozen=10.0)
    assert after(always_soft, blurred * 6, 0.0) == set()


def test_moved_is_another_scene_and_no_change_of_light() -> None:
    assert after(healthy(), [seen(n, 2) for n in range(30)]) == {"moved"}
    shifted = [look(np.roll(scene(n), (60, 110), (0, 1))) for n in range(30)]
    assert after(healthy(), shifted) == {"moved"}
    dimmed = [look((scene(n) * 0.5).astype(np.uint8)) for n in range(30)]
    assert after(healthy(), dimmed) == set()


def test_a_new_view_becomes_the_usual_one() -> None:
    health = healthy()
    assert after(health, [seen(n % 60, 2) for n in range(660)]) == set()


def test_what_is_usual_is_known_after_a_restart() -> None:
    kept = msgspec.json.decode(msgspec.json.encode(healthy().kept()), type=Usual)
    assert after(Health(10.0, 10.0, kept), [seen(n, 2) for n in range(30)]) == {"moved"}
    assert len(msgspec.json.encode(kept)) < 30_000


def test_stalled_says_since_when_and_why() -> None:
    health = Health(stall=10.0, frozen=10.0)
    assert health.conditions(1000.0, MORNING) == {}
    health.began(0.0)
    health.broke("nothing listens there")
    assert health.conditions(12.0, MORNING) == {"stalled": "no frame for 12 s: nothing listens there"}
    health.frame(12.0)
    assert health.conditions(13.0, MORNING) == {}


def test_clocks_that_differ_are_said_with_whose_and_how_far() -> None:
    health = Health(stall=10.0, frozen=10.0)
    health.clock("camera", -3600.0)
    health.clock("gateway", 1.2)
    assert health.conditions(0.0, MORNING) == {"clock": "the camera's clock is 3600 s behind this one"}


def test_a_drift_of_the_light_is_seen_against_the_days_before() -> None:
    health = Health(stall=1e9, frozen=0.0)
    looks = seen(1)
    for hour in range(24 * 8):
        day = 10 * np.sin(hour / 24 * 2 * np.pi)
        moment = MORNING + 3600 * hour
        health.see(Looks(100 + day, looks.sharpness, looks.scene), moment, moment)
        assert health.conditions(moment, moment) == {}
    moment = MORNING + 3600 * 24 * 8
    for minute in range(130):
        health.see(Looks(60, looks.sharpness, looks.scene), moment + 60 * minute, moment + 60 * minute)
    assert "brightness 60 in the last hour" in health.conditions(moment, moment + 60 * 129)["drift"]

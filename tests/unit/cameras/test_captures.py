"""Who waits for a frame, and which one is the next."""

from datetime import timedelta
from pathlib import Path

from eyeline.cameras.base import Asked, Frame
from eyeline.cameras.captures import Captures
from eyeline.cameras.delivery import Delivery
from eyeline.core.clock import utcnow
from eyeline.core.settings import CameraSettings


async def test_a_live_frame_that_was_on_its_way_when_it_was_asked_for_is_not_the_next_one(tmp_path: Path) -> None:
    delivery = Delivery(CameraSettings(name="line", url="synthetic:"), "http://127.0.0.1:1", None)
    captures = Captures("line", delivery, tmp_path)
    before = Frame(b"before", utcnow())
    captures.add(Asked("a"))
    captures.add(Asked("gone", expires_in=0.0))
    assert captures.take(before, live=True) == []
    assert [each.id for each in captures.take(Frame(b"after", utcnow()), live=True)] == ["a"]
    assert captures.take(Frame(b"later", utcnow()), live=True) == []
    captures.add(Asked("b"))
    old_file = Frame(b"file", utcnow() - timedelta(days=1))
    assert [each.id for each in captures.take(old_file, live=False)] == ["b"]  # a file is as old as it is
    await delivery.close()

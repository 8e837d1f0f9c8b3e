"""The books of a camera: they close exactly, also after a death on any line."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.cameras.base import Frame
from eyeline.cameras.spool import ACCEPTED, Counts, Spool
from eyeline.core.errors import CameraError, ConfigError

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def frame(text: str = "picture", origin: str | None = None) -> Frame:
    return Frame(text.encode(), NOON, origin)


def closes(counts: Counts) -> bool:
    return counts.captured == counts.accepted + sum(counts.dropped.values()) + counts.spooled + counts.in_hand


def test_a_frame_goes_through_the_books(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    held = spool.capture(frame())
    assert spool.counts() == Counts(captured=1, accepted=0, dropped={}, spooled=0, in_hand=1)
    kept = spool.keep(held)
    assert kept is not None
    assert spool.data(kept) == b"picture"
    assert spool.counts() == Counts(captured=1, accepted=0, dropped={}, spooled=1, in_hand=0)
    spool.settle(kept, ACCEPTED)
    assert spool.counts() == Counts(captured=1, accepted=1, dropped={}, spooled=0, in_hand=0)
    assert not list(tmp_path.rglob("*.frame"))
    spool.close()


def test_the_spool_holds_no_more_than_its_limit(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 20)
    held = [spool.capture(frame("0123456789")) for _ in range(3)]
    assert [spool.keep(one) is not None for one in held] == [True, True, False]
    spool.settle(held[2], "spool_full")
    assert spool.counts().dropped == {"spool_full": 1}
    assert closes(spool.counts())
    spool.close()


def test_everything_is_found_again_under_the_same_key(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    settled, kept, in_hand = (spool.capture(frame(name)) for name in ("a", "b", "c"))
    spool.settle(settled, ACCEPTED)
    spool.keep(kept)
    before = spool.counts()
    os.close(spool._lock)  # what a kill would do
    again = Spool(tmp_path, 1000)
    assert again.counts() == before
    assert [held.key for held in again.spooled.values()] == [kept.key]
    assert [held.key for held in again.in_hand.values()] == [in_hand.key]
    assert again.capture(frame()).number == in_hand.number + 1
    again.close()


def test_closing_moves_what_is_in_hand_to_the_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    spool.capture(frame())
    spool.close()
    assert Spool(tmp_path, 1000).counts() == Counts(captured=1, accepted=0, dropped={}, spooled=1, in_hand=0)


def test_a_frame_settled_but_not_unlinked_is_not_counted_twice(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    held = spool.capture(frame())
    spool.settle(held, ACCEPTED)
    held.path.write_bytes(b'{"captured_at":"2026-05-01T12:00:00Z","size":1}\nx')  # died before the unlink
    os.close(spool._lock)
    assert Spool(tmp_path, 1000).counts() == Counts(captured=1, accepted=1, dropped={}, spooled=0, in_hand=0)
    assert not held.path.exists()


def test_torn_files_are_thrown_away_at_the_start(tmp_path: Path) -> None:
    Spool(tmp_path, 1000).close()
    (tmp_path / "hand" / "9.draft").write_bytes(b"half")
    (tmp_path / "hand" / "8.frame").write_bytes(b'{"captured_at":"2026-05-01T12:00:00Z","size":100}\nhalf')
    (tmp_path / "spool" / "7.frame").write_bytes(b"")
    assert Spool(tmp_path, 1000).counts().captured == 0


def test_the_books_survive_folding_at_any_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyeline.cameras.spool._FOLD_AFTER", 3)
    for _ in range(3):
        spool = Spool(tmp_path, 1000)
        for index in range(7):
            spool.settle(spool.capture(frame()), ACCEPTED if index % 2 else "newest_first")
        os.close(spool._lock)
    again = Spool(tmp_path, 1000)
    assert again.counts() == Counts(captured=21, accepted=9, dropped={"newest_first": 12}, spooled=0, in_hand=0)
    assert len(list(tmp_path.glob("outcomes-*.log"))) == 1


def test_origins_are_remembered_also_where_only_the_frame_was_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    spool.settle(spool.capture(frame(origin="a.jpg|1|2")), ACCEPTED)
    spool.capture(frame(origin="b.jpg|1|2"))
    (tmp_path / "origins.log").write_text('"a.jpg|1|2"\n"torn')  # died before the second line was whole
    os.close(spool._lock)
    memory = Spool(tmp_path, 1000).memory
    assert memory.seen("a.jpg|1|2")
    assert memory.seen("b.jpg|1|2")
    assert not memory.seen("c.jpg|1|2")


def test_a_second_agent_is_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    with pytest.raises(ConfigError, match="another agent"):
        Spool(tmp_path, 1000)
    spool.close()


def test_a_full_disk_refuses_the_frame_and_leaves_the_books_closed(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    (tmp_path / "hand").rmdir()
    with pytest.raises(CameraError, match="cannot be written"):
        spool.capture(frame())
    spool.lost("disk_full")
    assert spool.counts() == Counts(captured=1, accepted=0, dropped={"disk_full": 1}, spooled=0, in_hand=0)


def test_a_damaged_spooled_frame_is_said(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    kept = spool.keep(spool.capture(frame()))
    assert kept is not None
    kept.path.write_bytes(b"{}\nshort")
    with pytest.raises(CameraError, match="bytes"):
        spool.data(kept)


@given(steps=st.lists(st.sampled_from(["capture", "keep", "accept", "drop", "lost", "restart"]), max_size=40))
@settings(max_examples=60, deadline=None)
def test_the_books_close_after_any_sequence(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    folder = tmp_path_factory.mktemp("books")
    spool, captured = Spool(folder, 30), 0
    for step in steps:
        held = next(iter([*spool.in_hand.values(), *spool.spooled.values()]), None)
        if step == "capture":
            spool.capture(frame("0123456789"))
            captured += 1
        elif step == "lost":
            spool.lost("disk_full")
            captured += 1
        elif step == "restart":
            os.close(spool._lock)
            spool = Spool(folder, 30)
        elif held and step == "keep" and held.number in spool.in_hand:
            spool.keep(held)
        elif held and step in {"accept", "drop"}:
            spool.settle(held, ACCEPTED if step == "accept" else "newest_first")
        counts = spool.counts()
        assert closes(counts)
        assert counts.captured == captured
        assert spool.kept_bytes <= 30
    spool.close()


CHILD = """
    import sys
    from datetime import UTC, datetime
    from pathlib import Path
    from eyeline.cameras.base import Frame
    from eyeline.cameras.spool import ACCEPTED, Spool
    spool = Spool(Path(sys.argv[1]), 100_000)
    for index in range(10**9):
        held = spool.capture(Frame(b"x" * 500, datetime.now(UTC)))
        if index % 3 == 0:
            held = spool.keep(held) or held
        if index % 5:
            spool.settle(held, ACCEPTED if index % 2 else "newest_first")
        counts = spool.counts()
        print(counts.captured, flush=True)
"""


def test_kill_dash_nine_loses_no_count(tmp_path: Path) -> None:
    said = 0
    for round_ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(40 + 17 * round_):
            said = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().splitlines()
        child.wait()
        said = int(rest[-1]) if rest and rest[-1] else said
        spool = Spool(tmp_path, 100_000)
        counts = spool.counts()
        assert closes(counts)
        assert counts.captured in {said, said + 1}  # the frame being captured may be in the books already
        os.close(spool._lock)
    assert json.loads((tmp_path / "books.json").read_text())["schema_version"] == 1


def test_what_is_known_of_a_frame_survives_a_restart_with_it(tmp_path: Path) -> None:
    meta = {"position": "1.200", "lap": "3"}
    before = Spool(tmp_path, 1000)
    before.capture(Frame(b"x", NOON, meta=meta))
    before.close()
    after = Spool(tmp_path, 1000)
    (held,) = [*after.in_hand.values(), *after.spooled.values()]
    assert held.meta == meta
    after.close()

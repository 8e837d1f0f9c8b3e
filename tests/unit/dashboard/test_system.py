"""What the system page makes of reports, of channels and outputs, and of storage."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from eyeline.core.access import Principal
from eyeline.core.backups import LAST, LastBackup
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.ids import uuid7
from eyeline.core.settings import CameraSettings, Settings, load_settings
from eyeline.dashboard.format import size
from eyeline.dashboard.outlets import LATE, outlets
from eyeline.dashboard.pages.system import _camera
from eyeline.dashboard.storage import HOLDS, storage
from eyeline.gateway.outlets import Outlets
from eyeline.stores.results.base import Action, DeliveryRow, off_state
from eyeline.stores.results.retaining import Hold
from tests.migrated import migrated

ANA = Principal("ana", "admin")


def test_pace_and_clock_of_a_camera_are_those_it_reported_and_a_silent_one_has_none() -> None:
    camera = CameraSettings(name="belt", url="http://user:secret@10.0.0.2/snap", site="default")
    clocks = {"camera": -12.3, "gateway": 0.2}
    report = {"reported_at": isoformat(utcnow()), "state": "live", "fps": 4.5, "health": {"clocks": clocks}}
    told = _camera(camera, report, None)
    assert (told.state, told.fps, told.skew, told.seen_at) == ("ok", 4.5, -12.3, None)
    assert "secret" not in told.url
    before = report | {"health": {"conditions": {"clock": "12 s behind"}}}  # as agents of the release before say it
    assert (_camera(camera, before, None).state, _camera(camera, before, None).skew) == ("warning", None)
    silent = _camera(camera, report | {"reported_at": isoformat(utcnow() - timedelta(minutes=1))}, None)
    assert (silent.state, silent.fps) == ("offline", None)


def settings(folder: Path, **tree: Any) -> Settings:
    return load_settings(environ={}, overrides={"data_dir": str(folder)} | tree)


async def test_what_waits_for_long_and_who_is_switched_off_are_warnings(tmp_path: Path) -> None:
    results = await migrated(tmp_path)
    channels = [{"name": name, "url": "https://example.com/hook"} for name in ("fresh", "late", "new", "gone")]
    now = utcnow()
    for name, age in (("fresh", 1.0), ("late", LATE + 1)):
        at = now - timedelta(seconds=age)
        word: dict[str, Any] = {"alert_id": "", "channel": name, "payload": b"", "captured_at": at, "next_at": at}
        done = DeliveryRow(id=uuid7(), state="delivered", delivered_at=at, **word)
        await results.commit_alerts(state={}, alerts=[], deliveries=[done, DeliveryRow(id=uuid7(), **word)])
    off = msgspec.json.encode({"at": isoformat(now), "error": "410 Gone"})
    for name, address in (("gone", "hook"), ("new", "before")):  # the new one's address is another now
        await results.keep_state(off_state(name, f"https://example.com/{address}"), off, Action(what="channel.off"))
    told = await outlets(Outlets(settings(tmp_path, alerts={"channels": channels}), results), ANA)
    states = {each.name: (each.state, each.waiting, each.error) for each in told}
    assert states == {
        "log": ("unused", 0, ""), "fresh": ("ok", 1, ""), "late": ("warning", 1, ""), "new": ("unused", 0, ""),
        "gone": ("warning", 0, "410 Gone"),
    }  # fmt: skip
    await results.close()


async def test_storage_says_what_is_kept_and_held_when_it_is_full_and_who_backs_it_up(tmp_path: Path) -> None:
    results = await migrated(tmp_path)
    rules = [{"camera": "gate", "originals": "12h"}, {"label": "damaged", "min_score": 0.5, "results": "2y"}]
    here = settings(tmp_path, retention={"originals": "30d", "rules": rules})
    days = [{"day": "2026-03-03", "freed": 5, "removed": 1}, {"day": "2026-03-04", "freed": 0, "removed": 0}]
    report = {
        "at": "2026-03-04T12:00:00Z",
        "pictures": {"bytes": 10},
        "database": 20,
        "days": days,
        "forecast": {"full_on": "2026-09-01", "limit_on": None},
    }
    for number in range(HOLDS + 2):
        await results.place_hold(Hold(id=uuid7(), placed_at=utcnow(), site="north" if number % 2 else None, ref="x"))
    told = await storage(here, results, report, ANA)
    assert [(dict(each.which), each.originals, each.results) for each in told.kept] == [
        ({"camera": "gate"}, "12h", "ever"),
        ({"label": "damaged", "score": "0.5"}, "30d", "2y"),
        ({}, "30d", "ever"),
    ]
    assert told.let_go is not None
    assert (told.let_go["day"], told.full_on, told.limit_on) == ("2026-03-03", "2026-09-01", None)
    assert (len(told.holds), told.more_holds) == (HOLDS, 2)
    north = await storage(here, results, {}, Principal("ben", "operator", ("north",)))
    assert (len(north.holds), north.counted, north.let_go) == (HOLDS // 2 + 1, False, None)
    assert (told.backup.here, told.backup.at) == (True, None)
    last = LastBackup(at=isoformat(utcnow()), to="/srv/monday", blobs=3, bytes=4_000)
    await results.keep_state(LAST, msgspec.json.encode(last), Action(what="backup"))
    assert (await storage(here, results, report, ANA)).backup.to == "/srv/monday"
    cluster = settings(tmp_path, results={"url": "postgresql://eyeline@db/eyeline"})
    assert not (await storage(cluster, results, report, ANA)).backup.here
    await results.close()


def test_bytes_are_written_for_people() -> None:
    assert [size(count) for count in (0, 999, 1000, 12_345, 999_600, 3_400_000, 5e12)] == [
        "0 B", "999 B", "1 kB", "12.3 kB", "1 MB", "3.4 MB", "5 TB",
    ]  # fmt: skip

"""The shift report: what it says, that nothing in it is code, and that it is mailed once."""

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyeline.alerts.reports import ShiftReports
from eyeline.core.cases import Decision, Decisive
from eyeline.core.errors import StoreError
from eyeline.core.ids import derived_id, uuid7
from eyeline.core.settings import SiteSettings
from eyeline.core.types import Classification, Result
from eyeline.reports.page import csv_page, html_page
from eyeline.reports.shift import headline, offline, shift_report
from eyeline.stores.results.base import Action, AlertRow, DeliveryQuery, DeliveryRow, KeyRow, ResultStore
from tests.migrated import migrated

SITE = SiteSettings(name="north", timezone="Europe/Berlin", shifts=["06:00", "14:00", "22:00"])
#: 14:00 in Berlin.
BEGAN = datetime(2026, 1, 5, 13, tzinfo=UTC)
ENDED = BEGAN + timedelta(hours=8)
HOSTILE = '=<img src=x onerror="alert(1)">'


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ResultStore]:
    results = await migrated(tmp_path)
    yield results
    await results.close()


async def an_alert(
    store: ResultStore, minutes: float, what: Decisive | None = None, site: str = "north", **more: Any
) -> AlertRow:
    at = BEGAN + timedelta(minutes=minutes)
    alert = AlertRow(
        id=derived_id(at, str(minutes), str(what)),
        rule="dents",
        cause="{}",
        site=site,
        severity="critical",
        state="open",
        opened_at=at,
        last_at=at,
        count=1,
        result_id=uuid7(),
        body={"camera": HOSTILE},
    )
    await store.commit_alerts(state={}, alerts=[alert], deliveries=[])
    if what is not None:
        await store.decide(Decision(what=what, by="ana", at=at, **more), {alert.id: None})
    return alert


async def a_result(store: ResultStore, minutes: float, **fields: Any) -> None:
    at = BEGAN + timedelta(minutes=minutes)
    known: dict[str, Any] = {
        "id": derived_id(at, "result"),
        "status": "completed",
        "site": "north",
        "pipeline": "parcels",
        "camera": "belt-1",
        "captured_at": at,
        "received_at": at,
        "completed_at": at,
        "classifications": [Classification("damaged", 0.9, "damage")],
    }
    await store.save_many([Result(**{**known, **fields})])


async def a_report(store: ResultStore, *sites: str) -> dict[str, Any]:
    now = datetime.now(UTC) + timedelta(minutes=1)  # decisions are noted at the real time, so the report goes up to now
    return await shift_report(store, SITE, BEGAN, now, now, sites=sites or None)


async def test_a_report_counts_what_happened_and_hands_over_what_is_open(store: ResultStore) -> None:
    before = await an_alert(store, -600)
    await an_alert(store, 10, "resolve", disposition="false")
    await an_alert(store, 20, "resolve", disposition="real", note="torn open")
    await an_alert(store, 30, "resolve", disposition="test")
    standing = await an_alert(store, 40, "acknowledge", note=HOSTILE)
    await an_alert(store, 50, site="south")
    for minutes in (1, 2, 3):
        await a_result(store, minutes)
    await a_result(store, 4, status="failed", reason="corrupt: cut off", classifications=[])
    await a_result(store, -4)
    await store.record_action(Action(what="rule.put", by="ben", body={"name": "dents"}))
    await store.record_action(Action(what="verdict", by="ben"))
    report = await a_report(store)
    assert (report["results"]["completed"], report["results"]["failed"]) == (3, 1)
    assert report["results"]["by_label"] == {"damaged": 3}
    assert report["alerts"]["opened"] == 4
    assert report["alerts"]["dispositions"] == {"real": 1, "false": 1, "test": 1}
    assert report["alerts"]["false_share"] == 0.5
    assert {case["id"] for case in report["open"]} == {before.id, standing.id}
    assert sorted(note["note"] for note in report["notes"]) == sorted(["torn open", HOSTILE])
    assert [change["what"] for change in report["changes"]] == ["rule.put"]
    assert "3 images, 1 failed; 4 alerts, 2 not resolved, 50% false alarms" in headline(report)


async def test_changes_are_told_to_those_whose_sites_they_are_about_and_no_more_than_is_shown(
    store: ResultStore,
) -> None:
    secret = {"reason": "the works council asked"}
    for body in ({"site": "north"}, {"site": "south"}, {"site": None}):
        await store.record_action(Action(what="silence", by="ben", body=body | secret))
    await store.record_action(Action(what="model.tried_out", by="ben", body={"sites": ["north", "south"]} | secret))
    await store.record_action(Action(what="rule.put", by="ben", body={"name": "dents", "rule": secret}))
    await store.put_key(
        KeyRow(name="belt", sha256="0" * 64, role="ingest", sites=("north",), created_at=BEGAN), by="ben"
    )
    mine, all_of_it = [(await a_report(store, *sites))["changes"] for sites in (["north"], [])]
    assert [change["what"] for change in mine] == ["silence", "model.tried_out"]
    assert [change["what"] for change in all_of_it] == ["silence", "silence", "model.tried_out", "rule.put", "key"]
    assert all(change.keys() <= {"what", "by", "at", "name"} for change in [*mine, *all_of_it])


async def test_nothing_in_a_page_is_code_and_nothing_in_a_table_a_formula(store: ResultStore) -> None:
    await an_alert(store, 5, "note", note=HOSTILE)
    report = await a_report(store)
    page = html_page(report)
    assert "<img" not in page
    assert "&lt;img src=x" in page
    assert "<script" not in page
    cells = [cell for row in csv.reader(io.StringIO(csv_page(report))) for cell in row]
    assert "'" + HOSTILE in cells
    assert not [cell for cell in cells if cell.startswith(("=", "@"))]


def test_a_camera_is_offline_by_its_word_or_by_its_silence() -> None:
    said = {"site": "north", "reported_at": "2026-01-05T21:00:00Z", "state": "live"}
    cameras = {
        "well": said,
        "broken": said | {"state": "reconnecting"},
        "silent": said | {"reported_at": "2026-01-05T20:00:00Z"},
        "far": said | {"site": "south", "state": "reconnecting"},
    }
    found = offline(cameras, "north", datetime(2026, 1, 5, 21, 0, 30, tzinfo=UTC))
    assert [(each["camera"], each["state"]) for each in found] == [("broken", "reconnecting"), ("silent", "silent")]


class Clock:
    now = BEGAN + timedelta(hours=1)

    def __call__(self) -> datetime:
        return self.now


async def mailed(store: ResultStore) -> list[DeliveryRow]:
    return (await store.find_deliveries(DeliveryQuery(kind="report")))[0][::-1]


async def test_each_shift_is_mailed_once_and_not_before_its_end(store: ResultStore) -> None:
    clock = Clock()
    for _ in range(3):  # each a new start
        await ShiftReports([SITE], ["mail"], store, clock=clock).round()
    assert await mailed(store) == []
    clock.now = ENDED + timedelta(seconds=30)
    await ShiftReports([SITE], ["mail"], store, clock=clock).round()
    assert await mailed(store) == []  # late frames are waited for
    clock.now = ENDED + timedelta(seconds=61)
    for _ in range(3):
        await ShiftReports([SITE], ["mail", "boss"], store, clock=clock).round()
    rows = await mailed(store)
    assert sorted(row.channel for row in rows) == ["boss", "mail"]
    told = msgspec.json.decode((await store.get_delivery(rows[0].id)).payload)  # type: ignore[union-attr]
    assert told["text"].startswith("Shift report north, 2026-01-05 14:00 to 22:00 (Europe/Berlin)")
    clock.now += timedelta(hours=17)  # it was off for a while: what it missed comes now, one for each shift
    await ShiftReports([SITE], ["mail"], store, clock=clock).round()
    assert len(await mailed(store)) == 4
    clock.now += timedelta(days=30)  # too long ago to be read
    await ShiftReports([SITE], ["mail"], store, clock=clock).round()
    assert len(await mailed(store)) <= 8


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_around_the_commit_a_shift_is_mailed_once(store: ResultStore, after: bool) -> None:
    clock = Clock()
    await ShiftReports([SITE], ["mail"], store, clock=clock).round()
    clock.now = ENDED + timedelta(seconds=61)

    class Dying:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        async def commit_alerts(self, **kept: Any) -> None:
            if after:
                await store.commit_alerts(**kept)
            raise StoreError("the power is gone")

    dying: Any = Dying()
    with pytest.raises(StoreError):
        await ShiftReports([SITE], ["mail"], dying, clock=clock).round()
    await ShiftReports([SITE], ["mail"], store, clock=clock).round()
    assert len(await mailed(store)) == 1

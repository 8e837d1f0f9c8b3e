"""The gateway's pure parts: accounts, shifts over clock changes, cells, problems, hosts."""

import json
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.core.cells import safe_cell
from eyeline.core.errors import BackendError, BadImage, EyelineError, Overloaded, StoreError, Unauthorised
from eyeline.core.settings import SiteSettings
from eyeline.core.shifts import shift_end, shift_start
from eyeline.gateway.alerts import told
from eyeline.gateway.cameras import CameraReport, account
from eyeline.gateway.catalogue import site_now
from eyeline.gateway.front import _name
from eyeline.gateway.problem import problem_of
from eyeline.stores.results.base import AlertRow
from eyeline.stores.results.rows import alert_event

BERLIN = ZoneInfo("Europe/Berlin")
SHIFTS = ["06:00", "14:00", "22:00"]
counts = st.integers(0, 50)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("now", "began"),
    [
        (utc(2026, 1, 31, 4, 59), "2026-01-30T22:00:00+01:00"),
        (utc(2026, 1, 31, 5, 0), "2026-01-31T06:00:00+01:00"),
        (utc(2026, 1, 31, 20, 59), "2026-01-31T14:00:00+01:00"),
        (utc(2026, 3, 29, 0, 59), "2026-03-28T22:00:00+01:00"),  # the night of 23 hours
        (utc(2026, 3, 29, 4, 0), "2026-03-29T06:00:00+02:00"),
        (utc(2026, 10, 25, 0, 30), "2026-10-24T22:00:00+02:00"),  # the night of 25 hours
        (utc(2026, 10, 25, 4, 59), "2026-10-24T22:00:00+02:00"),
        (utc(2026, 10, 25, 5, 0), "2026-10-25T06:00:00+01:00"),
    ],
)
def test_a_shift_begins_by_the_clock_on_the_wall(now: datetime, began: str) -> None:
    found = shift_start(SHIFTS, BERLIN, now)
    assert found is not None
    assert found.isoformat() == began


def test_a_shift_in_the_hour_that_is_skipped_begins_when_the_clock_jumps() -> None:
    found = shift_start(["02:30"], BERLIN, utc(2026, 3, 29, 1, 30))
    assert found is not None
    assert found.isoformat() == "2026-03-29T03:30:00+02:00"


def test_a_shift_in_the_hour_that_comes_twice_begins_the_first_time() -> None:
    found = shift_start(["02:30"], BERLIN, utc(2026, 10, 25, 1, 15))
    assert found is not None
    assert found.isoformat() == "2026-10-25T02:30:00+02:00"


def test_a_site_without_shifts_has_none() -> None:
    assert site_now(SiteSettings(name="a"), utc(2026, 1, 1))["shift"] is None


@given(counts, counts, counts, counts, counts, counts)
def test_the_books_of_a_camera_balance_at_any_moment(
    accepted: int, dropped: int, spooled: int, in_hand: int, arrived: int, finished: int
) -> None:
    """A report, then `arrived` more jobs in the store than the report knows: still every frame once."""
    captured = accepted + dropped + spooled + in_hand
    report = CameraReport(captured, accepted, {"spool_full": dropped}, spooled, in_hand)
    jobs = accepted + arrived
    done = min(finished, jobs)
    books = account(report, {"completed": done, "failed": 0, "in_flight": jobs - done, "duplicates": 0})
    assert books.balance == 0
    assert min(books.captured, books.spooled, books.in_flight) >= 0
    assert books.captured >= captured


def test_a_lost_job_shows_in_the_balance() -> None:
    report = CameraReport(captured=10, accepted=10)
    assert account(report, {"completed": 7, "in_flight": 2}).balance == 1


def test_a_camera_that_never_reported_has_what_the_store_counts() -> None:
    assert account(None, {"completed": 3, "failed": 1, "in_flight": 2}).captured == 6


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_a_cell_is_never_a_formula(cell: str) -> None:
    assert safe_cell(cell) == "'" + cell


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BadImage("x", code="truncated"), 422, "truncated"),
        (Unauthorised("x"), 401, "unauthorised"),
        (Overloaded("x", retry_after=2.2), 429, "overloaded"),
        (StoreError("disk of /srv/x full"), 503, "unavailable"),
        (StoreError("no such table", transient=False), 500, "internal"),
        (BackendError("x"), 503, "unavailable"),
        (EyelineError("x"), 500, "internal"),
        (ZeroDivisionError("secret"), 500, "internal"),
    ],
)
def test_every_error_has_its_answer_and_ours_tell_nothing(error: Exception, status: int, code: str) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.code) == (status, code)
    told = msgspec.json.decode(problem.body())
    assert told["status"] == status
    if status >= 500:
        assert str(error) not in told["detail"] or len(str(error)) == 1


def test_a_refusal_rounds_its_wait_up() -> None:
    assert problem_of(Overloaded("x", retry_after=2.2)).headers == ((b"retry-after", b"3"),)


@pytest.mark.parametrize(
    ("host", "name"),
    [(b"LocalHost:8080", "localhost"), (b"[::1]:80", "::1"), (b"127.0.0.1", "127.0.0.1"), (b"", "")],
)
def test_the_port_is_no_part_of_the_host(host: bytes, name: str) -> None:
    assert _name(host) == name


@pytest.mark.parametrize(
    ("now", "ends"),
    [
        (utc(2026, 1, 5, 12), utc(2026, 1, 5, 13)),
        (utc(2026, 1, 5, 13), utc(2026, 1, 5, 21)),
        (utc(2026, 1, 5, 23), utc(2026, 1, 6, 5)),
        (utc(2026, 3, 28, 22), utc(2026, 3, 29, 4)),  # the night of the clock change is an hour shorter
    ],
)
def test_a_shift_ends_when_the_next_one_begins(now: datetime, ends: datetime) -> None:
    assert shift_end(SHIFTS, BERLIN, now) == ends
    assert shift_end([], BERLIN, now) is None


def test_an_alert_tells_its_cause_as_webhooks_do() -> None:
    now = utc(2026, 1, 1)
    alert = AlertRow(
        id="a",
        rule="dents",
        cause='{"camera":"belt-1"}',
        site="north",
        severity="warning",
        state="open",
        opened_at=now,
        last_at=now,
        count=1,
        result_id="r",
        body={"group": {"camera": "belt-1"}},
    )
    assert told(alert)["cause"] == {"camera": "belt-1"}
    assert json.loads(alert_event(alert, "t")["body"])["cause"] == {"camera": "belt-1"}

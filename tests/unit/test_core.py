"""The ground floor: ids, back-off, tables of backends, masking."""

import time
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest

from eyeline.core.clock import isoformat, parse_time
from eyeline.core.errors import ConfigError
from eyeline.core.ids import is_uuid, uuid7
from eyeline.core.registry import Registry
from eyeline.core.retry import backoff
from eyeline.core.telemetry import printable


def test_ids_are_version_seven_and_sort_by_the_time_they_were_made() -> None:
    made = [uuid7() for _ in range(5000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    parsed = uuid.UUID(made[0])
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert abs((parsed.int >> 80) / 1000 - time.time()) < 60


def test_only_canonical_uuids_count_as_ids() -> None:
    assert is_uuid(uuid7())
    assert not is_uuid("../etc/passwd")
    assert not is_uuid(uuid7().upper().replace("-", ""))


def test_backoff_grows_to_its_cap_and_is_never_immediate() -> None:
    for attempt in range(1, 40):
        ceiling = min(30.0, 0.5 * 2 ** (attempt - 1))
        assert all(ceiling / 10 <= backoff(attempt) <= ceiling for _ in range(20))


def test_an_unknown_scheme_lists_the_known_ones_and_the_nearest() -> None:
    table: Registry[object] = Registry("queue", {"sqlite": "x:Y", "redis": "x:Z"})
    with pytest.raises(ConfigError, match=r"'sqllite'; known: redis, sqlite\. Did you mean 'sqlite'"):
        table.load("sqllite")


def test_a_missing_driver_names_the_line_to_type() -> None:
    table: Registry[object] = Registry("queue", {"redis": "no_such_driver:Z"}, {"redis": "redis"})
    with pytest.raises(ConfigError, match=r"pip install 'eyeline\[redis\]'"):
        table.open("redis://h/0")


def test_times_are_written_in_utc_and_refused_without_an_offset() -> None:
    moment = datetime(2026, 3, 29, 3, 30, tzinfo=timezone(timedelta(hours=2)))
    assert isoformat(moment) == "2026-03-29T01:30:00.000000Z"
    assert parse_time(isoformat(moment)) == moment.astimezone(UTC)
    with pytest.raises(ValueError, match="no UTC offset"):
        parse_time("2026-03-29T01:30:00")


def test_control_characters_never_reach_a_terminal_or_a_log() -> None:
    assert printable("a\r\nb\x1b[31m\x9bc") == "a  b [31m c"
    assert len(printable("x" * 9999)) == 500

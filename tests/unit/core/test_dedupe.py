"""Duplicates keep their own identity and never cross sites."""

from datetime import UTC, datetime, timedelta

import pytest

from eyeline.core.dedupe import answer_key, duplicate, leader_key, plan_key
from eyeline.core.types import BlobRef, Classification, Job, Result

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def a_job() -> Job:
    return Job(
        id="two",
        site="north",
        pipeline="parcels",
        lane="live",
        blob=BlobRef("north/ab", 3, "ab"),
        received_at=NOON + timedelta(seconds=5),
        captured_at=NOON + timedelta(seconds=4),
        camera="belt-2",
        ref="order 7",
        meta={"shift": "late"},
    )


def a_result(**changes: object) -> Result:
    fields: dict[str, object] = {
        "id": "one",
        "status": "completed",
        "site": "north",
        "pipeline": "parcels",
        "captured_at": NOON,
        "received_at": NOON,
        "completed_at": NOON,
        "camera": "belt-1",
        "classifications": [Classification("apple", 0.9, "what")],
        "timings": {"decode": 0.003},
    }
    return Result(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_duplicate_has_its_own_id_camera_times_and_words() -> None:
    copy = duplicate(a_result(), a_job(), NOON + timedelta(seconds=6), {"total": 1.0})
    assert (copy.id, copy.camera, copy.ref, copy.meta) == ("two", "belt-2", "order 7", {"shift": "late"})
    assert (copy.captured_at, copy.received_at) == (a_job().captured_at, a_job().received_at)
    assert copy.completed_at == NOON + timedelta(seconds=6)
    assert copy.timings == {"total": 1.0}


def test_a_duplicate_has_the_answer_of_the_first() -> None:
    copy = duplicate(a_result(), a_job(), NOON)
    assert copy.classifications == a_result().classifications
    assert (copy.status, copy.duplicate_of) == ("completed", "one")


def test_a_duplicate_of_a_duplicate_names_the_first() -> None:
    assert duplicate(a_result(duplicate_of="zero"), a_job(), NOON).duplicate_of == "zero"


def test_a_failure_is_never_reused() -> None:
    with pytest.raises(ValueError, match="one is failed"):
        duplicate(a_result(status="failed"), a_job(), NOON)


def test_keys_never_cross_sites_bytes_or_plans() -> None:
    keys = {
        make(site, sha, plan)
        for make in (answer_key, leader_key)
        for site in ("a", "b")
        for sha in ("1", "2")
        for plan in ("x", "y")
    }
    assert len(keys) == 16
    assert plan_key("a") != plan_key("b")

"""Rules that people make, on every result store: every version is kept, nobody overwrites what they did not see."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from eyeline.stores.results import open_results
from eyeline.stores.results.base import ResultStore, RuleRow

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
async def store(results_url: str) -> AsyncIterator[ResultStore]:
    opened = open_results(results_url)
    await opened.upgrade()
    yield opened
    await opened.close()


def a_rule(version: int = 1, name: str = "damaged", **body: Any) -> RuleRow:
    return RuleRow(name=name, version=version, at=NOON, by="ana", body={"when": "score > 0.5", **body})


async def test_the_newest_version_of_each_rule_is_told_and_all_are_kept(store: ResultStore) -> None:
    first, second, other = a_rule(), a_rule(2, count=3), a_rule(name="dents")
    for row in (other, first, second):
        assert await store.add_rule(row)
    assert await store.rules() == [second, other]
    assert await store.rule_versions("damaged") == [second, first]
    assert await store.rule_versions("nothing") == []


async def test_a_version_that_is_there_is_not_overwritten(store: ResultStore) -> None:
    assert await store.add_rule(a_rule())
    done = await asyncio.gather(*(store.add_rule(a_rule(2, count=number)) for number in range(1, 5)))
    assert sorted(done) == [False, False, False, True]
    assert len(await store.rule_versions("damaged")) == 2
    assert len(await store.unsealed(10)) == 2


async def test_a_removed_rule_leaves_a_version_without_a_body(store: ResultStore) -> None:
    gone = RuleRow(name="damaged", version=2, at=NOON, by="ana", body=None)
    await store.add_rule(a_rule())
    await store.add_rule(gone)
    assert await store.rules() == [gone]


async def test_a_change_is_a_record_of_the_audit_and_an_event(store: ResultStore) -> None:
    await store.add_rule(a_rule())
    [record] = await store.unsealed(10, bodies=True)
    assert record.body is not None
    said = json.loads(record.body)
    assert (said["what"], said["by"], said["name"], said["rule"]) == (
        "rule.put",
        "ana",
        "damaged",
        {"when": "score > 0.5"},
    )
    [event] = await store.tail(0, 10)
    assert (event.kind, event.body["type"], event.body["name"], event.body["version"]) == (
        "system",
        "rule",
        "damaged",
        1,
    )

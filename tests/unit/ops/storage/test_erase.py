"""Erasure on request: what it tells beforehand, what is gone afterwards, and that the audit verifies."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from eyeline.core.dedupe import answer_key
from eyeline.core.errors import ConfigError
from eyeline.core.ids import uuid7
from eyeline.core.settings import RetentionSettings
from eyeline.ops.audit import trail
from eyeline.ops.storage import erase as erasing
from eyeline.ops.storage.erase import Scope, erase, look
from eyeline.ops.storage.words import found_words
from eyeline.stores.results.base import ResultQuery
from eyeline.stores.results.retaining import Hold
from tests.unit.ops.storage.site import DAY, START, Site, after, opened, run


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with opened(tmp_path) as made:
        with mock.patch.object(erasing, "utcnow", side_effect=lambda: made.now):
            yield made


async def test_looking_changes_nothing_and_says_what_it_would_be(site: Site) -> None:
    mine = [await site.take(camera="gate", ref="order-7") for _ in range(3)]
    await site.take(camera="dock", ref="order-8")
    await site.take(camera="gate", ref="order-9", unfinished=True)
    await site.results.place_hold(hold := Hold(id=uuid7(), placed_at=START, result=mine[0].id))
    found = await look(site.results, Scope(ref="order-7"))
    assert set(found.ids) == {mine[1].id, mine[2].id}
    assert (found.cameras, found.pictures, found.held) == ({"gate": 2}, 2, {hold.id: 1})
    assert (found.first, found.last, found.unfinished) == (START, START, 1)
    assert all([await site.has(each) for each in mine])
    words = "\n".join(found_words(found, done=False))
    assert "to erase: 2 results (gate 2)" in words
    assert f"stay: 1 results under the legal hold {hold.id}" in words
    assert "Nothing was changed" in words


def test_erasing_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match="erase what"):
        Scope().query()


@pytest.mark.parametrize(
    "scope",
    [{"ref": "order-7"}, {"camera": "gate"}, {"since": START + DAY, "until": START + 2 * DAY}],
    ids=["ref", "camera", "time"],
)
async def test_what_is_erased_is_in_no_store_and_the_chain_verifies(site: Site, scope: dict[str, Any]) -> None:
    stays = await site.take(camera="dock", ref="order-8")
    site.now = START + DAY
    gone = [await site.take(camera="gate", ref="order-7") for _ in range(3)]
    shared = await site.take(
        camera="gate", ref="order-7", picture=await site.picture(url(stays)), duplicate_of=stays.id
    )
    assert gone[0].image is not None
    await site.cache.set(answer_key("north", gone[0].image.sha256, "f"), b"order-7", ttl=1e6)
    await site.seal()
    keeper = site.keeper(RetentionSettings(originals="30d"))
    found = await look(site.results, Scope(**scope))
    assert await erase(site.results, site.cache, keeper, found, by="mia", reason="asked to") == 4
    assert [await site.has(each) for each in gone] == [False] * 3
    assert await site.has(stays)
    assert await site.cache.get(answer_key("north", gone[0].image.sha256, "f")) is None
    assert (await site.results.find(ResultQuery()))[0] == [await site.results.get(stays.id)]
    job = await site.results.get_job(shared.id)
    assert job is not None
    assert (job.job.ref, job.job.blob.url, job.status) == (None, "", "completed")
    assert (await look(site.results, Scope(**scope))).ids == []
    await site.seal()
    report = await trail.verify(site.results)
    assert (report.good, report.erased) == (True, 4)


async def test_evidence_of_what_is_erased_goes_too(site: Site) -> None:
    result = await site.take(ref="order-7")
    site.now = after(31)
    keeper = site.keeper(originals="30d")
    await run(keeper)
    assert len(await site.urls()) == 2
    site.now += timedelta(hours=1)
    await erase(site.results, site.cache, keeper, await look(site.results, Scope(ref="order-7")))
    assert await site.urls() == set()
    assert await site.results.picture(url(result)) is None


def url(result: Any) -> str:
    return f"{result.site}/{result.image.sha256}"

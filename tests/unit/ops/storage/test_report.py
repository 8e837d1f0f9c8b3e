"""The storage report: figures from what was counted, words, and a chart."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from eyeline.core.settings import RetentionSettings
from eyeline.core.types import Reuse
from eyeline.ops.storage.chart import bar, chart, headline, size
from eyeline.ops.storage.keeper import STOCK
from eyeline.ops.storage.report import storage_report
from eyeline.ops.storage.stock import Disk, Stock
from eyeline.ops.storage.words import told
from eyeline.stores.results.retaining import Tally
from tests.unit.ops.storage.site import START, Site, after, opened, run

TODAY = START.date() + timedelta(days=100)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with opened(tmp_path) as made:
        yield made


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - our own


def day(number: int) -> str:
    return (START.date() + timedelta(days=number)).isoformat()


async def test_what_was_saved_is_told_by_what_saved_it(site: Site) -> None:
    first = await site.take(timings={"infer": 0.5, "decode": 0.1, "queue": 3.0})
    picture = await site.picture(f"north/{first.image.sha256}") if first.image is not None else b""
    await site.take(picture=picture, duplicate_of=first.id)
    await site.take(camera="belt", duplicate_of=first.id, reuse=Reuse("near", 1.0, 5.0), timings={"decode": 0.1})
    await site.seal()
    site.now = after(8)
    await run(site.keeper(reencode="webp:30"))
    report = await storage_report(RetentionSettings(), site.results, site.now.date())
    assert report["saved"]["duplicates"] == {"images": 1, "bytes": len(picture), "seconds": 0.6}
    assert report["saved"]["near_duplicates"] == {"images": 1, "seconds": 0.5}
    assert {row["kind"]: row["images"] for row in report["saved"]["reencoding"]} == {
        "jpeg from belt": 1,
        "jpeg from uploads": 1,
    }
    assert all(row["after"] < 0.9 * row["before"] for row in report["saved"]["reencoding"])
    assert report["pictures"]["blobs"] >= 2
    assert report["pictures"]["bytes"] == sum(report["pictures"]["by_site"].values())
    assert report["database"] > 10_000
    assert 0 < report["disk"]["free"] < report["disk"]["total"]
    assert [row["images"] for row in report["days"]] == [3, 0]
    words = "\n".join(" ".join(row) for row in told(report, 0.02))
    assert "saved by encoding anew" in words
    assert "a million images" in words


async def grown(site: Site, *, free: int) -> None:
    """A hundred days of a gigabyte each, and a disk with so many bytes left."""
    rows = [
        Tally(day=day(number), what="received", kind="other", count=5000, bytes=10**9, seconds=500.0)
        for number in range(100)
    ]
    stock = Stock(
        at="2026-06-09T00:00:00Z", blobs=500_000, bytes=10**11, by_site={"north": 10**11}, database=10**9,
        disk=Disk(2 * 10**12, free),
    )  # fmt: skip
    await site.results.tally(rows, {STOCK: msgspec.json.encode(stock)})


async def test_the_disk_is_full_on_the_day_that_simple_reckoning_says(site: Site) -> None:
    await grown(site, free=30 * (10**9 + 10_000_000) + 100_000_000)
    report = await storage_report(RetentionSettings(), site.results, TODAY)
    told_on = report["forecast"]["full_on"]
    assert told_on in {(TODAY + timedelta(days=each)).isoformat() for each in (29, 30, 31)}
    assert headline(report) == f"disk full on {told_on}"
    assert report["per_million"]["bytes"] == 200 * 10**9
    assert report["per_million"]["seconds"] == 100_000
    assert report["per_million"]["gigabyte_months"] == pytest.approx(202 * 12, rel=0.01)
    root = parsed(chart(report))
    assert root.tag.endswith("svg")
    texts = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
    assert f"disk full on {told_on}" in texts
    assert "the disk is full" in texts


async def test_with_a_limit_the_originals_go_and_the_disk_never_is_full(site: Site) -> None:
    await grown(site, free=10**12)
    report = await storage_report(RetentionSettings(max_bytes=2 * 10**11), site.results, TODAY)
    assert report["forecast"]["full_on"] is None
    assert re.search("max_bytes reached on", headline(report))


async def test_an_empty_system_says_that_it_knows_nothing_yet(site: Site) -> None:
    report = await storage_report(RetentionSettings(), site.results, TODAY)
    assert headline(report).startswith("nothing to forecast yet")
    assert parsed(chart(report)).tag.endswith("svg")
    assert told(report, 0.0)[0][1] == "not counted yet"


def test_sizes_and_bars_are_for_people() -> None:
    assert [size(each) for each in (0, 999, 1000, 123_456, 9_990_000_000)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "123 kB",
        "10.0 GB",
    ]
    assert bar(3, 4, 8) == "██████░░ 75 % of 4 B".replace("75 %", "75%")

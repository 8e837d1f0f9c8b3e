"""What pages may weigh and how long they may hold the browser: bytes, and CPU time of single tasks by trace.

Times on the wall say how busy the machine is; a task's own CPU time does not. First paint is reported, not judged.
"""

import gzip
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, CDPSession, Page, expect

from eyeline.stores.results.review import Doubt
from tests.browsers import watched_page
from tests.dashboards import SITES, Site, cameras, dashboard, made_result, settings_of
from tests.web.conftest import PAGES

SCRIPTS, STYLES, MARKUP = 40_000, 12_000, 25_000  # bytes, compressed
THOUSAND_ROWS = 26_500  # of which their ids, which nothing compresses, are 16,000
LONGEST_TASK = 0.05  # seconds of CPU
#: Seconds of CPU until a wall of two hundred is first painted, and for a verdict until the next picture stands.
FIRST_PAINT, NEXT_PICTURE = 0.4, 0.1
ROWS, VERDICTS = 1000, 8
A_MINUTE = 300
SECONDS = 5
#: Of a wall that is on for long: bytes of its scripts' heap, the share of its nodes, and what a browser opens to one server.
GROWTH, NODES, CONNECTIONS = 2_000_000, 0.05, 7
TOGETHER = 50  # pictures that are kept at once


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two hundred cameras, each with a picture."""
    with dashboard(settings_of(tmp_path_factory.mktemp("wide"), sites=SITES, cameras=cameras(200))) as site:
        site.keep([made_result(camera.name, camera.site) for camera in site.settings.cameras])
        yield site


def _modules(client: httpx.Client, url: str, seen: dict[str, int]) -> None:
    """The size of a script and of all that it imports."""
    if url in seen:
        return
    text = client.get(url).text
    seen[url] = len(gzip.compress(text.encode()))
    for name in re.findall(r'^import [^;]*?"(\.[^"]+)"', text, re.MULTILINE | re.DOTALL):
        _modules(client, str(httpx.URL(url).join(name)), seen)


@pytest.mark.parametrize("path", sorted({visit.path.partition("?")[0] for visit in PAGES}))
def test_scripts_and_styles_of_a_page_stay_small(path: str, full: Site) -> None:
    with full.client() as client:
        page = client.get(path).text
        seen: dict[str, int] = {}
        for script in re.findall(r'<script[^>]* src="([^"]+)"', page):
            _modules(client, full.url + script, seen)
        styles = [len(gzip.compress(client.get(link).content)) for link in re.findall(r'href="([^"]+\.css)"', page)]
    assert sum(seen.values()) <= SCRIPTS
    assert sum(styles) <= STYLES


def test_a_wall_of_two_hundred_stays_small_as_markup(wide: Site) -> None:
    page = httpx.get(f"{wide.url}/", timeout=30)
    assert page.text.count('class="tile"') >= 200
    assert len(gzip.compress(page.content, 6)) <= MARKUP


CATEGORIES = ["disabled-by-default-devtools.timeline", "toplevel", "loading"]


@contextmanager
def traced(browser: Browser, page: Page, kept: Path) -> Iterator[list[float]]:
    """The CPU seconds of each task of the page's main thread, once the block has ended. The trace is kept there."""
    tasks: list[float] = []
    browser.start_tracing(page=page, path=str(kept), categories=CATEGORIES)
    yield tasks
    browser.stop_tracing()
    tasks += _tasks(json.loads(kept.read_text())["traceEvents"])
    assert tasks, "the trace holds no task of the page's main thread"


def test_no_task_holds_a_wall_of_two_hundred_up(
    browser: Browser, wide: Site, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with watched_page(browser, base_url=wide.url) as watched:
        page, kept = watched.page, tmp_path / "trace.json"
        with traced(browser, page, tmp_path / "first.json"):
            page.goto("/")
            expect(page.locator("#fresh")).to_have_attribute("data-state", "live")
        events = json.loads((tmp_path / "first.json").read_text())["traceEvents"]
        painted = max(event["ts"] for event in events if event.get("name") == "firstContentfulPaint")
        first = _tasks([event for event in events if event.get("ts", 0) <= painted])
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0")
        record_property("first contentful paint (ms)", paint)
        record_property("CPU until then (ms)", round(sum(first) * 1000))
        with traced(browser, page, kept) as tasks:
            deadline, sent = time.monotonic() + SECONDS, []
            for number in range(A_MINUTE * SECONDS // 60):
                sent.append(wide.result(f"belt-{1 + number % 200:02}").id)
                time.sleep(max(0.0, deadline - SECONDS + (number + 1) * 60 / A_MINUTE - time.monotonic()))
            expect(page.locator(f'.tile img[src*="{sent[-1]}"]')).to_have_count(1)
    record_property("longest task (ms of CPU)", round(max(tasks) * 1000, 1))
    record_property("tasks", len(tasks))
    assert sum(first) <= FIRST_PAINT
    assert [task for task in tasks if task > LONGEST_TASK] == [], f"the trace is kept at {kept}"


def test_a_thousand_rows_are_small_and_hold_nothing_up(
    browser: Browser, wide: Site, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    wide.keep([made_result(f"belt-{1 + number % 200:02}", "north") for number in range(ROWS)])
    page_of = f"/audit?limit={ROWS}"
    assert len(gzip.compress(httpx.get(f"{wide.url}{page_of}", timeout=30).content, 6)) <= THOUSAND_ROWS
    with watched_page(browser, base_url=wide.url) as watched:
        page = watched.page
        page.goto(page_of)
        expect(page.locator("#fresh")).to_have_attribute("data-state", "live")
        assert page.locator("tbody tr").count() >= ROWS
        with traced(browser, page, tmp_path / "trace.json") as tasks:
            for _ in range(5):
                page.keyboard.press("End")
                page.wait_for_timeout(100)
                page.keyboard.press("Home")
                page.wait_for_timeout(100)
    record_property("longest task (ms of CPU)", round(max(tasks) * 1000, 1))
    assert [task for task in tasks if task > LONGEST_TASK] == []


#: Milliseconds from a key to the frame in which the next picture stands.
PAINTED = """() => new Promise((done) => {
  const begun = performance.now();
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "y", bubbles: true, cancelable: true }));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun)));
})"""


def test_the_next_picture_stands_at_once_after_a_verdict(
    browser: Browser, wide: Site, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    waiting = [made_result(None, "north", pipeline=f"p{number}") for number in range(VERDICTS + 4)]
    wide.keep(waiting, doubts={one.id: Doubt(1.0, "low score") for one in waiting})
    with watched_page(browser, base_url=wide.url) as watched:
        page, took = watched.page, []
        page.goto("/review")
        page.wait_for_selector("#stage:not([hidden])")
        with traced(browser, page, tmp_path / "trace.json") as tasks:
            for _ in range(VERDICTS):
                page.wait_for_timeout(150)  # a person looks: meanwhile the next pictures are fetched
                shown = page.locator("#record").get_attribute("href")
                took.append(page.evaluate(PAINTED))
                assert page.locator("#record").get_attribute("href") != shown
        page.wait_for_selector("#saving[data-state=saved]")
    record_property("verdict to the next picture (ms), median and most", [sorted(took)[VERDICTS // 2], max(took)])
    record_property("CPU for a verdict (ms)", round(sum(tasks) / VERDICTS * 1000, 1))
    assert sum(tasks) / VERDICTS <= NEXT_PICTURE


def _tasks(events: list[dict[str, object]]) -> list[float]:
    """The CPU seconds of each task of renderers' main threads."""
    named = (event for event in events if event.get("name") == "thread_name")
    mains = {(event["pid"], event["tid"]) for event in named if "CrRendererMain" in str(event.get("args"))}
    return [
        float(str(event["tdur"])) / 1e6
        for event in events
        if str(event.get("name")).endswith("RunTask") and (event["pid"], event["tid"]) in mains and "tdur" in event
    ]


@pytest.mark.parametrize(
    "pictures", [TOGETHER, pytest.param(30 * A_MINUTE, marks=pytest.mark.soak)], ids=["short", "half an hour"]
)
def test_a_wall_does_not_grow(
    pictures: int, browser: Browser, wide: Site, record_property: Callable[[str, object], None]
) -> None:
    """Pictures come as fast as they can be kept: those of half an hour in some minutes. Every fifth raises an alert."""
    with watched_page(browser, base_url=wide.url) as watched:
        page = watched.page
        page.goto("/")
        expect(page.locator("#fresh")).to_have_attribute("data-state", "live")
        devtools = page.context.new_cdp_session(page)
        devtools.send("Performance.enable")

        def show(count: int) -> None:
            for first in range(0, count, TOGETHER):
                there = [wide.settings.cameras[number % 200] for number in range(first, min(count, first + TOGETHER))]
                made = [made_result(camera.name, camera.site) for camera in there]
                wide.keep(made)
                alert = [wide.alert(each) for each in made[::5]][-1]
            expect(page.locator(f'.tile a[href*="{made[-1].id}"]')).to_have_count(1)  # in the window or not
            expect(page.locator(f'.card[data-alert="{alert.id}"]')).to_have_count(1)

        show(200)  # every tile was changed, and beside the wall are as many alerts as there will be
        page.evaluate("globalThis.since = 'before'")
        before = _held(devtools)
        show(pictures)
        after = _held(devtools)
        assert page.evaluate("globalThis.since") == "before", "the page was loaded anew meanwhile"
        assert page.evaluate(SHARED) == 1
    streams = [
        each for each in psutil.Process().net_connections("tcp4") if each.laddr.port == wide.settings.gateway.port
    ]
    record_property("heap (bytes), nodes before and after", [before, after])
    assert after["JSHeapUsedSize"] - before["JSHeapUsedSize"] <= GROWTH
    assert abs(after["Nodes"] - before["Nodes"]) <= NODES * before["Nodes"]
    assert sum(each.status == psutil.CONN_ESTABLISHED for each in streams) <= CONNECTIONS


SHARED = """async () => {
  const { line } = await import(document.querySelector("script[type=module][src]").src.replace("boot.js", "bus.js"));
  return line.shared;
}"""


def _held(devtools: CDPSession) -> dict[str, float]:
    """What the page holds, once nothing is left that it let go."""
    devtools.send("HeapProfiler.collectGarbage")
    told = {each["name"]: each["value"] for each in devtools.send("Performance.getMetrics")["metrics"]}
    return {name: told[name] for name in ("JSHeapUsedSize", "Nodes")}

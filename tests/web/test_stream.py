"""The live stream in a real browser: cut, resumed, shared. A dead stream never looks like a quiet line."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browsers import AWAY, watched_page
from tests.dashboards import SITES, Site, cameras, dashboard, settings_of
from tests.system import until

#: Counts every event that reaches the page, by its number.
COUNT = """async () => {
  const { onEvents } = await import(document.querySelector("script[type=module][src]").src.replace("boot.js", "bus.js"));
  globalThis.told = [];
  onEvents((batch) => { for (const each of batch) if (each.kind === "result") globalThis.told.push(each.body.id); });
}"""


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Site]:
    with dashboard(settings_of(tmp_path, sites=SITES, cameras=cameras(2))) as site:
        yield site


def test_the_stream_says_at_once_that_it_is_alive_and_what_time_it_is(line: Site) -> None:
    with line.client() as client, client.stream("GET", "/v1/events", params={"every": 0.25}) as stream:
        lines = stream.iter_lines()
        told = [next(lines) for _ in range(6)]
    assert told[3] == "event: heartbeat"
    assert re.fullmatch(r'data: \{"at":"20\d\d-.*Z"\}', told[4])
    assert line.client().get("/v1/events", params={"every": 9}).status_code == 422


def test_a_cut_is_said_and_afterwards_nothing_is_lost_or_told_twice(browser: Browser, line: Site) -> None:
    with watched_page(browser, base_url=line.url) as watched:
        watched.allowed += AWAY
        page = watched.page
        page.goto("/")
        fresh = page.locator("#fresh")
        expect(fresh).to_have_attribute("data-state", "live")
        page.evaluate(COUNT)
        sent = [line.result("belt-01").id for _ in range(3)]
        until(lambda: page.evaluate("told.length") >= 3, 30, "3 events came")
        line.stop()
        expect(fresh).to_contain_text("Reconnecting")
        expect(page.locator(".stale-bar")).to_be_visible()
        sent += [line.result("belt-02").id for _ in range(5)]
        line.start()
        expect(fresh).to_have_attribute("data-state", "live")
        sent += [line.result("belt-01").id for _ in range(2)]
        until(lambda: page.evaluate("told.length") >= 10, 30, "10 events came")
        assert page.evaluate("told") == sent
        expect(page.locator('.tile[data-camera="belt-02"] img')).to_have_attribute("src", re.compile(sent[7]))


def test_two_tabs_share_one_connection(browser: Browser, line: Site) -> None:
    with watched_page(browser, base_url=line.url) as watched:
        first, second = watched.page, watched.page.context.new_page()
        for tab in (first, second):
            tab.goto("/")
            expect(tab.locator("#fresh")).to_have_attribute("data-state", "live")
            tab.evaluate(COUNT)
        shared = """async () => {
          const { line } = await import(document.querySelector("script[type=module][src]").src.replace("boot.js", "bus.js"));
          return line.shared;
        }"""
        sent = line.result("belt-01").id
        for tab in (first, second):
            until(partial(tab.evaluate, "told.length"), 30, "the event came")
            assert tab.evaluate("told") == [sent]
        assert second.evaluate(shared) == 2
        first.close()
        line.result("belt-01")
        until(lambda: second.evaluate("told.length") >= 2, 30, "2 events came")
        second.goto("/alerts")
        expect(second.locator("#fresh")).to_have_attribute("data-state", "live")


def test_a_page_without_scripts_can_be_read_filtered_and_acted_upon(browser: Browser, line: Site) -> None:
    row = line.alert(line.result("belt-01"), severity="critical")
    with watched_page(browser, base_url=line.url, java_script_enabled=False) as watched:
        page = watched.page
        page.goto("/")
        expect(page.locator('.tile[data-camera="belt-01"] img')).to_be_visible()
        page.get_by_label("Site").select_option("north")
        page.get_by_role("button", name="Apply").click()
        expect(page).to_have_url(re.compile("site=north"))
        page.goto(f"/alerts?alert={row.id}")
        page.get_by_role("button", name="False alarm").last.click()
        expect(page.locator("#detail")).to_contain_text("Resolved")
        expect(page.locator(".timeline")).to_contain_text("Resolved: false")
        page.get_by_role("button", name="Undo").click()
        expect(page.locator("#detail .status[data-f=status]")).to_contain_text("Open")

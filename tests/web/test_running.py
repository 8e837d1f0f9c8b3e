"""The whole system, `eyeline up` with bundled models, as a browser sees it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.benchmark.visible import Line, Receiver, desks, measure, prepare, receiving
from tests.browsers import watched_page
from tests.dashboards import parcel
from tests.system import RunningSystem, running_system, settings_for

PARCELS = [{"name": "find", "model": "parcel-finder"}, {"name": "damage", "model": "parcel-damage", "on": "find"}]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as serving:
        yield serving


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[RunningSystem]:
    folder = tmp_path_factory.mktemp("running")
    more = {"pipelines": [{"name": "parcels", "steps": PARCELS}], "alerts": {"channels": [receiver.channel]}}
    with running_system(folder, settings_for(folder / "data", folder / "models", more)) as running:
        yield running


def test_a_stranger_sees_boxes_and_an_alert_from_the_bundled_sample(browser: Browser, system: RunningSystem) -> None:
    with watched_page(browser, base_url=system.url) as watched:
        page = watched.page
        page.goto("/")
        steps = page.locator(".first__step")
        expect(steps).to_have_count(5)
        done = page.locator(".first__step", has_text="(done)")
        expect(done).to_have_count(2)  # a model; a channel
        page.get_by_role("button", name="Replay a sample").click()
        expect(page.locator(".tile rect.box").first).to_be_attached()
        expect(done).to_have_count(4)  # and a rule; an alert
        page.get_by_role("button", name="Stop the sample").click()
        page.get_by_role("link", name="the inbox").click()
        expect(page.locator("#detail-title")).to_contain_text("damaged parcel (sample)")
        page.goto("/rules")
        page.get_by_role("link", name="Change damaged parcel (sample)").click()
        page.locator("[name=severity]").select_option("info")
        page.get_by_role("button", name="Save", exact=True).click()
        page.get_by_role("link", name="Change damaged parcel (sample)").click()
        page.get_by_role("button", name="Remove").click()
        expect(page.locator("[data-rule]")).to_have_count(0)
        # somebody wanted it gone: the sample leaves it at that
        assert page.request.post("/samples/outbound/rule").json() == {"kept": False}
        assert page.request.get("/v1/rules").json()["rules"] == []


def test_how_long_a_frame_takes_to_the_wall_the_inbox_and_the_webhook_is_measured(
    browser: Browser, system: RunningSystem, receiver: Receiver
) -> None:
    """The long form, at three loads: `python -m tests.benchmark.visible`."""
    line = Line(system.url, [parcel()])
    prepare(line, receiver)
    with desks(browser, system.url) as pages:
        found = measure(line, receiver, pages, 300, 1.0)
    frames, shown = found.pop("frames"), found.pop("capture to the tile on the wall")
    assert 1 <= shown["of"] <= frames, "a tile shows the newest of the frames that come together"
    del found["load average"], found["refused"]
    assert {name: spread["of"] for name, spread in found.items()} == dict.fromkeys(found, frames)
    assert all(0 < spread["p50"] <= spread["p99"] for spread in [shown, *found.values()])

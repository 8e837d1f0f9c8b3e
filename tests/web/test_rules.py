"""Rules on their page: written as a sentence or in TOML, refused with the place, tried with pictures, saved, and then at work."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from playwright.sync_api import Browser, expect

from eyeline.alerts.expression import compile_condition
from eyeline.alerts.service import AlertService
from eyeline.core.clock import utcnow
from eyeline.dashboard.pages.rules import tree_of
from eyeline.dashboard.rules import carried, condition_of
from eyeline.stores.results import open_results
from eyeline.stores.results.base import AlertQuery
from eyeline.stores.results.search import parse
from tests.browsers import watched_page
from tests.dashboards import HOSTILE, Site
from tests.system import until


@contextmanager
def alert_engine(site: Site) -> Iterator[None]:
    """The alerts role beside the dashboard, in a thread of its own."""
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    began = threading.Event()

    async def work() -> None:
        ended = asyncio.Event()
        stop.append((asyncio.get_running_loop(), ended))
        began.set()
        await AlertService(site.settings.alerts, open_results(site.settings.results.url)).run(ended)

    thread = threading.Thread(target=lambda: asyncio.run(work()), daemon=True)
    thread.start()
    began.wait(10)
    try:
        yield
    finally:
        loop, ended = stop[0]
        loop.call_soon_threadsafe(ended.set)
        thread.join(20)


def test_a_rule_is_made_tried_saved_and_raises_an_alert(browser: Browser, full: Site) -> None:
    """All in the page, by somebody who makes two mistakes on the way."""
    full.result("belt-01")
    with watched_page(browser, base_url=full.url) as watched:
        page = watched.page
        watched.allowed.append("422")
        page.goto("/rules")
        assert page.locator("li[data-rule=filed]").get_by_text("from eyeline.toml").count() == 1
        assert page.locator("li[data-rule=filed] a").count() == 0
        page.get_by_role("link", name="New rule").click()
        page.get_by_label("Name", exact=True).fill("carton seen")
        page.locator("[name=label]").fill("carton")
        page.get_by_label("score at least").fill("0.8")
        expect(page.locator("[name=when]")).to_have_value("label == 'carton' and score >= 0.8")
        page.locator("[name=when]").fill("lable == 'carton' and score >= 0.8")
        page.get_by_label("tell log").check()
        page.route("**/v1/channels/log/test", lambda route: route.fulfill(json={"state": "delivered"}))
        page.get_by_role("button", name="Send a test to log").click()
        page.get_by_text("log took the test.").wait_for()
        page.get_by_role("button", name="Save", exact=True).click()
        wrong = page.get_by_role("alert").filter(has_text="was not taken")
        assert "did you mean 'label'?" in wrong.inner_text()
        assert "    ^^^^^" in wrong.locator("pre").inner_text()
        page.locator("[name=when]").fill("label == 'carton' and score >= 0.8")
        page.get_by_role("button", name="Try on the last 24 h").click()
        trial = page.locator("#trial")
        assert "It would have fired" in trial.inner_text()
        picture = trial.locator("img").first
        picture.scroll_into_view_if_needed()
        page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture.element_handle())
        assert page.locator(".rule__sentence").inner_text() == (
            "When an image shows label == 'carton' and score >= 0.8, raise warning and tell log."
        )
        page.get_by_role("button", name="Save", exact=True).click()
        page.wait_for_url("**/rules")
        assert page.locator("li[data-rule='carton seen']").count() == 1
    with alert_engine(full):
        full.result("belt-01")
        query = AlertQuery(rule="carton seen")
        until(lambda: bool(full.run(full.results.find_alerts(query))[0]), 60, "the rule raises an alert")
        with full.client() as client:
            assert "Engine checked" in client.get("/alerts").text
            assert client.get("/v1/alerts?limit=1").json()["checked_at"] is not None


def test_the_same_without_scripts_and_in_toml(full: Site) -> None:
    with httpx.Client(base_url=full.url) as client:
        text = '[[alerts.rules]]\nname = "rate"\nwhen = "label == \'dent\'"\nshare = 0.02\nof = 500\n'
        tried = client.post("/rules/edit", data={"do": "toml try", "toml": text})
        assert "When more than 2 % of the last 500 images show label == &#39;dent&#39;" in tried.text
        assert "It would not have fired." in tried.text
        assert ["data-unsaved" in page for page in (tried.text, client.get("/rules/edit").text)] == [True, False]
        broken = client.post("/rules/edit", data={"do": "toml save", "toml": "x ="})
        assert (broken.status_code, "the rule is no TOML" in broken.text) == (422, True)
        assert client.post("/rules/edit", data={"do": "toml save", "toml": text}).headers["location"] == "/rules"
        fields = {"name": "rate", "version": "1", "label": "dent", "share": "0.05", "of": "100", "by.camera": "on"}
        assert client.post("/rules/edit", data={"do": "save", **fields}).status_code == 303
        late = client.post("/rules/edit", data={"do": "save", **fields, "of": "200"})
        assert (late.status_code, "was changed meanwhile" in late.text) == (409, True)
        form = client.get("/rules/edit", params={"name": "rate"}).text
        assert "version 2" in form
        assert 'name="by.camera" value="on" checked' in form
        assert client.post("/rules/remove", data={"name": "rate", "version": "2"}).status_code == 303
        assert client.get("/rules/edit", params={"name": "rate"}).status_code == 404
        filed = client.get("/rules/edit", params={"name": "filed"})
        assert (filed.status_code, "from eyeline.toml" in filed.text) == (404, True)


def test_a_camera_is_silenced_for_a_while_and_told_of_again(full: Site) -> None:
    form = {
        "camera": "belt-02",
        "hours": "8",
        "reason": f"belt is cleaned {HOSTILE}",
        "weekly": "Sat 06:00-14:00, 22:00-06:00",
    }
    with full.client() as client:
        for wrong in (
            {"hours": "9"},
            {"hours": "", "weekly": ""},
            {"weekly": "Sat"},
            {"reason": " "},
            {"site": "south"},
        ):
            assert client.post("/rules/silences", data=form | wrong).status_code == 400, wrong
        assert client.post("/rules/silences", data=form).headers["location"] == "/rules#silences"
        [told] = [each for each in client.get("/v1/silences").json()["silences"] if each["camera"] == "belt-02"]
        assert (told["site"], told["rule"], told["weekly"]) == ("north", None, ["Sat 06:00-14:00", "22:00-06:00"])
        shown = client.get("/rules").text
        assert "north · belt-02" in shown
        assert HOSTILE not in shown
        assert "Sat 06:00-14:00 · eyeline.toml" in shown, "one of the settings is listed, to be read"
        assert f"/rules/silences/{told['id']}/end" in shown
        assert client.post("/rules/silences/nobody/end").status_code == 404
        assert client.post(f"/rules/silences/{told['id']}/end").status_code == 303
        assert "north · belt-02" not in client.get("/rules").text


@pytest.mark.parametrize(
    ("parts", "condition"),
    [
        ({"label": "it's", "score": "0.5"}, r"label == 'it\'s' and score >= 0.5"),
        ({"label": "a\\", "camera": "b"}, r"label == 'a\\' and camera == 'b'"),
        ({}, ""),
    ],
)
def test_a_condition_is_made_of_its_parts(parts: dict[str, str], condition: str) -> None:
    assert condition_of(parts) == condition


@pytest.mark.parametrize(
    ("search", "when", "left"),
    [
        ("label:dent score:<0.5 camera:dock-1", "label == 'dent' and score < 0.5 and camera == 'dock-1'", {}),
        ("camera:dock-* site:le*", "camera in ('dock-1', 'dock-2') and site == 'leeds'", {}),
        ("score:0.3..0.5 status:completed", "score >= 0.3 and score < 0.5 and status == 'completed'", {}),
        ('ref:"it\'s \\"7\\"" code:4006', "ref == 'it\\'s \"7\"' and '4006' in codes", {}),
        ("ref:PAL-* camera:none* pipeline:p", "pipeline == 'p'", {"ref:PAL-*": "begins", "camera:none*": "begins"}),
        (
            "verdict:rejected by:ana model:1.4.2 from:-2h until:2036-01-01",
            "",
            {"verdict:rejected": "judged", "by:ana": "judged", "model:1.4.2": "model", "from:-2h": "time"}
            | {"until:2036-01-01": "time"},
        ),
    ],
)
def test_a_search_becomes_a_condition_and_what_cannot_be_said_is_told(
    search: str, when: str, left: dict[str, str]
) -> None:
    made = carried(parse(search, utcnow()), sites={"leeds", "north"}, cameras=["dock-2", "dock-1", "belt"])
    assert (made.when, dict(made.left)) == (when, left)
    assert made.today == (("camera:dock-*", "site:le*") if "dock-*" in search else ())
    if when:
        compile_condition(when)


def test_empty_fields_say_nothing() -> None:
    form = {"name": "r", "when": " score > 0.5 ", "count": "", "by.label": "on", "notify.log": "on", "do": "save"}
    assert tree_of(form) == {"name": "r", "when": "score > 0.5", "by": ["label"], "notify": ["log"]}

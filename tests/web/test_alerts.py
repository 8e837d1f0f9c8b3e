"""The inbox in a real browser: every decision by key and by button, undone by a toast; nothing moves while it is read."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from pypdf import PdfReader

from eyeline.core.clock import isoformat, utcnow
from eyeline.dashboard.cases import alert_view
from eyeline.dashboard.pages.alerts import SPARK, grouped
from eyeline.stores.results.base import ENGINE_CHECKED, AlertHour, AlertRow, RuleRow
from tests.browsers import Watched, violations, watched_page
from tests.dashboards import HOSTILE, Site, made_alert, made_result


@pytest.fixture
def own(browser: Browser, full: Site) -> Iterator[Watched]:
    """A page that no other test gets: it keeps its clock."""
    with watched_page(browser, base_url=full.url) as watched:
        yield watched


def _open(watched: Watched, row: AlertRow) -> Page:
    watched.page.goto(f"/alerts?alert={row.id}")
    expect(watched.page.locator("#fresh")).to_have_attribute("data-state", "live")
    return watched.page


def _state(site: Site, row: AlertRow) -> tuple[str, str | None]:
    found = site.run(site.results.get_alert(row.id))
    assert found is not None
    return found.state, found.disposition


def test_from_seeing_to_acknowledged_is_one_key_and_back_is_another(page: Watched, full: Site) -> None:
    row = full.alert(full.result("belt-01"), severity="critical")
    shown = _open(page, row)
    status = shown.locator("#detail .status[data-f=status]")
    shown.keyboard.press("a")
    expect(status).to_contain_text("Acked")
    assert _state(full, row)[0] == "acknowledged"
    shown.keyboard.press("z")
    expect(status).to_contain_text("Open")
    assert _state(full, row)[0] == "open"
    shown.keyboard.press("e")
    shown.keyboard.press("f")
    expect(status).to_contain_text("Resolved")
    assert _state(full, row) == ("resolved", "false")
    expect(shown.locator(f'.alert[data-alert="{row.id}"]')).to_have_attribute("data-gone", "")


def test_buttons_notes_and_names_do_the_same(page: Watched, full: Site) -> None:
    row = full.alert(full.result("belt-02"), rule="glue")
    shown = _open(page, row)
    shown.locator("#note").fill("glue on the belt")
    page.allowed.append("401")
    shown.route("**/note", lambda route: route.fulfill(status=401, json={"detail": "sign in again"}))
    shown.locator("#note").press("Enter")
    expect(shown.locator("#toasts")).to_contain_text("Sign in in another tab")
    shown.unroute("**/note")
    shown.locator("#note").press("Enter")  # it stands there still
    expect(shown.locator(".toast").last).to_contain_text("Noted: glue")
    shown.keyboard.press("Escape")
    shown.keyboard.press("m")
    expect(shown.locator("#to")).to_be_focused()
    shown.locator("#to").fill("Ana")
    shown.locator("#acts").get_by_role("button", name="Assign").click()
    expect(shown.locator(".toast").last).to_contain_text("Assigned: glue")
    shown.locator("#acts").get_by_role("button", name="1 h").click()
    expect(shown.locator(".toast").last).to_contain_text("Snoozed: glue")
    shown.reload()
    expect(shown.locator(".timeline")).to_contain_text("Note: glue on the belt")
    expect(shown.locator("#detail")).to_contain_text("Ana looks after it")
    expect(shown.locator("#detail")).to_contain_text("silent until")


def test_an_alert_is_acknowledged_with_a_note_muted_and_opened_in_review_by_keys(page: Watched, full: Site) -> None:
    row = full.alert(full.result("belt-03"), rule=f"loud {HOSTILE}")
    shown = _open(page, row)
    shown.keyboard.press("Shift+A")
    shown.keyboard.type("it is the light again")
    shown.keyboard.press("Enter")
    expect(shown.locator("#detail .status[data-f=status]")).to_contain_text("Acked")
    shown.keyboard.press("Escape")
    shown.keyboard.press("Shift+M")
    shown.keyboard.type("the lamp is replaced at noon")
    shown.locator("#mute select").select_option("8")
    shown.keyboard.press("Tab")
    shown.locator("#mute button").press("Enter")
    expect(shown.locator(".toast").last).to_contain_text("Muted: loud")
    [silence] = [each for each in full.run(full.results.silences(utcnow())) if each.rule == row.rule]
    assert (silence.site, silence.camera, silence.reason) == (row.site, "belt-03", "the lamp is replaced at noon")
    assert silence.until is not None
    assert timedelta(hours=7) < silence.until - utcnow() <= timedelta(hours=8)
    shown.reload()
    expect(shown.locator(".timeline")).to_contain_text("Acknowledged: it is the light again")
    expect(shown.locator("#detail")).to_contain_text("the lamp is replaced at noon. What it sees is recorded")
    shown.get_by_role("button", name="Unmute").click()
    expect(shown.get_by_role("button", name="Unmute")).to_have_count(0)
    assert not [each for each in full.run(full.results.silences(utcnow())) if each.rule == row.rule]
    expect(shown.locator("#fresh")).to_have_attribute("data-state", "live")
    shown.keyboard.press("v")
    shown.wait_for_url(f"**/review?id={row.result_id}")


def test_a_rule_is_muted_by_a_form_which_wants_a_reason(full: Site) -> None:
    row = full.alert(full.result("belt-03"), rule="quiet")
    with full.client() as client:
        path = f"/alerts/{row.id}"
        for form in ({"reason": " ", "hours": "1"}, {"reason": "why not", "hours": "9999"}):
            assert client.post(f"{path}/mute", data=form).status_code == 400
        assert client.post(f"{path}/mute", data={"reason": HOSTILE, "hours": "1"}).status_code == 303
        [told] = [each for each in client.get("/v1/silences").json()["silences"] if each["rule"] == "quiet"]
        assert (told["reason"], told["camera"]) == (HOSTILE, "belt-03")
        shown = client.get("/alerts", params={"alert": row.id}).text
        assert (HOSTILE in shown, f'name="silence" value="{told["id"]}"' in shown) == (False, True)
        assert client.post(f"{path}/unmute", data={"silence": "nobody"}).status_code == 404
        assert client.post(f"{path}/unmute", data={"silence": told["id"]}).status_code == 303
        form = {f"id.{row.id}": "on", "action": "mute", "reason": "the same for all that are ticked", "hours": "8"}
        assert client.post("/alerts/actions", data=form).status_code == 303
        [many] = [each for each in client.get("/v1/silences").json()["silences"] if each["rule"] == "quiet"]
        assert (many["reason"], many["id"] == told["id"]) == (form["reason"], False)


def test_what_was_given_up_is_sent_again_by_a_form_and_what_came_through_shows_its_answer(full: Site) -> None:
    row = full.alert(full.result("belt-03"), rule="told")
    [told] = full.run(full.results.list_deliveries(row.id))
    with full.client() as client:

        def shown(**changes: Any) -> str:
            full.run(full.results.update_delivery(replace(told, **changes)))
            return client.get("/alerts", params={"alert": row.id}).text

        assert "202 queued as 7" in shown(state="delivered", answer="202 queued as 7")
        assert f'name="delivery" value="{told.id}"' not in shown()
        assert f'name="delivery" value="{told.id}"' in shown(state="failed", last_error="410: gone")
        path = f"/alerts/{row.id}/resend"
        assert client.post(path, data={"delivery": "another"}).status_code == 404
        assert client.post(path, data={"delivery": told.id}).status_code == 303
        assert client.post(path, data={"delivery": told.id}).status_code == 409
    assert full.run(full.results.list_deliveries(row.id))[0].state == "pending"


def test_an_engine_that_looks_no_more_is_not_taken_for_a_quiet_line(own: Watched, full: Site) -> None:
    """And what it measured, how its case ended, and what was given up, are on the page."""

    def checked(ago: float) -> None:
        at = isoformat(utcnow() - timedelta(seconds=ago)).encode()
        full.run(full.results.commit_alerts(state={ENGINE_CHECKED: at}, alerts=[], deliveries=[]))

    made = full.alert(full.result("belt-05"), rule="rate")
    row = replace(made, body={**made.body, "hit": {"label": "scratch", "share": 0.024, "of": 500}})
    [told] = full.run(full.results.list_deliveries(row.id))
    full.run(full.results.update_delivery(replace(told, state="failed", last_error="410: gone")))
    full.run(full.results.commit_alerts(state={}, alerts=[row], deliveries=[]))
    own.page.clock.install()
    checked(ago=600)
    shown = _open(own, row)
    engine = shown.locator("#engine")
    expect(engine).to_contain_text("▲ No engine has checked since")
    expect(shown.locator("#detail .facts")).to_contain_text("2.4 % of 500 images · scratch · 1 hit")
    shown.get_by_role("button", name="Send again").click()
    expect(shown.locator(".toast").last).to_contain_text("Sent again: log")
    assert full.run(full.results.list_deliveries(row.id))[0].state == "pending"
    checked(ago=2)
    shown.clock.run_for(11_000)
    expect(engine).to_contain_text("● Engine checked")
    over = {**row.body, "cleared_at": "2026-01-31T12:00:00Z", "cleared": "the share is 0.80%"}
    full.run(full.results.commit_alerts(state={}, alerts=[replace(row, body=over)], deliveries=[]))
    for part in (shown.locator(f'.alert[data-alert="{row.id}"]'), shown.locator("#detail")):
        expect(part.locator("[data-f=over]")).to_have_text("◇ Cleared 06:00:00")
    assert violations(shown, "main") == []


def test_the_rule_is_told_as_it_was_when_it_raised_the_alert(full: Site) -> None:
    result = full.result("belt-03")
    versions: list[tuple[int, dict[str, object]]] = [
        (2, {"when": "score > 0.25"}),
        (1, {"share": "?"}),
        (0, {"count": 3}),
    ]
    for version, (hours, body) in enumerate(versions, 1):
        at = result.captured_at - timedelta(hours=hours, minutes=-1)
        words = {"name": "changing", "when": "score > 0.5", **body}
        assert full.run(full.results.add_rule(RuleRow(name="changing", version=version, at=at, by="ana", body=words)))
    then = [
        full.alert(result, rule="changing", opened_at=result.captured_at - timedelta(minutes=ago)) for ago in (90, 30)
    ]
    then += [full.alert(result, rule="filed"), full.alert(result, rule="of nobody")]
    with full.client() as client:
        pages = [client.get("/alerts", params={"alert": row.id}).text for row in then]
    told = [re.findall(r"<dt>Rule</dt><dd>(.*?)</dd>", page) for page in pages]
    assert told[0] == ["When an image shows score &gt; 0.25, raise warning and tell nobody."]
    assert told[1] == ["score &gt; 0.5"], "what this release cannot read is told as it was kept"
    assert told[2] == [
        "When an image shows label == &#39;carton&#39; and score &gt;= 0.8, raise critical and tell nobody."
    ]
    assert told[3] == []


def test_a_group_shows_when_its_alerts_were_opened() -> None:
    now = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
    row = made_alert(made_result("belt-01", "north", at=now))
    since = now - timedelta(hours=SPARK - 1)
    hour = AlertHour(rule=row.rule, camera="belt-01", site="north", start=now.replace(minute=0), count=3)
    hours = [hour, replace(hour, start=hour.start - timedelta(hours=23), count=1), replace(hour, camera="belt-02")]
    [group] = grouped([alert_view(row)], hours, since)
    assert (group.hours[0], group.hours[-1], group.day) == (1, 3, 4)
    points = group.line.split()
    assert (len(points), points[0], points[1], points[-1]) == (24, "1.0,15.3", "5.1,22.0", "95.0,2.0")


def test_many_are_ticked_by_key_and_resolved_together(page: Watched, full: Site) -> None:
    rows = [full.alert(full.result("belt-04"), rule=f"many {number}", severity="critical") for number in range(3)]
    shown = _open(page, rows[0])
    for row in rows:
        shown.locator(f'.alert[data-alert="{row.id}"] .alert__open').focus()
        shown.keyboard.press("x")
    expect(shown.locator("#scope")).to_have_text("3 ticked on this page")
    shown.locator("#many").get_by_role("button", name="Test").click()
    expect(shown.locator(".toast").last).to_contain_text("Resolved: 3 alerts")
    assert [_state(full, row) for row in rows] == [("resolved", "test")] * 3
    expect(shown.locator("#many")).to_be_hidden()


def test_those_that_are_ticked_are_noted_assigned_and_snoozed_together(page: Watched, full: Site) -> None:
    rows = [full.alert(full.result("belt-04"), rule=f"together {number}", severity="critical") for number in range(2)]
    shown = _open(page, rows[0])

    def tick() -> None:
        for row in rows:
            shown.locator(f'.alert[data-alert="{row.id}"] .alert__open').focus()
            shown.keyboard.press("x")

    tick()
    shown.keyboard.press("n")
    expect(shown.locator("#many [name=note]")).to_be_focused()
    assert violations(shown, "#many") == []
    shown.keyboard.type("glue on both")
    shown.keyboard.press("Enter")
    expect(shown.locator(".toast").last).to_contain_text("Noted: 2 alerts")
    expect(shown.locator("#many")).to_be_hidden()
    shown.keyboard.press("Escape")
    tick()
    shown.keyboard.press("m")
    shown.locator("#many [name=to]").fill("Ana")
    shown.keyboard.press("Enter")
    expect(shown.locator(".toast").last).to_contain_text("Assigned: 2 alerts")
    shown.keyboard.press("Escape")
    tick()
    shown.locator("#many").get_by_role("button", name="15 min").click()
    expect(shown.locator(".toast").last).to_contain_text("Snoozed: 2 alerts")
    shown.keyboard.press("Escape")
    tick()
    shown.keyboard.press("Shift+M")
    shown.keyboard.type("both belts stand still")
    shown.keyboard.press("Enter")
    expect(shown.locator(".toast").last).to_contain_text("Muted: together 0, together 1")
    silenced = {each.rule: each for each in full.run(full.results.silences(utcnow()))}
    assert {silenced[row.rule].camera for row in rows} == {"belt-04"}
    shown.keyboard.press("z")
    expect(shown.locator(".toast").last).to_contain_text("Not muted any more: together 0, together 1")
    assert not {row.rule for row in rows} & {each.rule for each in full.run(full.results.silences(utcnow()))}
    for row in rows:
        found = full.run(full.results.get_alert(row.id))
        assert found is not None
        assert (found.state, found.assignee, found.snoozed_until is not None) == ("open", "Ana", True)
        noted = [each.body.get("note") for each in full.run(full.results.history(row.id)) if each.what == "note"]
        assert noted == ["glue on both"]


def test_who_changed_it_first_is_right(page: Watched, full: Site) -> None:
    row = full.alert(full.result("belt-04"), rule="twice")
    shown = _open(page, row)
    shown.keyboard.press("p")  # what others do does not reach this page now
    with full.client() as client:
        client.post(f"/v1/alerts/{row.id}/resolve", json={"disposition": "real"}).raise_for_status()
    page.allowed.append("409")
    shown.keyboard.press("a")
    expect(shown.locator(".toast").last).to_contain_text("Somebody changed this alert meanwhile")
    expect(shown.locator("#detail .status[data-f=status]")).to_contain_text("Resolved")
    assert _state(full, row) == ("resolved", "real")


def test_an_alert_is_printed_black_on_white_with_everything_that_is_known(page: Watched, full: Site) -> None:
    row = full.alert(full.result("belt-01"), rule="on paper")
    page.page.emulate_media(color_scheme="dark")
    shown = _open(page, row)
    printed = PdfReader(BytesIO(shown.pdf()))
    text = "".join(sheet.extract_text() for sheet in printed.pages)
    assert "on paper" in text
    assert row.id in text
    assert "Acknowledge" not in text, "buttons are no use on paper"
    shown.emulate_media(media="print", color_scheme="dark")
    assert shown.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"


def test_what_comes_waits_behind_a_pill_and_counts_in_the_title(page: Watched, full: Site) -> None:
    first = full.alert(full.result("belt-06"), rule="calm")
    shown = _open(page, first)
    order = shown.locator(".alert").evaluate_all("rows => rows.map(row => row.dataset.alert)")
    before = int(re.findall(r"\((\d+)\)", shown.title())[0])
    row = full.alert(full.result("belt-06"), rule="sudden", severity="critical")
    expect(shown.locator("#new")).to_have_text("1 new – show")
    expect(shown.locator("#alarm")).to_have_text("Critical: sudden, belt-06")
    assert f"({before + 1})" in shown.title()
    assert shown.locator(".alert").evaluate_all("rows => rows.map(row => row.dataset.alert)") == order
    shown.locator("#new").click()
    expect(shown.locator(f'.alert[data-alert="{row.id}"]').first).to_be_visible()

"""The inbox in a real browser: every decision by key and by button, undone by a toast; nothing moves while it is read."""

import re
from io import BytesIO

from playwright.sync_api import Page, expect
from pypdf import PdfReader

from eyeline.stores.results.base import AlertRow
from tests.browsers import Watched
from tests.dashboards import Site


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
    shown.locator("#note").press("Enter")
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


def test_who_changed_it_first_is_right(page: Watched, full: Site) -> None:
    row = full.alert(full.result("belt-05"), rule="twice")
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

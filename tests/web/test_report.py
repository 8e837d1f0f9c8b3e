"""The shift report in a browser: what stands on it, the shift before, and that it prints."""

import io

from playwright.sync_api import expect
from pypdf import PdfReader

from eyeline.core.cases import Decision
from eyeline.core.clock import utcnow
from eyeline.stores.results.base import AlertQuery
from tests.browsers import Watched
from tests.dashboards import HOSTILE, Site


def test_a_report_shows_what_is_handed_over_and_prints(full: Site, page: Watched) -> None:
    found, _ = full.run(full.results.find_alerts(AlertQuery(site="south", states=["open"], severity="warning")))
    note = Decision(what="note", by="Ana", at=utcnow(), note=f"glue on the belt {HOSTILE}")
    full.run(full.results.decide(note, {alert.id: None for alert in found[:1]}))
    browser = page.page
    browser.goto("/operations?site=south")
    browser.get_by_role("link", name="Shift report").click()
    browser.wait_for_url("**/report?site=south")
    expect(browser.get_by_role("heading", name="Shift report")).to_be_visible()
    expect(browser.get_by_role("cell", name="glue on the belt")).to_contain_text(HOSTILE)
    text = "".join(sheet.extract_text() for sheet in PdfReader(io.BytesIO(browser.pdf(format="A4"))).pages)
    assert "glue on the belt" in text
    assert "Shift before" not in text  # buttons are not printed
    browser.get_by_role("link", name="Shift before").click()
    expect(browser.get_by_text("0 alerts")).to_be_visible()
    browser.get_by_label("Site").select_option("north")
    browser.get_by_role("button", name="Show").click()
    expect(browser.locator("main")).to_contain_text("north, ")


def test_a_site_that_is_not_there_is_a_page_that_says_so(page: Watched) -> None:
    page.allowed.append("400")
    page.page.goto("/report?site=moon")
    expect(page.page.get_by_role("alert").first).to_contain_text("no site is called 'moon'")

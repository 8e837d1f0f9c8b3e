"""Every page, light and dark, wide and narrow: axe finds nothing to complain about; keys reach all of it, and it prints."""

from typing import Literal

import pytest
from playwright.sync_api import Page

from tests.browsers import Desk, violations
from tests.dashboards import Site
from tests.web.conftest import PAGES, Visit

Look = tuple[int, Literal["light", "dark"]]
#: Each width and each scheme once; `make soak` looks at all four.
SHORT: list[Look] = [(390, "dark"), (1440, "light")]
LONG: list[Look] = [*SHORT, (390, "light"), (1440, "dark")]
#: Controls that a key does not reach, or that do not show that they have the focus.
UNSEEN = """() => [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")]
  .filter((each) => each.checkVisibility({ visibilityProperty: true }) && !each.disabled && !each.closest("svg"))
  .filter((each) => {
    each.focus({ preventScroll: true });
    const { outlineStyle, outlineWidth } = getComputedStyle(each);
    return document.activeElement !== each || each.tabIndex < 0 || outlineStyle === "none" || parseFloat(outlineWidth) < 2;
  })
  .map((each) => each.outerHTML.slice(0, 120))"""
#: What stands on paper and is of use on a screen alone.
PRINTED = """() => [...document.querySelectorAll(".bar, .foot, .toasts, form, dialog")]
  .filter((each) => each.checkVisibility()).map((each) => each.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("looks", [SHORT, pytest.param(LONG, marks=pytest.mark.soak)], ids=["short", "long"])
@pytest.mark.parametrize("visit", PAGES, ids=lambda visit: visit.name)
def test_a_page_is_for_everyone(visit: Visit, looks: list[Look], desk: Desk, site_of: dict[str, Site]) -> None:
    site = site_of[visit.state if visit.state in site_of else "full"]
    found: list[str] = []
    with desk.lent(site.url) as watched:
        page = watched.page
        if visit.status >= 400:
            watched.allowed.append(str(visit.status))
        page.goto(visit.path)
        page.wait_for_selector("html[data-script=on]")
        for width, scheme in looks:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            found += [f"{scheme} {width}: {each['id']} {each['targets'][:3]}" for each in violations(page)]
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"the page is {wide} px wider than {width}"
        _walked(page)
        page.emulate_media(media="print")
        assert page.locator("h1").is_visible()
        assert page.evaluate(PRINTED) == []
    assert found == []


def _walked(page: Page) -> None:
    """By keys from the top: over the skip link to what the page is about, and then everything in turn."""
    page.evaluate("document.body.tabIndex = -1, document.body.focus()")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.evaluate(UNSEEN) == []

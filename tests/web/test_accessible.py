"""axe finds nothing to complain about: every page, light and dark, wide and narrow."""

from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from tests.browsers import watched_page
from tests.dashboards import Site
from tests.web.conftest import PAGES, Visit

Look = tuple[int, Literal["light", "dark"]]
#: Each width and each scheme once; `make soak` looks at the other two as well.
SHORT: list[Look] = [(1440, "light"), (390, "dark")]
LONG: list[Look] = [(1440, "dark"), (390, "light")]


@pytest.mark.parametrize("looks", [SHORT, pytest.param(LONG, marks=pytest.mark.soak)], ids=["short", "long"])
@pytest.mark.parametrize("visit", PAGES, ids=lambda visit: visit.name)
def test_axe_finds_nothing(visit: Visit, looks: list[Look], browser: Browser, site_of: dict[str, Site]) -> None:
    site = site_of[visit.state if visit.state in site_of else "full"]
    found: list[str] = []
    with watched_page(browser, base_url=site.url) as watched:
        page = watched.page
        if visit.status >= 400:
            watched.allowed.append(str(visit.status))
        page.goto(visit.path)
        page.wait_for_selector("html[data-script=on]")
        for width, scheme in looks:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            for violation in Axe().run(page).response["violations"]:
                targets = [node["target"] for node in violation["nodes"]][:3]
                found.append(f"{scheme} {width}: {violation['id']} {targets}")
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"the page is {wide} px wider than {width}"
    assert found == []

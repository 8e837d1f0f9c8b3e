"""Pages of people who read large text, or in colours of their own, which axe does not look at."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browsers import Desk, launched, watched_page
from tests.dashboards import CORRECTED, ITEM, Site

PAGES = (
    *("/", "/alerts", "/review", "/audit", f"/audit/{CORRECTED}", f"/items/{ITEM}", "/operations", "/rules/edit"),
    *("/system", "/report"),
)
#: Texts that reach out of what holds them, and controls that reach out of the window.
CUT = """() => {
  const aside = ".hidden-words, .skip, svg, .scroll-x, .clip, [data-f=boxes]";
  const seen = (each) => each.checkVisibility() && each.clientWidth > 0 && !each.closest(aside);
  const all = (names) => [...document.querySelectorAll(names)].filter(seen);
  const told = (what) => (each) => `${what}: ${each.outerHTML.slice(0, 80)}`;
  const cut = (each) => each.scrollWidth > each.clientWidth + 1 || each.scrollHeight > each.clientHeight + 2;
  const outside = (each) => {
    const place = each.getBoundingClientRect();
    return place.left < -1 || place.right > innerWidth + 1;
  };
  return [
    ...all("button, .button, h1, h2, h3, th, td, dt, label, .nav__link").filter(cut).map(told("cut")),
    ...all("button, .button, input, select, textarea").filter(outside).map(told("outside")),
  ];
}"""
#: Whether two elements differ in what people's own colours leave of their looks.
DIFFER = """([one, other]) => {
  const kept = ["color", "backgroundColor", "borderColor", "borderWidth", "outlineStyle", "outlineColor"];
  const looks = (selector) => {
    const style = getComputedStyle(document.querySelector(selector));
    return kept.map((name) => style[name]).join();
  };
  return looks(one) !== looks(other);
}"""
#: What is pressed, chosen or open, and what is not.
PAIRS = {
    "/": (("#boxes", "#doubtful"), ('.nav__link[aria-current="page"]', ".nav__link:not([aria-current])")),
    "/alerts": ((".alert__open[aria-current]", ".alert__open:not([aria-current])"),),
    "/operations": ((".button[aria-current]", ".page__head .button:not([aria-current])"),),
}


@pytest.fixture(scope="module")
def large(browser: Browser) -> Iterator[Desk]:
    """A browser of somebody who set its text to 200 %."""
    started = launched(browser.browser_type, "--blink-settings=defaultFontSize=32")
    yield Desk(started)
    started.close()


@pytest.mark.parametrize("path", PAGES)
def test_text_twice_as_large_is_neither_cut_nor_reaches_out_of_the_window(path: str, large: Desk, full: Site) -> None:
    with large.lent(full.url) as watched:
        page = watched.page
        page.goto(path)
        page.wait_for_selector("html[data-script=on]")
        assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") == 28
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"the page is {wide} px wider than its window"
        assert page.evaluate(CUT) == []


def test_in_colours_of_their_own_people_see_what_is_pressed_and_chosen(browser: Browser, full: Site) -> None:
    with watched_page(browser, base_url=full.url, forced_colors="active") as watched:
        page = watched.page
        for path, pairs in PAIRS.items():
            page.goto(path)
            page.wait_for_selector("html[data-script=on]")
            for pair in pairs:
                assert page.evaluate(DIFFER, pair), f"{path}: {pair[0]} looks like {pair[1]}"

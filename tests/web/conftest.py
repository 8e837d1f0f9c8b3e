"""What the browser's tests share: one browser, one running dashboard that is full, and one that is empty.

Where no Chromium is found they are skipped, and the last line of the run counts them and says how to install one; so
are pictures that another machine drew.
A new page is one more `Visit` in `PAGES`: it is then looked at by axe, printed, read without scripts and walked by keys.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browsers import INSTALL, Desk, Watched, chromium, launched
from tests.dashboards import (
    COMPARED,
    CORRECTED,
    FILED,
    HOSTILE,
    ITEM,
    SITES,
    Site,
    cameras,
    compare,
    dashboard,
    fill,
    settings_of,
)

#: The way out where pictures that are kept are not of this machine, or not of these pages any more.
ANEW = "make looks (and look at what it made)"
#: Why tests of this folder are skipped, by the way out that each says.
REASONS = {INSTALL: "need a browser", ANEW: "compare pixels with those of another machine"}

_skipped: dict[str, set[str]] = {way: set() for way in REASONS}


@dataclass(frozen=True)
class Visit:
    """A page as tests look at it: where it is, its heading, and whether it is the full, the empty or a broken one."""

    path: str
    heading: str
    state: str = "full"
    status: int = 200

    @property
    def name(self) -> str:
        return f"{self.path} {self.state}"


PAGES = (
    Visit("/", "Live"),
    Visit("/", "Live", "empty"),
    Visit("/?camera=nowhere", "Live"),
    Visit("/alerts", "Alerts"),
    Visit("/alerts", "Alerts", "empty"),
    Visit("/operations", "Operations"),
    Visit("/operations", "Operations", "empty"),
    Visit("/operations?range=nonsense", "This cannot be asked", "broken", 400),
    Visit("/models", "Models"),
    Visit(f"/models/compare/{COMPARED}", "Comparison"),
    Visit("/system", "System"),
    Visit("/system", "System", "empty"),
    Visit("/rules", "Rules"),
    Visit("/rules", "Rules", "empty"),
    Visit("/rules/edit?search=camera:belt-*+by:<img>", "New rule"),
    Visit("/rules/edit?name=nothing", "Not found", "missing", 404),
    Visit("/report", "Shift report"),
    Visit("/report", "Shift report", "empty"),
    Visit("/alerts?alert=nobody", "Not found", "broken", 404),
    Visit("/review", "Review"),
    Visit("/review", "Review", "empty"),
    Visit("/audit", "Audit"),
    Visit("/audit?view=gallery&q=site:north+score:<0.01", "Audit"),
    Visit("/audit?q=scroe:1", "Audit", status=400),
    Visit(f"/audit/{CORRECTED}?show=difference", "Record"),
    Visit(f"/items/{ITEM}", ITEM),
)


#: What takes longest begins first, so that no process works on alone at the end; the others follow by name.
LONGEST = ("accessible", "engineers", "running", "review", "budget", "alerts", "looks", "stream")

#: The rule that is filed, and a maintenance window.
ALERTS = {"rules": FILED, "silences": [{"reason": HOSTILE, "site": "north", "weekly": ["Sat 06:00-14:00"]}]}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium()
    with sync_playwright() as playwright:
        started = launched(playwright.chromium)
        yield started
        started.close()


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Six cameras, pictures, alerts. Tests add to it; nobody takes away."""
    folder = tmp_path_factory.mktemp("full")
    with dashboard(settings_of(folder, sites=SITES, cameras=cameras(6), alerts=ALERTS)) as site:
        fill(site)
        compare(site)
        yield site


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """As it is after the first start."""
    with dashboard(settings_of(tmp_path_factory.mktemp("empty"))) as site:
        yield site


@pytest.fixture(scope="session")
def desk(browser: Browser) -> Desk:
    """Where tests borrow pages."""
    return Desk(browser)


@pytest.fixture
def page(desk: Desk, full: Site) -> Iterator[Watched]:
    """A page for the full dashboard."""
    with desk.lent(full.url) as watched:
        yield watched


@pytest.fixture
def site_of(full: Site, empty: Site) -> dict[str, Site]:
    return {"full": full, "empty": empty}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


def pytest_runtest_logreport(report: Any) -> None:
    for way, tests in _skipped.items():
        if report.skipped and way in str(report.longrepr):
            tests.add(report.nodeid)


def pytest_unconfigure(config: pytest.Config) -> None:
    for way, tests in _skipped.items():
        if tests and not hasattr(config, "workerinput"):
            print(f"{len(tests)} tests {REASONS[way]} and were skipped: {way}")

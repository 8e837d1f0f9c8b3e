"""A real Chromium for tests: found, kept on this machine, and asked nothing that its pages did not do without a fault."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserType, ConsoleMessage, Dialog, Page, Request, Response, expect

expect.set_options(timeout=20_000)  # how long something takes says how busy the machine is

INSTALL = "apt-get install chromium (or name one with EYELINE_CHROMIUM)"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WIDTHS = (1440, 390)
#: How tests look at a page where they say nothing else.
AS_USUAL: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce"}
#: Only what is wrong comes back: all that axe looked at would be read three times on its way.
VIOLATIONS = """async (within) => {
  const found = await axe.run(within ?? document, { resultTypes: ["violations"] });
  return found.violations.map(({ id, nodes }) => ({ id, targets: nodes.map(({ target }) => target) }));
}"""
#: What a browser says by itself while its server is away.
AWAY = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET"]
#: Keeps a browser on this machine. A route would do so, too, but then nothing is cached, and every script of every page
#: goes through the test: twice the work for each page.
ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
HERE = re.compile(r"^(https?://(127\.0\.0\.1|localhost)(:\d+)?/|blob:|data:|about:)")


def chromium() -> str:
    """The program. Skips the test where there is none, but fails it where CI says that there must be one."""
    named = os.environ.get("EYELINE_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail(f"no Chromium on this machine: {INSTALL}")
    pytest.skip(f"no Chromium: {INSTALL}")


def launched(playwright: BrowserType, *words: str) -> Browser:
    """A browser that asks nobody but this machine."""
    return playwright.launch(executable_path=chromium(), args=["--no-sandbox", ALONE, *words])


@dataclass
class Watched:
    """A page and what went wrong in it. `allowed`: patterns of what a test brings about on purpose."""

    page: Page
    faults: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def check(self) -> None:
        wrong = [fault for fault in self.faults if not any(re.search(each, fault) for each in self.allowed)]
        assert wrong == []


def watch(page: Page) -> Watched:
    """Note what goes wrong in a page from now on."""
    watched = Watched(page)

    def said(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            watched.faults.append(f"console {message.type}: {message.text}")

    def asked(request: Request) -> None:
        if not HERE.match(request.url):
            watched.faults.append(f"left this machine: {request.url}")

    def answered(response: Response) -> None:
        if response.status >= 400:
            watched.faults.append(f"{response.status} {response.url}")

    def opened(dialog: Dialog) -> None:
        watched.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("console", said)
    page.on("request", asked)
    page.on("response", answered)
    page.on("pageerror", lambda error: watched.faults.append(f"error: {error}"))
    page.on("dialog", opened)
    return watched


def _opened(browser: Browser, **options: Any) -> Watched:
    context = browser.new_context(**(AS_USUAL | options))
    context.set_default_timeout(20_000)
    return watch(context.new_page())


@contextmanager
def watched_page(browser: Browser, **options: Any) -> Iterator[Watched]:
    """A fresh page. What would leave this machine is stopped and is a fault, as is any error; checked at the end."""
    watched = _opened(browser, **options)
    try:
        yield watched
        watched.check()
    finally:
        watched.page.context.close()


class Desk:
    """Lends pages as `watched_page` does, and the same one again for the same site, wiped in between: a new window that
    loads every script anew takes three times the work. Not for a test with a clock of its own, which a page keeps.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._back: dict[str, Watched] = {}

    @contextmanager
    def lent(self, url: str) -> Iterator[Watched]:
        """One with that address as its base. It does not come back from a test that fails."""
        watched = self._back.pop(url, None) or _opened(self._browser, base_url=url)
        try:
            yield watched
            watched.check()
            _wipe(watched, url)
        except BaseException:
            watched.page.context.close()
            raise
        self._back[url] = watched


def _wipe(watched: Watched, url: str) -> None:
    """Nothing is left of a test but what the browser cached."""
    page = watched.page
    for other in page.context.pages:
        if other is not page:
            other.close()
    page.unroute_all()
    page.goto("about:blank")
    devtools = page.context.new_cdp_session(page)
    devtools.send("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "all"})
    devtools.detach()
    page.context.clear_cookies()
    page.context.clear_permissions()
    page.context.set_offline(False)
    page.emulate_media(media="null", color_scheme="light", reduced_motion="reduce")
    page.set_viewport_size(AS_USUAL["viewport"])
    watched.faults.clear()
    watched.allowed.clear()


def violations(page: Page, within: str | None = None) -> list[dict[str, Any]]:
    """What axe finds wrong in a page or in a part of it: the rule, and what breaks it."""
    if not page.evaluate("'axe' in globalThis"):
        page.evaluate(Axe().axe_script)
    found: list[dict[str, Any]] = page.evaluate(VIOLATIONS, within)
    return found

"""A real Chromium for tests: found, kept on this machine, and asked nothing that its pages did not do without a fault."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, Response, expect

expect.set_options(timeout=20_000)  # how long something takes says how busy the machine is

INSTALL = "apt-get install chromium (or name one with EYELINE_CHROMIUM)"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WIDTHS = (1440, 390)
#: What a browser says by itself while its server is away.
AWAY = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET"]
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


@contextmanager
def watched_page(browser: Browser, **options: Any) -> Iterator[Watched]:
    """A fresh page. What would leave this machine is stopped and is a fault, as is any error; checked at the end."""
    context = browser.new_context(
        **({"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce"} | options)
    )
    context.set_default_timeout(20_000)
    context.route(lambda url: not HERE.match(url), lambda route: route.abort())
    watched = watch(context.new_page())
    try:
        yield watched
        watched.check()
    finally:
        context.close()

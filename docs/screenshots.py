"""Makes docs/images/*.webp from running systems: every page, as a browser shows it (`make screenshots`)."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

import eyeline

IMAGES = Path(__file__).parent / "images"
PATIENCE = 600.0
WIDE, NARROW = (1440, 900), (390, 844)
#: Of a long page so much is shown.
LONGEST = 1500
#: Pictures of a thing whose page is worth a look.
MANY = 3
#: Where files lie on the machine that makes the pictures is nobody's affair: page texts show the second instead of the first.
PLACES = {str(Path(eyeline.__file__).parent): "/opt/eyeline"}
PUT = """(places) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode())
    for (const [from, to] of Object.entries(places))
      texts.currentNode.data = texts.currentNode.data.replaceAll(from, to);
}"""
QUALITY = 72


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One picture. `whole`: all of a long page, not only a window of it; `scripts`: whether they run (the page of
    signing in leads away where nobody needs to); `act`: what is done there first.
    """

    name: str
    path: str
    size: tuple[int, int] = WIDE
    scheme: Literal["light", "dark"] = "light"
    whole: bool = False
    scripts: bool = True
    act: Callable[[Page], None] | None = None


def main() -> None:
    """A demo that found something, and a system that saw nothing yet."""
    program = os.environ.get("EYELINE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("no Chromium: apt-get install chromium (or name one with EYELINE_CHROMIUM)")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        PLACES[folder] = "/srv/eyeline"
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with demo(Path(folder) / "demo") as url:
            work(url)
            for shot in shots(url):
                take(browser, url, shot)
        with first(Path(folder)) as url:
            take(browser, url, Shot(name="first-run", path="/", act=replay))
        browser.close()


# ---------------------------------------------------------------- what is looked at
@contextmanager
def running(port: int, *words: str, cwd: Path | None = None) -> Iterator[str]:
    """An `eyeline …` of its own that answers under this address."""
    process = subprocess.Popen([sys.executable, "-m", "eyeline", *words], stdout=subprocess.DEVNULL, cwd=cwd)  # noqa: S603
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)


@contextmanager
def demo(folder: Path) -> Iterator[str]:
    """A demo that has raised alerts of both rules and has followed a damaged thing."""
    port = free_port()
    with running(port, "demo", "--for", "3600", "--port", str(port), "--dir", str(folder)) as url:
        until(lambda: len({alert["rule"] for alert in ask(url, "/v1/alerts")["alerts"]}) > 1, "alerts of two rules")
        until(lambda: damaged(url), "a damaged thing with a code")
        yield url


@contextmanager
def first(folder: Path) -> Iterator[str]:
    """A system as it is after its first start."""
    port = free_port()
    settings = f'[gateway]\nport = {port}\n[inference]\nurl = "http://127.0.0.1:{free_port()}"\n'
    (folder / "eyeline.toml").write_text(settings)
    with running(port, "up", "--config", "eyeline.toml", cwd=folder) as url:
        until(lambda: "parcels" not in ask(url, "/readyz")["pipelines_not_ready"], "a system that is ready")
        yield url


def damaged(url: str) -> str | None:
    """The code of a thing that was seen several times and was damaged."""
    items = ask(url, "/v1/items?limit=200")["items"]
    for code in dict.fromkeys(code for item in items if "damaged" in item["labels"] for code in item["codes"]):
        told = ask(url, f"/v1/items/{quote(code, safe='')}")
        if told["first_damage"] and len(told["entries"]) > MANY:
            return str(code)
    return None


def work(url: str) -> None:
    """What an operator does in half an hour: alerts are judged, pictures are reviewed."""
    decisions: tuple[tuple[str, object], ...] = (
        ("note", {"note": "Taken off the belt; the chute upstream is looked at."}),
        ("resolve", {"disposition": "real"}),
        ("resolve", {"disposition": "false"}),
        ("acknowledge", {}),
    )
    alerts = sorted(ask(url, "/v1/alerts?limit=50")["alerts"], key=lambda alert: str(alert["severity"]))
    for alert, (what, body) in zip(alerts, decisions, strict=False):
        ask(url, f"/v1/alerts/{alert['id']}/{what}", body)
    for entry, kind in zip(ask(url, "/v1/review?limit=3")["review"], ("confirmed", "rejected"), strict=False):
        ask(url, f"/v1/results/{entry['result']['id']}/verdicts", {"kind": kind})


def shots(url: str) -> list[Shot]:
    """Every page; the main ones dark and narrow, too."""
    found = ask(url, "/v1/results?label=damaged&limit=1")["results"][0]["id"]
    pages = {
        "live": "/",
        "alerts": "/alerts",
        "review": "/review",
        "record": f"/audit/{found}",
        "operations": "/operations",
    }
    return [
        *(Shot(name=f"{name}-narrow", path=pages[name], size=NARROW) for name in ("live", "alerts", "review")),
        *(Shot(name=name, path=path) for name, path in pages.items()),
        *(Shot(name=f"{name}-dark", path=path, scheme="dark") for name, path in pages.items()),
        Shot(name="audit", path="/audit?q=label:damaged"),
        Shot(name="audit-gallery", path="/audit?view=gallery"),
        Shot(name="item", path=f"/items/{quote(damaged(url) or '', safe='')}"),
        Shot(name="rules", path="/rules"),
        Shot(name="rule", path="/rules/edit", whole=True, act=try_a_rule),
        Shot(name="report", path="/report?site=south", whole=True),
        Shot(name="models", path="/models"),
        Shot(name="system", path="/system", whole=True),
        Shot(name="login", path="/login", scripts=False),
    ]


def try_a_rule(page: Page) -> None:
    """As somebody who wants to hear of what is seen again and again."""
    page.locator("[name=name]").fill("damaged, thrice in five")
    page.locator("[name=label]").fill("damaged")
    page.locator("[name=score]").fill("0.9")
    page.locator("[name=count]").fill("3")
    page.locator("[name=of]").fill("5")
    page.locator("[name=cooldown]").fill("10s")
    page.locator("button[value=try]").click()
    page.wait_for_selector("#trial")


def replay(page: Page) -> None:
    """The sample, until its alert is there."""
    page.locator("#replay").click()
    page.wait_for_selector("#rail .card")
    page.locator("#replay").click()


# ---------------------------------------------------------------- how
def take(browser: Browser, url: str, shot: Shot) -> None:
    """One picture of it."""
    width, height = shot.size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=shot.scheme, java_script_enabled=shot.scripts
    )
    context.set_default_timeout(120_000)  # the demo takes what the machine has
    page = context.new_page()
    page.goto(url + shot.path)
    if shot.scripts:
        page.wait_for_selector("html[data-script=on]")
    if shot.act:
        shot.act(page)
    page.wait_for_timeout(3000)  # pictures come, ages count
    if shot.scripts:
        page.evaluate(PUT, PLACES)
    image = Image.open(io.BytesIO(page.screenshot(full_page=shot.whole))).convert("RGB")
    context.close()
    target = IMAGES / f"{shot.name}.webp"
    image.crop((0, 0, width, min(image.height, LONGEST))).save(target, quality=QUALITY, method=6)
    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB", flush=True)  # noqa: T201 - a program's answer


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
        except OSError:  # it starts
            pass
        if time.monotonic() > deadline:
            sys.exit(f"not within {PATIENCE:.0f} s: {what}")
        time.sleep(1)


def ask(url: str, path: str, body: object = None) -> Any:
    """GET, or POST where there is a body. A refusal that has a body is an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(url + path, data=data, headers={"Content-Type": "application/json"})  # noqa: S310 - our own address
    try:
        with urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)
    except HTTPError as error:
        return json.load(error)


if __name__ == "__main__":
    main()

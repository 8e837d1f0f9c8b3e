"""Makes docs/images/*.png from the running demo: every room of the dashboard, as a browser shows it (`make screenshots`)."""

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
TOKENS = Path(__file__).parents[1] / "src" / "eyeline" / "dashboard" / "static" / "css" / "tokens.css"
PATIENCE = 240.0
WIDE, NARROW = (1440, 900), (390, 844)
LARGEST = 150_000
_COLOUR = re.compile(r"#([0-9a-f]{6})")


def main() -> None:
    """Start the demo, wait until something was found, and look at it."""
    program = os.environ.get("EYELINE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("no Chromium: apt-get install chromium (or name one with EYELINE_CHROMIUM)")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, demo(Path(folder) / "demo") as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name, path in rooms(url):
            picture(browser, url + path, name, WIDE, "light")
        picture(browser, f"{url}/", "live-dark", WIDE, "dark")
        picture(browser, f"{url}/", "live-narrow", NARROW, "light")
        browser.close()


@contextmanager
def demo(folder: Path) -> Iterator[str]:
    """A demo that has raised a critical alert."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "eyeline", "demo", "--for", "3600", "--port", str(port), "--dir", str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE
        while "critical" not in _read(f"{url}/v1/alerts"):
            if time.monotonic() > deadline or process.poll() is not None:
                sys.exit("the demo raised no critical alert; see what `eyeline demo` says")
            time.sleep(1)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def rooms(url: str) -> list[tuple[str, str]]:
    """The rooms of the navigation."""
    return [
        (name, path) for path, name in re.findall(r'class="nav__link[^"]*" href="([^"]+)" data-nav="(\w+)"', _read(url))
    ]


def picture(browser: Browser, url: str, name: str, size: tuple[int, int], scheme: str) -> None:
    """One screenshot, with few enough colours to be small."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    context.set_default_timeout(120_000)  # the demo takes what the machine has
    page: Page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#fresh[data-state=live]")
    page.wait_for_timeout(3000)  # pictures come, ages count
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    context.close()
    target = IMAGES / f"{name}.png"
    for colours in (160, 96, 64, 40, 24):
        shot.quantize(palette=palette(shot, colours), dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size <= LARGEST:
            break
    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")  # noqa: T201 - a program's answer


def palette(shot: Image.Image, colours: int) -> Image.Image:
    """So many colours of the photographs, and all of ours: those mean something and must stay what they are."""
    fixed = [int(code[at : at + 2], 16) for code in _COLOUR.findall(TOKENS.read_text()) for at in (0, 2, 4)]
    found = (shot.quantize(colours).getpalette() or [])[: 3 * colours]
    made = Image.new("P", (1, 1))
    made.putpalette(fixed + found)
    return made


def _read(url: str) -> str:
    try:
        with urlopen(url, timeout=10) as answer:  # noqa: S310 - our own address
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


if __name__ == "__main__":
    main()

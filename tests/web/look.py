"""How the pages look: which pictures are kept, how one is taken, how two are compared. `make looks` makes them anew.

Pixels are those of a machine: its Chromium, its fonts. So a sheet of everything that a machine draws in its own way, in
styles of its own, is kept as well: where that looks otherwise, the pages cannot be compared.
"""

import base64
import io
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browsers import launched, watched_page
from tests.dashboards import CORRECTED, ITEM
from tests.web.still import NOW, Still, drawn, standing_still

KEPT = Path(__file__).parent / "looks"
#: Where tests leave what looked otherwise, and in what.
OTHERWISE = Path(__file__).parents[2] / ".looks"
WIDE, NARROW, SHEET = (1440, 900), (390, 844), (794, 1123)
#: A pixel differs where a channel does by more than this. Measured on a busy machine, three times: edges of letters and
#: icons differ by 1 or 2, in under 0.003 % of the pixels; the page and the panels on it are 9 apart.
LEVEL = 4
#: So large a share of a picture may differ. The most that was measured is 0.0005 %: corners of scaled pictures, by up to 23.
TOLERANCE = 0.001

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Look:
    """One picture of a page. `first`: of the system after its first start; `scripts`: whether they run (the page of signing
    in leads away where nobody needs to).
    """

    name: str
    path: str
    size: tuple[int, int] = WIDE
    scheme: Literal["light", "dark"] = "light"
    media: Literal["screen", "print"] = "screen"
    first: bool = False
    scripts: bool = True


RECORD = f"/audit/{CORRECTED}"
LOOKS = (
    Look(name="live", path="/"),
    Look(name="live-dark", path="/", scheme="dark"),
    Look(name="live-narrow", path="/", size=NARROW),
    Look(name="first-run-dark", path="/", scheme="dark", first=True),
    Look(name="alerts", path="/alerts"),
    Look(name="alerts-narrow-dark", path="/alerts", size=NARROW, scheme="dark"),
    Look(name="review-dark", path="/review", scheme="dark"),
    Look(name="review-narrow", path="/review", size=NARROW),
    Look(name="audit", path="/audit"),
    Look(name="audit-gallery-dark", path="/audit?view=gallery", scheme="dark"),
    Look(name="record", path=f"{RECORD}?show=difference"),
    Look(name="record-print", path=RECORD, size=SHEET, scheme="dark", media="print"),
    Look(name="item-dark", path=f"/items/{ITEM}", scheme="dark"),
    Look(name="operations", path="/operations"),
    Look(name="operations-narrow-dark", path="/operations", size=NARROW, scheme="dark"),
    Look(name="models", path="/models"),
    Look(name="rule-narrow", path="/rules/edit", size=NARROW),
    Look(name="system-dark", path="/system", scheme="dark"),
    Look(name="report", path="/report?site=south"),
    Look(name="login-narrow-dark", path="/login", size=NARROW, scheme="dark", scripts=False),
)

#: What a machine draws in its own way: text in every font, size and weight, the browser's controls, lines, a photograph.
PROBE = """<!doctype html><style>
body { margin: 8px; font: 14px/20px system-ui, sans-serif; font-variant-numeric: tabular-nums; color: #16191d }
b { font-weight: 600 } code { font: 12px ui-monospace, "DejaVu Sans Mono", monospace }
i { display: inline-block; width: 90px; height: 20px; border: 2px dashed #8f5a00; border-radius: 6px }
</style>
%s <code>0198f000-c0de</code> <p>● Live ◆ Review ▲ Alert ○ Offline ✓ ≠ × ÷ – · … “‘’” →</p>
<i></i> <button>Confirm</button> <input value="12.5" type="number"> <input type="checkbox" checked>
<select><option>critical</select> <meter value="0.4"></meter> <input type="password" value="secret">
<svg width="120" height="40"><path d="M2 30 40 8l30 20 48-24" fill="none" stroke="#6a3d9a" stroke-width="2"
stroke-dasharray="6 3"/><text x="40" y="38" font-size="12">81 ms</text></svg>
<img width="199" src="data:image/jpeg;base64,%s">"""
SIZES = (10, 11, 12, 13, 14, 16, 20, 24)
#: What a page shows once a second it shows at once when its reader comes back to it. Pictures below are loaded, too.
COMPLETE = """async () => {
  const fresh = document.getElementById("fresh");
  document.dispatchEvent(new Event("visibilitychange"));
  if (fresh && fresh.dataset.state !== "live") return false;
  if (document.querySelector(".chart:not(:has(svg, table))")) return false;
  for (const image of document.images) image.loading = "eager";
  await Promise.all([...document.images].map((image) => image.decode()));
  return true;
}"""


class Eye:
    """Takes pictures of pages that stand still."""

    def __init__(self, page: Page, bare: Page, site: Still) -> None:
        self._page = page
        self._bare = bare  # no scripts run there
        self._site = site

    def take(self, look: Look) -> Pixels:
        """The whole page, when all of it is there."""
        page, (width, height) = self._page if look.scripts else self._bare, look.size
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=look.scheme, media=look.media)
        page.goto((self._site.first if look.first else self._site.full) + look.path)
        if look.scripts:
            page.wait_for_selector("html[data-script=on]")
            page.wait_for_function(COMPLETE)
        return self.again(look)

    def again(self, look: Look) -> Pixels:
        """The page that was taken last, as it is now."""
        return shot(self._page if look.scripts else self._bare)


@contextmanager
def eye(browser: Browser, site: Still) -> Iterator[Eye]:
    """One for all pictures: their pages share what is loaded once."""
    same = {"timezone_id": "UTC", "locale": "en-GB"}
    with watched_page(browser, **same) as page, watched_page(browser, **same, java_script_enabled=False) as bare:
        page.page.clock.set_fixed_time(NOW)
        yield Eye(page.page, bare.page, site)


def shot(page: Page) -> Pixels:
    """What a page shows, all of its length."""
    data = page.screenshot(full_page=True, animations="disabled", caret="hide")
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def probe(browser: Browser) -> Pixels:
    """How this machine draws."""
    lines = "".join(f'<p style="font-size: {size}px">Damaged parcel 0.93 <b>Résumé 0.93</b></p>' for size in SIZES)
    with watched_page(browser, viewport={"width": 640, "height": 480}) as watched:
        watched.page.set_content(PROBE % (lines, base64.b64encode(drawn()).decode()))
        return shot(watched.page)


def different(one: Pixels, other: Pixels) -> NDArray[np.bool_]:
    """The pixels that differ, those that only one of them has among them."""
    height, width = (min(sides) for sides in zip(one.shape[:2], other.shape[:2], strict=True))
    found = np.ones([max(sides) for sides in zip(one.shape[:2], other.shape[:2], strict=True)], dtype=np.bool_)
    apart = np.abs(one[:height, :width].astype(np.int16) - other[:height, :width])
    found[:height, :width] = apart.max(axis=2) > LEVEL
    return found


def marked(pixels: Pixels, where: NDArray[np.bool_]) -> Pixels:
    """A pale picture with those pixels in red."""
    pale = np.full((*where.shape, 3), 255, dtype=np.uint8)
    pale[: pixels.shape[0], : pixels.shape[1]] = pixels // 4 + 190
    pale[where] = (220, 0, 40)
    return pale


def read(name: str) -> Pixels:
    """A kept picture."""
    with Image.open(KEPT / f"{name}.webp") as image:
        return np.asarray(image.convert("RGB"))


def write(name: str, pixels: Pixels, folder: Path = KEPT) -> Path:
    """Without loss."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.webp"
    Image.fromarray(pixels).save(path, lossless=True, quality=100, method=4)
    return path


def settled(eye: Eye, look: Look) -> Pixels:
    """Taken until it is the same twice."""
    taken = eye.take(look)
    while True:
        time.sleep(0.5)
        before, taken = taken, eye.again(look)
        if np.array_equal(before, taken):
            return taken


def main() -> None:
    """Make all of them anew."""
    for old in KEPT.glob("*.webp"):
        old.unlink()
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder, standing_still(Path(folder)) as site:
        browser = launched(playwright.chromium)
        write("probe", probe(browser))
        with eye(browser, site) as one:
            for look in LOOKS:
                path = write(look.name, settled(one, look))
                print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)
        browser.close()


if __name__ == "__main__":
    main()

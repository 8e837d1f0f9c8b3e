"""How long it takes from capture until people see it and others are told: `python -m tests.benchmark.visible`.

Frames go to a running `eyeline up` as a camera's agent sends them, with the moment of their capture. A real Chromium shows
the live wall and the inbox, a receiver takes webhooks, a rule raises an alert for each frame. All share one clock.
"""

import argparse
import http.server
import itertools
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from eyeline.core.clock import isoformat, utcnow
from eyeline.ops.bench.images import load_images, unique
from eyeline.ops.bench.run import percentile
from tests.browsers import launched
from tests.system import running_system, settings_for, until

RULE = "every frame with a ref"
#: Frames a minute; None: as many as `SENDERS` give that wait for their answers.
LEVELS = (50, 300, None)
SENDERS = 16
#: Events reach the page's readers in the order in which they asked to be told: the page's own first, this one after it.
#: What is in the document then is on the screen once the next frame is drawn.
WATCH = """async () => {
  const source = document.querySelector("script[type=module][src]").src.replace("boot.js", "bus.js");
  const { onEvents } = await import(source);
  globalThis.shown = { frames: {}, alerts: {} };
  const note = (kind, ids) => requestAnimationFrame(() => setTimeout(() => {
    for (const id of ids) globalThis.shown[kind][id] ??= Date.now() / 1000;
  }));
  const wall = document.getElementById("tiles");
  const frameOf = (node) => node.src?.match(/results\\/([^/]+)/)?.[1] ?? [];
  const added = (changes) => changes.flatMap((each) => [...each.addedNodes]);
  const watcher = new MutationObserver((changes) => note("frames", added(changes).flatMap(frameOf)));
  if (wall) watcher.observe(wall, { childList: true, subtree: true });
  const pill = document.getElementById("new");
  const there = (id) => (wall ? document.querySelector(`.card[data-alert="${id}"]`) : pill?.checkVisibility());
  onEvents((batch) => {
    const told = batch.filter((each) => each.kind === "alert" && there(each.body.id));
    note("alerts", told.map((each) => each.body.result_id));
  });
}"""


@dataclass
class Receiver:
    """Where webhooks end: the result of each alert, and when it was told first."""

    url: str = ""
    told: dict[str, float] = field(default_factory=dict)

    @property
    def channel(self) -> dict[str, Any]:
        """As settings name it."""
        return {"name": "ops", "url": self.url, "allow": ["127.0.0.0/8"]}


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that serves."""
    receiver = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            at = time.time()
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            receiver.told.setdefault(body["data"]["result"]["id"], at)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Line:
    """Sends frames, and remembers when each was captured. `refused`: those that the gateway had no room for."""

    url: str
    images: Sequence[bytes]
    cameras: Sequence[str] = ()
    captured: dict[str, float] = field(default_factory=dict)
    refused: int = 0
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def send(self, client: httpx.Client, *, wait: float = 0) -> None:
        """One frame, now."""
        number, moment = next(self.numbers), utcnow()
        params = {"captured_at": isoformat(moment), "ref": f"frame-{number}-{moment.timestamp()}", "wait": str(wait)}
        if self.cameras:
            params["camera"] = self.cameras[number % len(self.cameras)]
        answer = client.post(
            "/v1/images", params=params, content=unique(self.images[number % len(self.images)], number)
        )
        if answer.status_code == 429:  # full: the frame was not taken
            self.refused += 1
            time.sleep(float(answer.headers["Retry-After"]))
        else:
            self.captured[answer.raise_for_status().json()["id"]] = moment.timestamp()

    def drive(self, per_minute: int | None, seconds: float) -> None:
        """So many a minute, or all that `SENDERS` give that wait for their answers."""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            begun, turns = time.monotonic(), itertools.count()

            def sender() -> None:
                while True:
                    due = begun if per_minute is None else begun + next(turns) * 60 / per_minute
                    if max(due, time.monotonic()) - begun > seconds:
                        return
                    time.sleep(max(0.0, due - time.monotonic()))
                    self.send(client, wait=30 if per_minute is None else 0)

            threads = [threading.Thread(target=sender) for _ in range(SENDERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


def measure(
    line: Line, receiver: Receiver, pages: Mapping[str, Page], level: int | None, seconds: float
) -> dict[str, Any]:
    """One level: seconds from capture until it was seen or told, as p50, p95 and p99, and of how many."""
    line.captured.clear()
    line.refused = 0
    receiver.told.clear()
    for page in pages.values():
        page.evaluate("globalThis.shown = { frames: {}, alerts: {} }")
    line.drive(level, seconds)
    sent = dict(line.captured)
    until(lambda: set(sent) <= set(receiver.told), 120, "all alerts were told")
    for page in pages.values():
        until(lambda page=page: page.evaluate(WAITS, list(sent)[-1]), 60, "the last alert is on the page")  # type: ignore[misc]
    wall, inbox = (page.evaluate("globalThis.shown") for page in (pages["wall"], pages["inbox"]))
    found = {
        "capture to the tile on the wall": wall["frames"],
        "capture to the alert on the wall": wall["alerts"],
        "capture to the alert in the inbox": inbox["alerts"],
        "capture to the webhook": receiver.told,
    }
    return {
        "frames": len(sent),
        "refused": line.refused,
        "load average": os.getloadavg()[0],
        **{name: _spread([at - sent[id_] for id_, at in seen.items() if id_ in sent]) for name, seen in found.items()},
    }


WAITS = "(id) => id in globalThis.shown.alerts"


def _spread(seconds: Sequence[float]) -> dict[str, float | None]:
    shares = {f"p{share}": percentile(seconds, share) for share in (50, 95, 99)}
    return {"of": len(seconds), **shares}


@contextmanager
def desks(browser: Browser, url: str) -> Iterator[dict[str, Page]]:
    """The wall and the inbox, each in a browser of its own as on two desks."""
    pages = {}
    for name, path in (("wall", "/"), ("inbox", "/alerts")):
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        page.set_default_timeout(60_000)
        page.goto(url + path)
        page.wait_for_selector("#fresh[data-state=live]")
        page.evaluate(WATCH)
        pages[name] = page
    try:
        yield pages
    finally:
        for page in pages.values():
            page.context.close()


def prepare(line: Line, receiver: Receiver) -> None:
    """The rule, until it holds."""
    with httpx.Client(base_url=line.url, timeout=60) as client:
        rule = {"when": "ref != None", "by": ["ref"], "severity": "warning", "notify": ["ops"]}
        client.put(f"/v1/rules/{RULE}", json=rule).raise_for_status()

        def holds() -> bool:
            line.send(client, wait=30)
            time.sleep(1)
            return bool(receiver.told)

        until(holds, 60, "the rule holds")


def main() -> None:
    """All levels, on a system of its own with eight cameras."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--seconds", type=float, default=60.0, help="for each level")
    seconds = words.parse_args().seconds
    cameras = [f"belt-{number}" for number in range(1, 9)]
    steps = [{"name": "find", "model": "parcel-finder"}, {"name": "damage", "model": "parcel-damage", "on": "find"}]
    with tempfile.TemporaryDirectory() as folder, receiving() as receiver, sync_playwright() as playwright:
        more = {
            "pipelines": [{"name": "parcels", "steps": steps}],
            "cameras": [{"name": name, "url": "synthetic://64x64", "only_triggered": True} for name in cameras],
            "alerts": {"channels": [receiver.channel]},
        }
        place = Path(folder)
        with running_system(place, settings_for(place / "data", place / "models", more)) as system:
            browser = launched(playwright.chromium)
            line = Line(system.url, load_images(None), cameras)
            prepare(line, receiver)
            with desks(browser, system.url) as pages:
                for level in LEVELS:
                    print(f"\n{level or 'all that is possible'} a minute, {seconds:g} s")
                    for name, value in measure(line, receiver, pages, level, seconds).items():
                        print(f"  {name}: {_said(value)}", flush=True)
            browser.close()


def _said(value: object) -> str:
    if not isinstance(value, dict):
        return f"{value:g}"
    of, *shares = value.items()
    return " ".join(f"{name} {seconds:.2f} s" for name, seconds in shares) + f" (of {of[1]})"


if __name__ == "__main__":
    main()

"""What every chaos test shares: senders with a ledger of their own, a receiver of alerts, and books that are compared after it.

The oracle stands outside: what was promised is on the sender's disk, what was told is with the receiver, and what is kept is
read from the database itself, past every proxy.
"""

import asyncio
import http.server
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx
from sqlalchemy import text

from eyeline.stores.results import open_results
from eyeline.stores.results.sql import SqlResults
from tests.pictures import unique_jpeg
from tests.system import TLS

#: One picture in so many raises an alert of its own.
HIT_EVERY = 20
#: The rule and the pipeline that all of them use.
RULE = {"name": "hit", "when": "meta['hit'] == 'yes'", "by": ["ref"], "notify": ["ops"]}
PIPELINES = [{"name": "brightness", "steps": [{"name": "b", "model": "brightness"}]}]


class Sender(threading.Thread):
    """Sends until `count` images are accepted, or until `enough`, and writes every 202 to its ledger, fsynced; it is never
    killed. `pause`: seconds between two images.
    """

    def __init__(self, url: str, ledger: Path, count: int, seed: int, pause: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.url, self.ledger, self.count, self.seed, self.pause = url, ledger, count, seed, pause
        self.enough = threading.Event()
        self.accepted = 0
        self.trouble: dict[str, int] = {}

    def run(self) -> None:
        with self.ledger.open("a") as ledger, httpx.Client(timeout=20, verify=TLS) as client:
            for number in range(self.count):
                if self.enough.wait(self.pause):
                    return
                self._keep(client, ledger, unique_jpeg(self.seed * 1_000_000 + number), f"{self.seed}-{number}", number)

    def _keep(self, client: httpx.Client, ledger: TextIO, image: bytes, key: str, number: int) -> None:
        hit = number % HIT_EVERY == 0
        params = {"ref": key, "meta.hit": "yes"} if hit else {}
        while True:
            try:
                answer = client.post(
                    f"{self.url}/v1/images", params=params, content=image, headers={"Idempotency-Key": key}
                )
            except httpx.TransportError as error:
                self._note(type(error).__name__)
                time.sleep(0.05)
                continue
            if answer.status_code in (200, 202):
                ledger.write(f"{answer.json()['id']} {key if hit else '-'}\n")
                ledger.flush()
                os.fsync(ledger.fileno())
                self.accepted += 1
                return
            self._note(str(answer.status_code))
            assert answer.status_code in (429, 503), answer.text
            time.sleep(0.05)

    def _note(self, what: str) -> None:
        self.trouble[what] = self.trouble.get(what, 0) + 1


class Receiver(http.server.ThreadingHTTPServer):
    """Takes webhooks, and keeps the id and the alert's of each."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, str]] = []

    @property
    def channel(self) -> dict[str, Any]:
        """The channel `ops` of the settings."""
        return {"name": "ops", "url": f"http://127.0.0.1:{self.server_port}/", "allow": ["127.0.0.0/8"]}

    @property
    def alerts(self) -> set[str]:
        """The alerts that were told."""
        return {alert for _, alert in list(self.got)}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert isinstance(self.server, Receiver)
        self.server.got.append((self.headers["webhook-id"], body["data"]["alert"]["id"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that serves."""
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Books:
    """What was promised, kept and told. All but the first four are to be 0."""

    promised: int
    results: int
    hits: int
    alerts: int
    lost: int
    doubled: int
    doubled_events: int
    untold: int
    without_job: int
    failed: int
    missed_alerts: int
    doubled_alerts: int
    untold_alerts: int
    other_ids: int

    @property
    def faults(self) -> dict[str, int]:
        """What should not be, by name: empty after a good run."""
        told = ("promised", "results", "hits", "alerts")
        return {name: value for name, value in vars(self).items() if name not in told and value}


def _column(url: str, query: str) -> list[Any]:
    store = open_results(url)
    assert isinstance(store, SqlResults)
    with store.reading.connect() as connection:
        found = [row[0] for row in connection.execute(text(query))]
    asyncio.run(store.close())
    return found


def books(ledgers: Sequence[Path], url: str, receiver: Receiver) -> Books:
    """Promised against kept against told, read from the database at `url` itself."""
    lines = [line.split() for ledger in ledgers for line in ledger.read_text().splitlines()]
    promised = [ident for ident, _ in lines]
    hits = {ref for _, ref in lines if ref != "-"}
    kept = _column(url, "SELECT id FROM results")
    events = _column(url, "SELECT result_id FROM events WHERE kind = 'result'")
    alerts = [json.loads(body)["ref"] for body in _column(url, "SELECT body FROM alerts")]
    ids = _column(url, "SELECT id FROM alerts")
    return Books(
        promised=len(set(promised)),
        results=len(kept),
        hits=len(hits),
        alerts=len(alerts),
        lost=len(set(promised) - set(kept)),
        doubled=len(kept) - len(set(kept)),
        doubled_events=len(events) - len(set(events)),
        untold=len(set(kept) - set(events)),
        without_job=len(set(kept) - set(_column(url, "SELECT id FROM jobs"))),
        failed=len(_column(url, "SELECT id FROM results WHERE status <> 'completed'")),
        missed_alerts=len(hits - set(alerts)),
        doubled_alerts=len(alerts) - len(set(alerts)),
        untold_alerts=len(set(ids) - receiver.alerts),
        other_ids=len(set(receiver.got)) - len(receiver.alerts),
    )


@dataclass
class Gauge:
    """How many results were recorded, twice a second, read past every proxy; rates come of it."""

    url: str
    accepted: Callable[[], int]
    seen: deque[tuple[float, int, int]] = field(default_factory=lambda: deque(maxlen=400))

    def look(self) -> None:
        """One reading; none while the database is away."""
        try:
            count = _column(self.url, "SELECT count(*) FROM results")[0]
        except Exception:  # noqa: BLE001 - it is killed on purpose
            return
        self.seen.append((time.monotonic(), self.accepted(), count))

    def rate(self, seconds: float, until: float | None = None) -> float:
        """The smaller one of images accepted and results recorded a second, over the last so many seconds."""
        end = until or time.monotonic()
        window = [reading for reading in self.seen if end - seconds <= reading[0] <= end]
        if len(window) < 2:
            return 0.0
        first, last = window[0], window[-1]
        return min(last[1] - first[1], last[2] - first[2]) / (last[0] - first[0])

    def recovery(self, since: float, until: float) -> float | None:
        """Seconds from `since` until a window of two seconds begins that reached four fifths of the usual speed from then to
        `until`. None: there was too little to tell.
        """
        ends = [reading[0] for reading in self.seen if since + 2.2 <= reading[0] <= until]
        rates = [self.rate(2.2, end) for end in ends]
        usual = sorted(rates)[len(rates) // 2] if len(rates) >= 5 else 0.0
        if not usual:
            return None
        return next(end for end, rate in zip(ends, rates, strict=True) if rate >= 0.8 * usual) - 2.2 - since


class Watch(threading.Thread):
    """Reads a gauge until the block ends."""

    def __init__(self, gauge: Gauge) -> None:
        super().__init__(daemon=True)
        self.gauge = gauge
        self._enough = threading.Event()

    def __enter__(self) -> Gauge:
        self.start()
        return self.gauge

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self.join()

    def run(self) -> None:
        while not self._enough.wait(0.4):
            self.gauge.look()

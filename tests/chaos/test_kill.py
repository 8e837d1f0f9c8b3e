"""Processes are killed with kill -9 while images flow; an oracle outside compares what was promised with what is kept.

On every backend: its servers are killed as ours are, where they keep over a kill what they were given.
"""

import contextlib
import random
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.backends import BACKENDS, Backend, opened
from tests.chaos.harness import PIPELINES, RULE, Gauge, Receiver, Sender, Watch, books
from tests.fake_models import write_brightness_bundle
from tests.system import RunningSystem, running_system, settings_for, until

ROLES = ("gateway", "worker-1", "inference", "alerts")
SENDERS = 4


@dataclass(frozen=True)
class Storm:
    """How much of it: images, kills (None: each victim once), seconds between two about, and images accepted between two."""

    images: int
    kills: int | None
    pause: float
    every: int = 0


def _victims(backend: Backend) -> list[str]:
    """Our processes, and the servers that keep over a kill what they were given."""
    return [*ROLES, *(part for part in backend.parts if backend.parts[part].kill is not None)]


def _kill_at_random(
    system: RunningSystem, backend: Backend, storm: Storm, seed: int, senders: list[Sender]
) -> list[str]:
    chance = random.Random(seed)
    victims = _victims(backend)
    killed: list[str] = []
    order: list[str] = []
    while len(killed) < (storm.kills or len(victims)) and any(sender.is_alive() for sender in senders):
        time.sleep(storm.pause * chance.uniform(0.5, 1.5))
        if sum(sender.accepted for sender in senders) < len(killed) * storm.every:
            continue
        order = order or chance.sample(victims, len(victims))  # every one in turn, in no order to get used to
        victim = order.pop()
        if victim in backend.parts:
            backend.parts[victim].killed(away=chance.uniform(0.0, 1.0))
            killed.append(victim)
            continue
        with contextlib.suppress(FileNotFoundError):
            if victim in system.pids():
                system.kill(victim)
                killed.append(victim)
    return killed


def _rage(tmp_path: Path, scheme: str, receiver: Receiver, storm: Storm) -> None:
    write_brightness_bundle(tmp_path / "models", name="brightness")
    with opened(scheme, tmp_path, long=storm.images > 2000) as backend:
        more = {
            "log_level": "warning",
            "pipelines": PIPELINES,
            "alerts": {"rules": [RULE], "channels": [receiver.channel]},
            **backend.settings,
            "queue": {"lease": 3.0, **backend.settings.get("queue", {})},
        }
        url = backend.results_url or f"sqlite:///{tmp_path}/data/results.db"
        ledgers = [tmp_path / f"ledger{seed}" for seed in range(SENDERS)]
        with running_system(tmp_path, settings_for(tmp_path / "data", tmp_path / "models", more)) as system:
            begun = time.monotonic()
            senders = [Sender(system.url, ledgers[seed], storm.images // SENDERS, seed) for seed in range(SENDERS)]
            for sender in senders:
                sender.start()
            killed = _kill_at_random(system, backend, storm, 7, senders)
            last = time.monotonic()
            with Watch(Gauge(url, lambda: sum(sender.accepted for sender in senders))) as gauge:
                for sender in senders:
                    sender.join(timeout=3600 if storm.images > 2000 else 150)
            recovery = gauge.recovery(last, time.monotonic())
            until(lambda: system.ready() and system.unfinished() == 0, 180, "every accepted image has a result")
            seconds = time.monotonic() - begun
            _alerts_told(receiver, storm.images)
        found = books(ledgers, url, receiver)
        kills = storm.kills or len(_victims(backend))
    counted = {victim: killed.count(victim) for victim in sorted(set(killed))}
    told = "too little to tell" if recovery is None else f"{recovery:.1f} s after the last kill"
    print(f"{scheme}: killed {len(killed)} {counted} in {seconds:.0f} s; full speed {told}; {found}", flush=True)
    assert len(killed) == kills
    assert found.promised == sum(sender.accepted for sender in senders) == storm.images // SENDERS * SENDERS
    assert found.faults == {}


def _alerts_told(receiver: Receiver, images: int) -> None:
    """The engine and its sender are behind the results; what is missing after a while, the books tell."""
    deadline = time.monotonic() + 60
    while len(receiver.alerts) < images // 20 and time.monotonic() < deadline:
        time.sleep(0.1)


@pytest.mark.timeout(400)
def test_two_thousand_images_survive_ten_kills(tmp_path: Path, receiver: Receiver) -> None:
    _rage(tmp_path, "sqlite", receiver, Storm(images=2000, kills=10, pause=1.0))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("scheme", [scheme for scheme in BACKENDS if scheme != "sqlite"])
def test_each_backend_survives_a_kill_of_each_of_ours_and_of_its_servers(
    scheme: str, tmp_path: Path, receiver: Receiver
) -> None:
    _rage(tmp_path, scheme, receiver, Storm(images=320, kills=None, pause=0.15))


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scheme", BACKENDS)
def test_twenty_thousand_images_survive_a_hundred_kills(scheme: str, tmp_path: Path, receiver: Receiver) -> None:
    _rage(tmp_path, scheme, receiver, Storm(images=20_000, kills=100, pause=1.2, every=180))

"""The load generator: closed loop (so many clients, each waiting) or open loop (a fixed rate, whatever the answers).

Run as a program of its own, so that its CPU time is known and can be left out; reads a plan as JSON, prints figures as JSON.
"""

import asyncio
import base64
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvloop

from eyeline.ops.bench.images import load_images, unique


class LoadPlan(msgspec.Struct):
    """What to send: `kind` naive (base64 JSON), answer (wait for the result) or accept (only the 202)."""

    url: str
    kind: str
    images: str
    seconds: float
    clients: int = 0  # closed loop
    rate: float = 0.0  # open loop, requests a second
    pipeline: str = ""
    camera: str = ""  # whose frames they are
    warmup: float = 1.0
    give_up: float = 30.0


@dataclass
class Figures:
    """What was seen. Latencies are in seconds; `sent` counts what was started after the warm-up."""

    sent: int = 0
    answered: int = 0
    accepted: int = 0
    refused: int = 0
    errors: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)


class Generator:
    """Sends by the plan and counts."""

    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.figures = Figures()
        self._images = load_images(Path(plan.images))
        if plan.kind == "naive":
            self._bodies = [json.dumps({"image": base64.b64encode(i).decode()}).encode() for i in self._images]
        self._number = time.time_ns()
        self._measuring = False
        params = {name: value for name in ("pipeline", "camera") if (value := getattr(plan, name))}
        self._params = {**params, **({"wait": f"{plan.give_up:g}"} if plan.kind == "answer" else {})}

    async def run(self) -> Figures:
        """Warm up, then measure."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        timeout = aiohttp.ClientTimeout(total=self.plan.give_up)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            self._session = session
            await self._drive(self.plan.warmup)
            self._measuring = True
            cpu, started = _cpu(), time.perf_counter()
            await self._drive(self.plan.seconds)
            self.figures.seconds = time.perf_counter() - started
            self.figures.cpu_seconds = _cpu() - cpu
        return self.figures

    async def _drive(self, seconds: float) -> None:
        if self.plan.clients:
            until = time.perf_counter() + seconds
            await asyncio.gather(*(self._client(until) for _ in range(self.plan.clients)))
            return
        started, tasks = time.perf_counter(), []
        for number in range(int(seconds * self.plan.rate)):
            pause = started + number / self.plan.rate - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            tasks.append(asyncio.create_task(self._one()))
        await asyncio.gather(*tasks)

    async def _client(self, until: float) -> None:
        while time.perf_counter() < until:
            if await self._one() in (429, 503):
                await asyncio.sleep(0.05)  # a client in a closed loop that is refused does not hammer

    async def _one(self) -> int:
        self._number += 1
        measuring, started = self._measuring, time.perf_counter()
        try:
            status, body = await self._send()
        except (aiohttp.ClientError, TimeoutError):
            status, body = 0, b""
        if measuring:
            self._count(status, body, time.perf_counter() - started)
        return status

    async def _send(self) -> tuple[int, bytes]:
        if self.plan.kind == "naive":
            data, kind = self._bodies[self._number % len(self._bodies)], "application/json"
            request = self._session.post(f"{self.plan.url}/predict", data=data, headers={"Content-Type": kind})
        else:
            data, kind = unique(self._images[self._number % len(self._images)], self._number), "image/jpeg"
            request = self._session.post(
                f"{self.plan.url}/v1/images", params=self._params, data=data, headers={"Content-Type": kind}
            )
        async with request as answer:
            return answer.status, await answer.read()

    def _count(self, status: int, body: bytes, seconds: float) -> None:
        figures = self.figures
        figures.sent += 1
        if status in (429, 503):
            figures.refused += 1
            figures.refusals.append(seconds)
        elif status in (200, 202):
            figures.accepted += 1
            figures.answered += status == 200
            figures.latencies.append(seconds)
            figures.finished.append(time.time())
            if self.plan.kind != "naive":
                figures.ids.append(json.loads(body)["id"])
        else:
            figures.errors += 1


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(text: str) -> None:
    """Carry out the plan in `text`."""
    plan = msgspec.json.decode(text, type=LoadPlan)
    figures: dict[str, Any] = asdict(uvloop.run(Generator(plan).run()))
    # not `print`: with PYTHONUNBUFFERED set, what a pipe does not take at once would be lost
    with open(sys.stdout.fileno(), "wb", closefd=False) as out:
        out.write(json.dumps(figures).encode())


if __name__ == "__main__":
    main(sys.stdin.read())

"""A small real gateway for camera tests: keeps what it is sent by idempotency key, and misbehaves on demand."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Kept:
    data: bytes
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class SmallGateway:
    """`answer` decides for each upload: a status, or "reset" (dies after keeping), or "cut" (dies before)."""

    port: int = 0
    answer: Callable[[bytes], int | str] = lambda _: 202
    kept: dict[str, Kept] = field(default_factory=dict)
    uploads: int = 0
    reports: list[dict[str, Any]] = field(default_factory=list)
    hold: asyncio.Event | None = None
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/images", self._upload)
        app.router.add_put("/v1/cameras/{name}/status", self._report)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    async def _upload(self, request: web.Request) -> web.Response:
        data = await request.read()
        self.uploads += 1
        if self.hold is not None:
            await self.hold.wait()
        answer = self.answer(data)
        if answer in {202, "reset"}:
            self.kept.setdefault(
                request.headers["Idempotency-Key"], Kept(data, dict(request.query), dict(request.headers))
            )
        if isinstance(answer, str):
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        body = {"id": f"job-{self.uploads}"} if answer == 202 else {}
        return web.json_response(body, status=answer, headers={"Retry-After": "0.05"} if answer == 429 else {})

    async def _report(self, request: web.Request) -> web.Response:
        self.reports.append(await request.json())
        return web.Response(status=204)

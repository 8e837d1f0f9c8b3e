"""`{"url": …}`: fetched before the 202, never from the inside, never for long."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from eyeline.gateway import fetch
from tests.gateways import Running, jpeg, running


@asynccontextmanager
async def pictures() -> AsyncIterator[tuple[str, list[str]]]:
    """A host of pictures on loopback, and the paths that were asked for."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        name = request.path.rpartition("/")[2]
        if name.startswith("hop"):
            left = int(name[3:])
            raise web.HTTPFound(f"/hop{left - 1}" if left else "/picture.jpg")
        if name == "metadata":
            raise web.HTTPFound("http://169.254.169.254/latest/meta-data/")
        if name == "slow":
            await asyncio.sleep(60)
        if name == "gone":
            raise web.HTTPNotFound
        if name == "page":
            return web.Response(text="<html>", content_type="image/jpeg")
        if name == "gzip":
            return web.Response(body=gzip.compress(jpeg()), headers={"Content-Encoding": "gzip"})
        if name == "large":
            return web.Response(body=b"x" * 3_000_000)
        return web.Response(body=jpeg(1), content_type="text/plain")

    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}", asked
    finally:
        await runner.cleanup()


async def ask(here: Running, url: str) -> httpx.Response:
    """Upload by URL."""
    return await here.client.post("/v1/images", json={"url": url})


async def test_a_picture_is_fetched_before_the_202(tmp_path: Path) -> None:
    async with pictures() as (host, _), running(tmp_path, gateway={"fetch_allow": ["127.0.0.0/8"]}) as here:
        assert (await ask(here, f"{host}/picture.jpg")).status_code == 202
        assert await here.blobs.get((await here.take()).blob) == jpeg(1)


async def test_what_cannot_be_fetched_is_refused_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TOTAL", 1.0)
    reasons = {
        "hop2": (202, ""),
        "hop9": (400, "redirects more than 3"),
        "metadata": (400, "may not be used"),
        "slow": (400, "took more than"),
        "gone": (400, "answers 404"),
        "page": (422, ""),
        "gzip": (400, "compressed"),
        "large": (413, "1000000"),
    }
    settings = {"fetch_allow": ["127.0.0.0/8"], "max_bytes": 1_000_000}
    async with pictures() as (host, _), running(tmp_path, gateway=settings) as here:
        for name, (status, word) in reasons.items():
            answer = await ask(here, f"{host}/{name}")
            assert answer.status_code == status, (name, answer.text)
            assert status == 202 or word in answer.json()["detail"], name
        assert (await here.results.unfinished()).count == 1


async def test_inside_addresses_are_refused_alike_and_never_connected_to(tmp_path: Path) -> None:
    async with pictures() as (host, asked), running(tmp_path) as here:
        port = host.rpartition(":")[2]
        urls = [
            f"{host}/picture.jpg",
            f"http://localhost:{port}/picture.jpg",
            f"http://[::ffff:127.0.0.1]:{port}/picture.jpg",
            f"http://2130706433:{port}/picture.jpg",
            f"http://127.1:{port}/",
            "http://169.254.169.254/latest/",
            "http://user@127.0.0.1/",
            "file:///etc/passwd",
            "gopher://127.0.0.1/",
            "http://127.0.0.1:1/",
        ]
        told = {(answer.status_code, answer.json()["detail"]) for answer in [await ask(here, url) for url in urls]}
        assert len(told) == 1
        assert next(iter(told))[0] == 400
        assert asked == []

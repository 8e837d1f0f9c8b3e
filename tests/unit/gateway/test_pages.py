"""Pages from elsewhere stand behind the same door as the API."""

import hashlib
from pathlib import Path

import httpx
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from eyeline.core.pages import Page, principal_of
from eyeline.gateway.app import build_app
from eyeline.gateway.state import State
from eyeline.queues import open_queue
from eyeline.stores.blobs import open_blobs
from eyeline.stores.cache import open_cache
from eyeline.stores.results import open_results
from tests.gateways import settings_for


async def _named(request: Request) -> Response:
    return PlainTextResponse(f"hello {principal_of(request).name}")


async def _plain(_: Request) -> Response:
    return PlainTextResponse("for everyone")


async def test_a_page_is_told_who_asks_and_a_public_one_asks_nobody(tmp_path: Path) -> None:
    keys = [
        {"name": name, "role": role, "sha256": hashlib.sha256(name.encode()).hexdigest()}
        for name, role in (("ana", "viewer"), ("belt", "ingest"))
    ]
    settings = settings_for(tmp_path, keys=keys)
    state = State(
        settings,
        open_blobs(settings.blobs.url),
        open_results(settings.results.url),
        open_queue(settings.queue.url),
        open_cache(settings.cache.url),
        pages=(Page(path="/", endpoint=_named), Page(path="/open", endpoint=_plain, right=None)),
    )
    transport = httpx.ASGITransport(build_app(state))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/open")).text == "for everyone"
        assert (await client.get("/")).status_code == 401
        assert (await client.get("/", headers={"Authorization": "Bearer belt"})).status_code == 403
        assert (await client.get("/", headers={"Authorization": "Bearer ana"})).text == "hello ana"
        assert (await client.post("/", headers={"Authorization": "Bearer ana"})).status_code == 405

"""The part of the page of models that sets servers, workers and bundles beside each other: shown, as a text, and checked now."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from eyeline.core.clock import utcnow
from eyeline.core.pages import principal_of
from eyeline.dashboard.parity import Parity, as_text, parity, releases
from eyeline.dashboard.shell import Shell

#: A process that did not report for so long is not compared.
SILENT = timedelta(seconds=60)


class ParityPart:
    """What `_parity.html` is given, and the routes that it leads to."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def view(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """For the template. `told`: as GET /v1/models tells it."""
        found = await self._parity(told)
        installed = {model["name"] for model in told.get("models", [])}
        return {
            "parity": found,
            "checkable": [name for name in found.models if name in installed],
            "releases": releases((row.id, row.version) for row in await self._rows()),
        }

    async def text(self, _request: Request) -> Response:
        """GET /models/parity.txt: one fact a line."""
        found = await self._parity(await self._shell.sources.models())
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        return PlainTextResponse(as_text(found), headers=headers)

    async def check(self, request: Request) -> Response:
        """The form that sends a model's golden pictures through its servers."""
        await self._shell.sources.check_golden(principal_of(request), request.path_params["name"])
        return self._shell.see("/models#parity")

    async def _parity(self, told: Mapping[str, Any]) -> Parity:
        return parity(
            told.get("servers", []),
            asked=told.get("golden", []),
            workers=[(row.host, row.body.get("environment", {})) for row in await self._rows()],
            bundles=[(model["name"], model.get("made_with") or {}) for model in told.get("models", [])],
        )

    async def _rows(self) -> list[Any]:
        now = utcnow()
        return [row for row in await self._shell.sources.results.replicas() if now - row.seen_at < SILENT]

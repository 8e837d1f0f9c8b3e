"""Draining: a worker or an inference server takes no new work, and goes on when it is put back; for the API and the page.

A worker hears it from its row in the result store within two seconds, on whatever machine it is. An inference server reads no
database: it is told. Neither remembers it beyond its own end.
"""

from collections.abc import Mapping
from typing import Any

from eyeline.core.access import Principal
from eyeline.core.errors import Conflict, Forbidden, NotFound
from eyeline.core.telemetry import printable
from eyeline.gateway.report import Operations
from eyeline.inference.servers import Servers
from eyeline.stores.results.base import Action, ResultStore


class Drains:
    """Asks for it, and records who did."""

    def __init__(self, results: ResultStore, operations: Operations, servers: Servers | None) -> None:
        self._results = results
        self._operations = operations
        self._servers = servers

    async def drain(self, who: Principal, id: str, *, wanted: bool) -> dict[str, Any]:  # noqa: A002
        """Let it finish what it has and take nothing new (`wanted`), or work again. The last one that works may be drained, too:
        then images wait. Raises Forbidden, NotFound, Conflict, and what an inference server says against it.
        """
        if who.sites is not None:
            raise Forbidden(f"{who.name!r} is limited to sites; what is drained here works for all of them")
        replicas = await self._operations.replicas()
        before = _found(replicas, id)
        if not before["drainable"] or before["state"] == "silent":
            raise Conflict(f"{printable(id, 120)} does not report, or is of a role or release that cannot be drained")
        if wanted == (before["state"] == "running"):
            before = before | {"state": await self._want(who, before, wanted=wanted)}
        return {name: before[name] for name in ("id", "state")} | {"others": others(replicas, id)}

    async def _want(self, who: Principal, one: Mapping[str, Any], *, wanted: bool) -> str:
        what = Action(
            what="replica.drained" if wanted else "replica.put_back", by=who.name, body={"replica": one["id"]}
        )
        if self._servers is not None and "url" in one:
            state = await self._servers.drain(one["id"], wanted=wanted)
            await self._results.record_action(what)
            return state
        if not await self._results.drain_replica(one["id"], drained=wanted, action=what):
            raise NotFound(f"{one['id']} has ended")
        return "draining" if wanted else "running"


def _found(replicas: Mapping[str, Any], id: str) -> dict[str, Any]:  # noqa: A002
    every: list[dict[str, Any]] = [*replicas["processes"], *replicas["inference"]]
    one = next((one for one in every if one["id"] == id), None)
    if one is None:
        raise NotFound(
            f"no worker and no inference server is called {printable(id, 120)!r}; GET /v1/operations lists them"
        )
    return one


def others(replicas: Mapping[str, Any], id: str) -> int:  # noqa: A002
    """How many of its kind work beside it."""
    kind = next(rows for rows in replicas.values() if any(one["id"] == id for one in rows))
    return sum(one["drainable"] and one["state"] == "running" and one["id"] != id for one in kind)

"""What pages read from. app.py fills it in; templates never see it, they get view models."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from eyeline.core.access import Principal
from eyeline.core.figures import Range
from eyeline.core.rulebook import Rulebook
from eyeline.core.settings import Settings
from eyeline.dashboard.outlets import Outlets
from eyeline.stores.results.base import ResultStore


async def nothing(*_: Any, **__: Any) -> dict[str, Any]:
    """What a report says where nobody makes one."""
    return {}


async def none(*_: Any) -> list[Any]:
    """What there is where nobody keeps any."""
    return []


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The stores and the reports behind the pages."""

    settings: Settings
    results: ResultStore
    #: What engineers watch, as GET /v1/operations tells it to this one.
    operations: Callable[[Principal, Range, str | None], Awaitable[dict[str, Any]]] = nothing
    #: Models, versions and servers, as GET /v1/models tells them.
    models: Callable[[], Awaitable[dict[str, Any]]] = nothing
    #: Lets a version of a model answer for some sites, for a reason, and takes it back; as /v1/models/{name}/canary does.
    try_out: Callable[[Principal, str, str, Sequence[str], str], Awaitable[dict[str, Any]]] = nothing
    take_back: Callable[[Principal, str, str], Awaitable[dict[str, Any]]] = nothing
    #: Has a worker or an inference server take no new work, or work again, as /v1/operations/replicas/{id}/drain does.
    drain: Callable[..., Awaitable[dict[str, Any]]] = nothing
    #: The exports that this one asked for, as GET /v1/exports tells them.
    exports: Callable[[Principal], Awaitable[Sequence[Any]]] = none
    #: The newest comparisons of two on the same pictures, and one of them, as GET /v1/comparisons tells them.
    comparisons: Callable[[Principal], Awaitable[list[dict[str, Any]]]] = none
    comparison: Callable[[Principal, str], Awaitable[dict[str, Any]]] = nothing
    #: Sends a model's golden pictures through each server that serves it, as POST /v1/models/{name}/golden.
    check_golden: Callable[[Principal, str], Awaitable[dict[str, Any]]] = nothing
    #: The service levels, as GET /v1/slo tells them.
    slo: Callable[[], Awaitable[dict[str, Any]]]
    #: What is kept, as GET /v1/storage tells it.
    storage: Callable[[], Awaitable[dict[str, Any]]] = nothing
    #: Channels and outputs, as GET /v1/channels and GET /v1/outputs tell them.
    outlets: Outlets
    rules: Rulebook
    #: Everything about one ref, barcode or item, as GET /v1/items/{key} tells it.
    trace: Callable[[ResultStore, Settings, str, Principal], Awaitable[dict[str, Any]]]
    #: What the audit says of a record: where it is sealed, and whether it is still the one that was.
    prove: Callable[[ResultStore, str], Awaitable[dict[str, Any] | None]]

"""All inference servers of `inference.url`, one by one: what each serves, and having each load a model anew."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from eyeline.core.errors import ConfigError, InferenceUnavailable, InputError
from eyeline.core.settings import InferenceSettings, mask
from eyeline.core.telemetry import logger
from eyeline.inference.client import InferenceClient
from eyeline.inference.goldens import check_served, told
from eyeline.inference.replicas import urls_of

log = logger("inference")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What came of a load: the version that serves now, or why there is none. `answered`: the server said so itself."""

    url: str
    version: str = ""
    error: str = ""
    answered: bool = True


@dataclass(frozen=True, kw_only=True)
class About:
    """A server, what its models are and what they did since they were loaded; `error` where it gives no answer. `state`:
    whether it is drained, empty where it cannot be.

    Where servers are compared: `environment` is what it computes with, `refused` says why a model, or its newest version, is
    not served.
    """

    url: str
    id: str = ""
    state: str = ""
    models: tuple[dict[str, Any], ...] = ()
    error: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


class Servers:
    """Used within one event loop."""

    def __init__(self, settings: InferenceSettings) -> None:
        token = settings.token.get_secret_value() if settings.token else None
        self._clients = {mask(url): InferenceClient(url, settings.models, token=token) for url in urls_of(settings.url)}

    async def load(self, name: str) -> list[Loaded]:
        """Have all of them load the current version of a model, side by side."""
        return await asyncio.gather(*(_load(url, client, name) for url, client in self._clients.items()))

    async def unload(self, name: str) -> None:
        """Have all of them stop serving a model. One that is away has to be started again anyway."""
        answers = (client.unload(name) for client in self._clients.values())
        for url, error in zip(self._clients, await asyncio.gather(*answers, return_exceptions=True), strict=True):
            if isinstance(error, BaseException):
                log.warning("a server goes on serving a model", server=url, model=name, error=str(error))

    async def drain(self, id: str, *, wanted: bool) -> str:  # noqa: A002
        """Have one of them take no new requests, or take them again; returns its state.

        Raises InputError with its reason where it cannot be done, InferenceUnavailable where it gives no answer.
        """
        client = next(client for url, client in self._clients.items() if id_of(url) == id)
        return await client.drain(wanted=wanted)

    async def about(self) -> list[About]:
        """What each says of itself."""
        return await asyncio.gather(*(_about(url, client) for url, client in self._clients.items()))

    async def compared(self) -> list[About]:
        """The same, each model with all that decides its answers, and what each server computes with."""
        return await asyncio.gather(*(_identified(url, client) for url, client in self._clients.items()))

    async def checked(self, models: Path, name: str) -> list[dict[str, Any]]:
        """Have each that serves this model (or tries out a version of it) answer the golden pictures of its bundle now.

        models: the folder of bundles. Pictures go one by one, so that others have to wait for one at most.
        """
        few = asyncio.Semaphore(2)  # a thread each meanwhile
        asked = (_checked(url, client, models, name, few) for url, client in self._clients.items())
        return [row for rows in await asyncio.gather(*asked) for row in rows]

    async def close(self) -> None:
        """Give back connections. Idempotent."""
        await asyncio.gather(*(client.close() for client in self._clients.values()))


def id_of(url: str) -> str:
    """Its name among the replicas: like those of processes, and no part of an address."""
    parts = urlsplit(url)
    return f"inference@{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/').replace('/', '~')}"


async def _load(url: str, client: InferenceClient, name: str) -> Loaded:
    try:
        return Loaded(url=url, version=await client.load(name))
    except InputError as error:
        return Loaded(url=url, error=str(error))
    except InferenceUnavailable as error:
        return Loaded(url=url, error=str(error), answered=False)


async def _about(url: str, client: InferenceClient) -> About:
    try:
        statistics, state = await asyncio.gather(client.statistics(), client.state())
    except InferenceUnavailable as error:
        return About(url=url, id=id_of(url), error=str(error))
    return About(url=url, id=id_of(url), state=state, models=tuple(map(_summed, statistics)))


async def _identified(url: str, client: InferenceClient) -> About:
    about = await _about(url, client)
    if about.error:
        return about
    models = await asyncio.gather(*(_identity(client, model) for model in about.models))
    try:
        environment, refused = await asyncio.gather(client.environment(), client.refused())
    except InferenceUnavailable as error:
        return About(url=url, id=id_of(url), error=str(error))
    return replace(about, models=tuple(models), environment=environment, refused=refused)


async def _identity(client: InferenceClient, model: dict[str, Any]) -> dict[str, Any]:
    try:
        served = await client.model(model["name"])
    except (InferenceUnavailable, ConfigError):  # gone meanwhile, or of a server that tells less
        return model
    known = {
        "runtime": served.ref.runtime,
        "precision": served.ref.precision,
        "fingerprint": served.fingerprint,
        "preprocessing": hashlib.sha256(msgspec.json.encode(served.contract.input)).hexdigest(),
    }
    return model | known | ({"golden": told(served.golden)} if served.golden else {})


async def _checked(
    url: str, client: InferenceClient, models: Path, name: str, few: asyncio.Semaphore
) -> list[dict[str, Any]]:
    about = await _about(url, client)
    if about.error:
        return [{"server": url, "model": name, "passed": False, "error": about.error}]
    addresses = [model["name"] for model in about.models if model["name"].partition("@")[0] == name]
    async with few:
        return [
            {"server": url, "model": address} | await check_served(client, models, address) for address in addresses
        ]


def _summed(row: dict[str, Any]) -> dict[str, Any]:
    """The statistics of one model in the words of a person."""
    images, batches = row["inference_count"], row["execution_count"]
    computed = sum(size["compute_infer"]["ns"] for size in row["batch_stats"]) / 1e9
    return {
        "name": row["name"],
        "version": row["version"],
        "images": images,
        "batch_size": round(images / batches, 2) if batches else None,
        "seconds_an_image": round(computed / images, 5) if images else None,
    }

"""The models that a server holds: each is loaded, verified and warmed up beside the serving one, then swapped in at once.

A load happens in a thread of its own, never in a request's way; one that fails leaves the old version serving.
"""

import asyncio
import gc
import hashlib
import platform
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from eyeline.core.errors import ConfigError, EyelineError, InferenceError, NotFound
from eyeline.core.settings import InferenceSettings
from eyeline.core.telemetry import logger
from eyeline.core.types import ModelRef
from eyeline.inference.base import Canary, ModelRuntime, ServedModel
from eyeline.inference.batcher import Batcher
from eyeline.inference.bundles import Bundle, canary, load_named, locate, locate_canary
from eyeline.inference.proving import Proof, prove, prove_apart, warm_up
from eyeline.inference.runtimes import RUNTIMES, Choice, choose, open_runtimes

log = logger("inference")
State = Literal["LOADING", "READY", "UNAVAILABLE"]
DRAINED = "this server is drained, and takes no new requests until it is put back to work"


class NotReady(EyelineError):
    """The model is known and cannot answer now; `reason` says why."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that answers."""

    bundle: Bundle
    served: ServedModel
    choice: Choice
    batcher: Batcher
    canary: Canary | None = None  # what it is tried out as; None: it serves

    @property
    def address(self) -> str:
        """The name under which it is asked for."""
        return self.canary.address(self.bundle.name) if self.canary else self.bundle.name

    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]:
        """Output shapes without the batch dimension."""
        return self.served.outputs


@dataclass(frozen=True)
class Row:
    """A line of the repository index."""

    name: str
    version: str
    state: State
    reason: str = ""


@dataclass(frozen=True)
class _Prepared:
    bundle: Bundle
    choice: Choice
    runtimes: Sequence[ModelRuntime]
    proof: Proof


class ModelPool:
    """All models of one server. Used on its event loop; loading blocks only its own thread."""

    def __init__(self, settings: InferenceSettings, engines: Path | None = None) -> None:
        self._settings = settings
        self._engines = engines
        self._serving: dict[str, LoadedModel] = {}
        self._rows: dict[str, Row] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._loader = ThreadPoolExecutor(1, "model-loader")
        self._retired: set[asyncio.Task[None]] = set()
        self.located = False  # whether the models folder has been looked through
        self.drained = False  # whether nothing new is to be answered

    def get(self, name: str, version: str | None = None) -> LoadedModel:
        """What serves under this name. Raises NotFound for an unknown one, NotReady for one that cannot answer now."""
        if self.drained:
            raise NotReady(f"the model {name!r} is not ready: {DRAINED}")
        model = self._serving.get(name)
        if model is None:
            row = self._rows.get(name)
            if row is None:
                raise NotFound(f"no model is called {name!r}; there are: {', '.join(sorted(self._rows)) or 'none'}")
            raise NotReady(f"the model {name!r} is not ready: {row.reason or row.state.lower()}")
        if version and version not in (model.bundle.version, model.bundle.contract.version, "1"):
            raise NotFound(f"the model {name!r} is served in version {model.bundle.version}, not {version!r}")
        return model

    def serving(self) -> list[LoadedModel]:
        """What is loaded, by name, also while it is to answer nothing new."""
        return [self._serving[name] for name in sorted(self._serving)]

    def index(self) -> list[Row]:
        """Every known model, also those that failed, by name. Of a server that is drained none is ready."""
        found = [self._rows[name] for name in sorted(self._rows)]
        return [replace(row, state="UNAVAILABLE", reason=DRAINED) for row in found] if self.drained else found

    def not_ready(self) -> list[Row]:
        """Those that cannot answer, with the reason; not what is only tried out: the version that serves answers then."""
        return [row for row in self.index() if row.state != "READY" and "@" not in row.name]

    def canary(self, name: str) -> Canary | None:
        """What is tried out in place of this model, once it can answer."""
        tried = (model.canary for model in self._serving.values() if model.bundle.name == name)
        return next((one for one in tried if one is not None), None)

    async def load_all(self, only: Collection[str] = ()) -> None:
        """Load what is installed (of that, `only`, where names are given); a model that fails hinders no other.

        A name that is not installed is listed with its reason, so that readiness says what is missing.
        """
        located: Collection[str] = only or await asyncio.to_thread(locate, self._settings.models)
        for name in located:
            self._rows.setdefault(name, Row(name, "", "LOADING"))
        self.located = True
        for name in await asyncio.to_thread(self._with_canaries, located):
            try:
                await self.load(name)
            except EyelineError as error:
                log.warning("a model does not serve", model=name, reason=str(error))
        gc.freeze()  # what start-up made is never garbage; collections need not walk it while requests wait

    def _with_canaries(self, names: Iterable[str]) -> list[str]:
        """A version that is tried out comes first: its sites are not to be answered by the other one for a while."""
        pairs = [(canary(self._settings.models / name), name) for name in names]
        return [each for tried, name in pairs for each in ([tried.address(name), name] if tried else [name])]

    async def load(self, name: str) -> LoadedModel:
        """Load the folder's current version of a model and swap it in, or the one that is tried out, by its address.

        Raises ConfigError, the old one still serving.
        """
        async with self._locks.setdefault(name, asyncio.Lock()):
            before = self._serving.get(name)
            known = self._rows.get(name)
            if before is None:
                self._rows[name] = Row(name, "", "LOADING")
            try:
                return await self._load(name, before)
            except EyelineError as error:
                if known is None and isinstance(error, NotFound):
                    del self._rows[name]  # a mistyped name is no missing model
                    raise
                version = before.bundle.version if before else ""
                self._rows[name] = Row(name, version, "READY" if before else "UNAVAILABLE", str(error))
                raise

    async def unload(self, name: str) -> None:
        """Stop serving a model; what waits for it is still answered. Raises NotFound."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            if name not in self._rows:
                raise NotFound(f"no model is called {name!r}")
            model = self._serving.pop(name, None)
            self._rows[name] = Row(name, "", "UNAVAILABLE", "unloaded")
            if "@" in name:  # not tried out any more: nothing is missing
                del self._rows[name]
            if model:
                self._retire(model)

    async def close(self) -> None:
        """Answer what waits, then free all."""
        for model in self._serving.values():
            self._retire(model)
        self._serving.clear()
        await asyncio.gather(*self._retired)
        self._loader.shutdown(wait=False, cancel_futures=True)

    async def _load(self, name: str, before: LoadedModel | None) -> LoadedModel:
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        path, tried = await asyncio.to_thread(self._locate, name)
        plain = name.partition("@")[0]
        apart = before is not None or tried is not None  # it may do no harm to what serves
        proof = await prove_apart(plain, path, self._settings, self._engines) if apart else None
        model = self._ready(await loop.run_in_executor(self._loader, self._prepare, plain, path, proof), tried)
        self._serving[name] = model
        self._rows[name] = Row(name, model.bundle.version, "READY")
        if before:
            self._retire(before)
        log.info(
            "a model serves",
            model=name,
            version=model.bundle.version,
            sites=tried.sites if tried else None,
            runtime=model.choice.runtime,
            precision=model.choice.precision,
            instances=model.choice.instances,
            batch=model.batcher.limit,
            seconds=round(time.monotonic() - started, 2),
        )
        return model

    def _locate(self, name: str) -> tuple[Path, Canary | None]:
        """Where the bundle lies that is to answer under this name. Raises NotFound."""
        if "@" in name:
            return locate_canary(self._settings.models, name)
        path = locate(self._settings.models).get(name)
        if path is None:
            raise NotFound(f"no bundle of a model {name!r} lies in {self._settings.models}")
        return path, None

    def _prepare(self, name: str, path: Path, proof: Proof | None) -> _Prepared:
        """Open the model, and prove it where that has not been done apart. Raises ConfigError."""
        try:
            bundle = load_named(name, path, proved=proof.digest if proof else None)
            choice = choose(bundle, self._settings, self._engines)
            runtimes = open_runtimes(bundle, choice)
        except (OSError, MemoryError) as error:
            raise ConfigError(f"the model bundle {path} cannot be read: {error}") from error
        try:
            if proof is None:
                proof = prove(bundle, choice, runtimes)
            else:
                warm_up(bundle, choice, runtimes, proof.limit)
        except BaseException as error:
            for runtime in runtimes:
                runtime.close()
            if isinstance(error, InferenceError):
                raise ConfigError(f"{bundle.name} {bundle.version} cannot run: {error}") from error
            raise
        return _Prepared(bundle, choice, runtimes, proof)

    def _ready(self, prepared: _Prepared, tried: Canary | None) -> LoadedModel:
        bundle, choice = prepared.bundle, prepared.choice
        served = ServedModel(
            contract=bundle.contract,
            ref=ModelRef(bundle.name, bundle.version, choice.runtime, choice.precision),
            fingerprint=fingerprint(bundle, choice),
            outputs=prepared.proof.outputs,
            golden=prepared.proof.golden,
        )
        batcher = Batcher(
            bundle.name,
            prepared.runtimes,
            limit=prepared.proof.limit,
            max_queue=self._settings.max_queue,
            max_delay=self._settings.max_delay,
        )
        return LoadedModel(bundle, served, choice, batcher, tried)

    def _retire(self, model: LoadedModel) -> None:
        task = asyncio.create_task(asyncio.to_thread(model.batcher.close))
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)


def fingerprint(bundle: Bundle, choice: Choice) -> str:
    """Everything that an answer depends on: bundle, runtime, precision, threads, library versions, kind of machine."""
    parts = [
        bundle.digest,
        RUNTIMES.load(choice.runtime).version(),
        choice.precision,
        choice.threads,
        "/".join(choice.providers),
        f"numpy {np.__version__}",
        platform.machine(),
    ]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()

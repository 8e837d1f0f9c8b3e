"""Models in this very process, for trying a pipeline without a service: the same bundles, choice and runtimes."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from eyeline.core.errors import ConfigError, InferenceUnavailable
from eyeline.core.settings import InferenceSettings
from eyeline.core.types import ModelRef
from eyeline.inference.base import ModelRuntime, ServedModel, SharedTensor, Tensor
from eyeline.inference.bundles import load_named, locate
from eyeline.inference.models import fingerprint
from eyeline.inference.runtimes import choose, open_runtimes


@dataclass(frozen=True)
class _Loaded:
    served: ServedModel
    runtime: ModelRuntime


class LocalPredictor:
    """A Predictor over one instance of each model that it is asked for; loaded at first use, one request at a time."""

    def __init__(self, settings: InferenceSettings) -> None:
        self._settings = settings
        self._loaded: dict[str, _Loaded] = {}
        self._turn = asyncio.Lock()

    async def model(self, name: str) -> ServedModel:
        """Raises ConfigError for a model that there is not, or that cannot run here."""
        async with self._turn:
            if name not in self._loaded:
                self._loaded[name] = await asyncio.to_thread(self._load, name)
        return self._loaded[name].served

    def _load(self, name: str) -> _Loaded:
        paths = locate(self._settings.models)
        if name not in paths:
            raise ConfigError(f"no model is called {name!r}; there are {', '.join(sorted(paths)) or 'none'}")
        bundle = load_named(name, paths[name])
        choice = replace(choose(bundle, self._settings), instances=1)
        (runtime,) = open_runtimes(bundle, choice)
        ref = ModelRef(bundle.name, bundle.version, choice.runtime, choice.precision)
        served = ServedModel(contract=bundle.contract, ref=ref, fingerprint=fingerprint(bundle, choice), outputs={})
        return _Loaded(served, runtime)

    async def predict(
        self,
        model: str,
        inputs: Mapping[str, Tensor | SharedTensor],
        *,
        outputs: Mapping[str, SharedTensor] | None = None,  # noqa: ARG002 - nothing is shared with oneself
        timeout: float,  # noqa: ASYNC109, ARG002 - whoever tries a pipeline waits
        request_id: str = "",  # noqa: ARG002
        version: str = "",  # noqa: ARG002 - a loaded model is not swapped
    ) -> dict[str, Tensor]:
        """One batch, in a thread. Raises InferenceError."""
        await self.model(model)
        given = {name: tensor for name, tensor in inputs.items() if not isinstance(tensor, SharedTensor)}
        if len(given) < len(inputs):
            raise InferenceUnavailable("a model in this process takes arrays, not shared memory", transient=False)
        async with self._turn:
            return await asyncio.to_thread(self._loaded[model].runtime.infer, given)

    async def register(self, segment: str, size: int) -> bool:  # noqa: ARG002
        """Never: tensors are handed over as they are."""
        return False

    async def unregister(self, segment: str) -> None:
        """Nothing was registered."""

    async def ready(self) -> Sequence[str]:
        """What is loaded is ready."""
        return ()

    async def close(self) -> None:
        """Free the models. Idempotent."""
        for loaded in self._loaded.values():
            loaded.runtime.close()
        self._loaded.clear()

"""The golden pictures of a model through a server that serves it: what pictures meet now, not what was proved at its load.

They are prepared here, by the libraries of this process, and go the way that a worker's pictures go.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import ConfigError, InferenceUnavailable, NotFound
from eyeline.inference.base import GoldenCheck, Predictor, ServedModel, Tensor
from eyeline.inference.bundles import Bundle, load_named, of_version
from eyeline.inference.golden import measure

#: Seconds that the check of one model of one server may take.
PATIENCE = 60.0


async def check_served(predictor: Predictor, models: Path, address: str) -> dict[str, Any]:
    """In words of the API: `passed`, `version` and the figures of the check, or `error` where it could not be made."""
    asked = {"passed": False, "at": isoformat(utcnow())}
    try:
        served = await predictor.model(address)
        asked |= {"version": served.ref.version}
        bundle = await asyncio.to_thread(_find, models, address.partition("@")[0], served.ref.version)
        return asked | told(await _measured(predictor, address, served, bundle))
    except (ConfigError, InferenceUnavailable, NotFound, OSError) as error:
        return asked | {"error": str(error)}


def told(checked: GoldenCheck) -> dict[str, Any]:
    """A golden check in words of the API."""
    return {"passed": checked.passed} | asdict(checked)


def _find(models: Path, name: str, version: str) -> Bundle:
    """The bundle of exactly this version of a model. Blocks. Raises NotFound where it does not lie here, ConfigError."""
    path = of_version(models, name, version)
    if path is None:
        raise NotFound(f"{models} has no bundle of {name} {version}: its golden pictures are not here")
    return load_named(name, path)


async def _measured(predictor: Predictor, address: str, served: ServedModel, bundle: Bundle) -> GoldenCheck:
    """The whole check in a thread; each picture comes back to the loop to be asked about. Raises InferenceUnavailable."""
    loop, until = asyncio.get_running_loop(), time.monotonic() + PATIENCE

    def infer(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        left = until - time.monotonic()
        if left <= 0:
            raise InferenceUnavailable(
                f"not all of {len(bundle.golden.images)} pictures were answered in {PATIENCE:.0f} s"
            )
        asking = predictor.predict(address, inputs, timeout=left, version=served.ref.version)
        return asyncio.run_coroutine_threadsafe(asking, loop).result(left + 1)

    return await asyncio.to_thread(measure, bundle, infer)

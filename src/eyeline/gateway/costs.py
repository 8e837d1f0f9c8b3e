"""What the machines cost an hour: the rate of the settings, or one that people keep in its place; who changed it is recorded."""

from collections.abc import Mapping
from typing import Any

import msgspec

from eyeline.core.access import Principal
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.settings import CostSettings
from eyeline.stores.results.base import Action, ResultStore

#: The name under which the rate lies in the store, for every gateway and engineer.
RATE = "operations/machines_per_hour"
FORMULA = "machines_per_hour × hours ÷ images × 1 000 000"


class Costs:
    """Reads the rate, and keeps another one."""

    def __init__(self, settings: CostSettings, results: ResultStore) -> None:
        self._settings = settings
        self._results = results

    async def rate(self) -> dict[str, Any]:
        """The rate that holds; `by` and `at` say who keeps it here, and are None where it is that of the settings."""
        kept = await self._results.load_state(RATE)
        own = {"machines_per_hour": self._settings.machines_per_hour, "by": None, "at": None}
        told: dict[str, Any] = msgspec.json.decode(kept) if kept else own
        return told | {"currency": self._settings.currency, "settings": self._settings.machines_per_hour}

    async def keep(self, who: Principal, machines_per_hour: float | None) -> dict[str, Any]:
        """Let this rate hold from now on; None: that of the settings again."""
        line = {"machines_per_hour": machines_per_hour, "by": who.name, "at": isoformat(utcnow())}
        value = b"" if machines_per_hour is None else msgspec.json.encode(line)
        body = {"machines_per_hour": machines_per_hour}
        await self._results.keep_state(RATE, value, Action(what="cost.rate", by=who.name, body=body))
        return await self.rate()


def per_million(machines_per_hour: float, seconds: float, images: float) -> float | None:
    """The machines' time by their rate, over the images of that time."""
    if not machines_per_hour or not images:
        return None
    return round(machines_per_hour * seconds / 3600 / images * 1e6, 4)


def cost(rate: Mapping[str, Any], seconds: float, images: float) -> dict[str, Any]:
    """What a million images cost, with the formula and what went into it."""
    return {
        "per_million": per_million(rate["machines_per_hour"], seconds, images),
        "currency": rate["currency"],
        "formula": FORMULA,
        "inputs": {
            "machines_per_hour": rate["machines_per_hour"],
            "hours": seconds / 3600,
            "images": int(images),
        },
        "rate": {"by": rate["by"], "at": rate["at"], "settings": rate["settings"]},
    }

"""What is kept of models as one row each: the history of what served, and the golden checks that were asked for."""

import asyncio
from pathlib import Path
from typing import Any

from eyeline.core.access import Principal
from eyeline.core.settings import InferenceSettings, Settings
from eyeline.gateway.rollouts import Rollouts
from tests.migrated import migrated


class Servers:
    """A stand-in for inference servers: what matters is what is kept of their answers."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def checked(self, _models: Path, model: str) -> list[dict[str, Any]]:
        return [{"server": self._name, "model": model, "version": "1", "passed": True}]

    async def compared(self) -> list[dict[str, Any]]:
        return []


async def test_checks_that_two_gateways_keep_at_the_same_moment_are_both_kept(tmp_path: Path) -> None:
    results = await migrated(tmp_path)
    settings = Settings(data_dir=tmp_path, inference=InferenceSettings(models=tmp_path / "models"))
    who = Principal("ana", "admin")
    gateways = [Rollouts(settings, results, Servers(name)) for name in "ab"]  # type: ignore[arg-type]
    models = ("parcel-finder", "pcb-defects")
    await asyncio.gather(*(each.check_golden(who, model) for each, model in zip(gateways, models, strict=True)))
    kept = (await gateways[0].catalogue())["golden"]
    assert {(row["server"], row["model"]) for row in kept} == {("a", "parcel-finder"), ("b", "pcb-defects")}
    await results.close()

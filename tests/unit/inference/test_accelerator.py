"""The accelerator's gauge, against a stand-in for NVIDIA's library (no device is to be had in tests)."""

import asyncio
import sys
from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from eyeline.inference.accelerator import watch_utilisation

GAUGE = "eyeline_accelerator_utilisation"


class _NVMLError(Exception):
    pass


def _library(rates: list[int]) -> SimpleNamespace:
    return SimpleNamespace(
        NVMLError=_NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: len(rates),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=rates[handle]),
    )


async def test_each_device_has_its_gauge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", _library([60, 100]))
    watching = asyncio.create_task(watch_utilisation())
    async with asyncio.timeout(10):
        while [REGISTRY.get_sample_value(GAUGE, {"device": d}) for d in "01"] != [0.6, 1.0]:
            await asyncio.sleep(0.01)
    watching.cancel()


async def test_without_a_device_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", _library([]))
    async with asyncio.timeout(10):
        await watch_utilisation()


async def test_without_the_library_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    async with asyncio.timeout(10):
        await watch_utilisation()

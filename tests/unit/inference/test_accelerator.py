"""What an accelerator asks for, and its gauge, against stand-ins (no device is to be had in tests)."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from prometheus_client import REGISTRY

from eyeline.inference.accelerator import watch_utilisation
from eyeline.inference.base import Tensor
from eyeline.inference.bundles import find_bundles
from eyeline.inference.proving import warm_up
from eyeline.inference.runtimes import Choice
from eyeline.inference.runtimes.onnxruntime import OnnxRuntime, Sessions, tensorrt

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


def test_one_tensorrt_engine_serves_every_batch_size(tmp_path: Path) -> None:
    """Without a range of shapes it would build another engine, for minutes, at each size that it meets."""
    bundle = find_bundles(tmp_path)["parcel-finder"]
    engines = tmp_path / "engines"
    said = tensorrt(bundle, Choice(providers=("tensorrt", "cuda", "cpu"), precision="f16", engines=engines))
    height, width = bundle.contract.input.size
    name = bundle.contract.input.name
    assert said["trt_profile_min_shapes"] == f"{name}:1x{height}x{width}x3"
    assert said["trt_profile_max_shapes"] == said["trt_profile_opt_shapes"] == f"{name}:16x{height}x{width}x3"
    assert (said["trt_fp16_enable"], said["trt_engine_cache_path"]) == ("True", str(engines))
    assert engines.is_dir()


def test_on_an_accelerator_every_batch_size_is_run_before_it_serves(tmp_path: Path) -> None:
    bundle = find_bundles(tmp_path)["parcel-finder"]
    runs: list[tuple[int, int]] = []

    class Stand:  # no device is to be had in tests
        name, precision = "stand", "f32"

        def __init__(self, number: int) -> None:
            self._number = number

        def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            runs.append((self._number, len(inputs[bundle.contract.input.name])))
            return {}

        def close(self) -> None: ...

    warm_up(bundle, Choice(), [Stand(0), Stand(1)], 4)
    assert runs == [(0, 1), (1, 1)]
    runs.clear()
    warm_up(bundle, Choice(providers=("cuda", "cpu")), [Stand(0), Stand(1)], 4)
    assert runs == [(0, 1), (1, 1), (0, 2), (0, 3), (0, 4)]


def test_a_batch_is_filled_up_to_a_size_that_has_a_session_of_its_own(tmp_path: Path) -> None:
    """Planning CUDA's convolutions for another size takes hundreds of times as long as running them."""
    bundle = find_bundles(tmp_path)["parcel-finder"]
    weights = bundle.read("weights.onnx")
    opened: list[object] = []

    def session() -> object:
        opened.append(onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"]))
        return opened[-1]

    sessions = Sessions(session, 6)
    assert [sessions.full(size) for size in range(1, 8)] == [1, 2, 4, 4, 6, 6, 7]
    alone, filled = OnnxRuntime.of(weights, "finder"), OnnxRuntime(sessions, "f32")
    name, shape = bundle.contract.input.name, bundle.contract.input.shape
    for size in (3, 1, 4, 3):
        inputs = {name: np.random.default_rng(size).integers(0, 256, (size, *shape), np.uint8)}
        wanted = alone.infer(inputs)
        for output, value in filled.infer(inputs).items():
            np.testing.assert_allclose(value, wanted[output], rtol=1e-4, atol=1e-4)
            assert len(value) == size
    assert len(opened) == 2  # for one and for four

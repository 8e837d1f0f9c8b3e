"""What a process says that it computes with: the libraries that are installed, the machine as the system tells it."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from eyeline.core.settings import InferenceSettings, PipelineSettings, StepSettings
from eyeline.inference import environment

ARM = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd evtstrm asimddp\n"
INTEL = "model name\t: Xeon: 6th\nflags\t\t: fpu sse2 avx2 avx512f ht\n\nmodel name\t: Xeon: 6th\n"


def pipelines(*models: str) -> list[PipelineSettings]:
    return [PipelineSettings(name=model, steps=[StepSettings(name="find", model=model)]) for model in models]


def test_a_worker_says_what_it_prepares_pictures_with_and_which_pipelines_it_runs() -> None:
    said = environment.of_worker(pipelines("a", "b"))
    assert (said["numpy"], said["simplejpeg"]) == (np.__version__, simplejpeg.__version__)
    assert "onnxruntime" not in said  # it runs no model
    assert said == environment.of_worker(pipelines("b", "a"))
    assert said["pipelines"] != environment.of_worker(pipelines("a", "c"))["pipelines"]


@pytest.mark.parametrize(("text", "name", "has"), [(ARM, None, "asimd asimddp"), (INTEL, "Xeon: 6th", "avx2 avx512f")])
def test_the_processor_is_read_as_the_kernel_writes_it(
    text: str, name: str | None, has: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(environment, "CPU_INFO", tmp_path / "cpuinfo")
    assert environment.instructions() == has
    assert name is None or environment.processor() == name


@pytest.mark.parametrize("name", ["NVIDIA H100", b"NVIDIA H100"])
def test_a_server_names_its_accelerators_and_their_driver_where_there_are_any(
    name: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NVMLError(Exception):
        pass

    library = types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda _: name,
        nvmlSystemGetDriverVersion=lambda: "570.86",
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    settings = InferenceSettings(providers=["cuda", "cpu"])
    said = environment.of_server(settings)
    assert (said["gpu"], said["driver"], said["providers"]) == ("NVIDIA H100, NVIDIA H100", "570.86", "cuda, cpu")

    def no_driver() -> None:
        raise NVMLError("no driver")

    library.nvmlInit = no_driver
    said = environment.of_server(settings)
    assert (said["gpu"], said["driver"]) == ("", "")

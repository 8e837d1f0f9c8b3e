"""Pipelines run apart and measured, by the worker's own code: a cascade's escalations, and an anomaly model's regions."""

from pathlib import Path

import pytest

from eyeline.core.errors import ConfigError
from eyeline.core.settings import Settings, load_settings
from eyeline.inference.importer import import_model
from eyeline.worker.measure import measure
from tests.fake_models import grey_picture, write_brightness_bundle
from tests.unit.inference import tiny_models as tiny

STEPS = {
    "small": [{"name": "look", "model": "brightness"}],
    "cascade": [
        {"name": "look", "model": "brightness"},
        {"name": "again", "model": "careful", "unsure_of": "look", "unsure": [0.4, 0.7]},
    ],
    "unlike": [{"name": "look", "model": "unlike"}],
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("measure")
    write_brightness_bundle(folder / "models")
    write_brightness_bundle(folder / "models", "careful", offset=0.1)
    good = tiny.pictures(folder / "pictures")
    import_model(tiny.anomalous(folder / "unlike.onnx"), models_dir=folder / "models", images=good, licence="MIT")
    pipelines = [{"name": name, "steps": steps} for name, steps in STEPS.items()]
    tree = {"data_dir": str(folder / "data"), "inference": {"models": str(folder / "models")}, "pipelines": pipelines}
    return load_settings(environ={}, overrides=tree)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / f"{number}.png" for number in range(4)]
    for path, grey in zip(made, (0.1, 0.45, 0.9), strict=False):
        path.write_bytes(grey_picture(grey))
    made[3].write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    return made


async def test_a_cascade_is_measured_picture_by_picture(settings: Settings, files: list[Path]) -> None:
    counted: list[int] = []
    found, process = await measure(settings, "cascade", files, lambda done, _total: counted.append(done))
    assert [each.escalated for each in found] == [False, True, False, False]
    assert [each.classifications[0].label for each in found[:3]] == ["dark", "bright", "bright"]
    assert found[3].refused
    assert all(each.cpu >= 0 and each.seconds > 0 for each in found[:3])
    assert process.memory > 20_000_000
    assert [model.split()[0] for model in process.models] == ["brightness", "careful"]
    assert counted == [1, 2, 3, 4]


async def test_an_anomaly_model_says_so_where_and_how_much(settings: Settings, tmp_path: Path) -> None:
    good = tiny.picture(tmp_path / "good.png", (40, 200, 60))
    found, _ = await measure(settings, "unlike", [tiny.spotted(tmp_path / "spot.png"), good], lambda *_: None)
    spot, quiet = found
    assert spot.classifications[0].label == "anomalous"
    (region,) = spot.detections
    assert region.box == pytest.approx((32, 32, 52, 48), abs=1.5)
    assert region.attributes["mask"]["area"] == pytest.approx(20 * 16, rel=0.08)
    assert (quiet.classifications[0].label, quiet.detections) == ("normal", [])


async def test_a_pipeline_that_there_is_not_is_named(settings: Settings, files: list[Path]) -> None:
    with pytest.raises(ConfigError, match="'large' is not defined here"):
        await measure(settings, "large", files, lambda *_: None)

"""The route from good pictures only, on real magnetic tiles: fitted, imported, measured against masks."""

import csv
import shutil
from pathlib import Path

import pytest

from eyeline.inference.importer import Imported, import_model
from eyeline.ops.evaluate import evaluate
from training.anomaly import fit, lite_layers


@pytest.fixture(scope="module")
def tiles(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """A model of the good tiles of the training split alone; the threshold from tiles of other groups, good ones too."""
    folder = tmp_path_factory.mktemp("tiles")
    with (shared_data / "tiles" / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == "free" and row["split"] == "train"]
    held = set(sorted({row["capture_group"] for row in rows})[::5])
    good, quiet = (
        [shared_data / "tiles" / row["image"] for row in rows if (row["capture_group"] in held) is side]
        for side in (False, True)
    )
    trunk = shared_data / "models" / "efficientnet_lite0.onnx"
    path = fit(good, trunk, folder / "model", layers=lite_layers(trunk), held_out=quiet)
    (folder / "good").mkdir()
    for each in good[:8]:
        shutil.copy(each, folder / "good")
    return import_model(path, models_dir=folder / "models", images=folder / "good", licence="Apache-2.0")


@pytest.mark.soak
def test_good_tiles_alone_tell_defects_they_never_saw(shared_data: Path, tiles: Imported) -> None:
    assert tiles.bundle.contract.task == "anomaly"
    assert any("metadata.json" in note for note in tiles.notes)
    measured = evaluate(tiles.bundle, shared_data / "tiles" / "index.csv", where={"split": "val"}).metrics
    assert measured["images"] == 139
    assert measured["image_auroc"] > 0.74
    assert measured["pixel_auroc"] > 0.65
    assert measured["region_recall"] > 0.35
    false = measured["confusion"]["normal"]["anomalous"]
    assert false <= 8  # of 60 good ones

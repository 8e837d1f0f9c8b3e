"""Masks against masks: pixels, pictures and regions counted, and data that do not fit refused with what is missing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyeline.core.errors import ConfigError
from eyeline.inference.bundles import Bundle
from eyeline.inference.importer import import_model
from eyeline.ops.evaluate import evaluate
from tests.unit.inference import tiny_models as tiny

UNIT = (1 / 255, 1 / 255, 1 / 255)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("masks")


@pytest.fixture(scope="module")
def good(folder: Path) -> Path:
    return tiny.pictures(folder / "pictures")


@pytest.fixture(scope="module")
def corner(folder: Path, good: Path) -> Bundle:
    """Says that the lower right quarter of every picture is something."""
    path = tiny.segmenter(folder / "s.onnx", classes=1)
    how = {"decoder": "segmentation", "labels": ("corner",), "images": good, "scale": UNIT}
    return import_model(path, models_dir=folder / "models", **how).bundle  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def unlike(folder: Path, good: Path) -> Bundle:
    return import_model(tiny.anomalous(folder / "a.onnx"), models_dir=folder / "models", images=good).bundle


def masked(path: Path, *rectangles: tuple[int, int, int, int]) -> str:
    mask = np.zeros((64, 64), np.uint8)
    for left, top, right, bottom in rectangles:
        mask[top:bottom, left:right] = 255
    Image.fromarray(mask).save(path)
    return path.name


def table(folder: Path, *rows: tuple[str, str], extra: str = "") -> Path:
    path = folder / "index.csv"
    path.write_text("image,mask\n" + "".join(f"{image},{mask}\n" for image, mask in rows) + extra)
    return path


def test_pixels_pictures_and_regions_are_counted(corner: Bundle, tmp_path: Path) -> None:
    tiny.picture(tmp_path / "a.png", (10, 20, 30))
    half = masked(
        tmp_path / "half.png", (32, 32, 64, 48), (0, 0, 10, 10)
    )  # half of what is found, and a region that is not
    data = table(tmp_path, ("a.png", half), ("a.png", ""))
    figures = evaluate(corner, data, out=tmp_path / "out").metrics
    assert figures["images"] == 2
    assert figures["regions"] == 2
    assert figures["region_recall"] == 0.5
    assert figures["mean_iou"] == pytest.approx(512 / (1024 + 100), abs=0.02)
    assert figures["pixel_iou"] == pytest.approx(512 / (1024 + 100 + 1024), abs=0.02)  # all of the good one is false
    assert "image_auroc" not in figures
    assert (tmp_path / "out" / "metrics.json").exists()


def test_an_anomaly_model_is_measured_on_pictures_and_pixels(unlike: Bundle, tmp_path: Path) -> None:
    tiny.spotted(tmp_path / "spot.png")
    tiny.picture(tmp_path / "good.png", (40, 200, 60))
    (tmp_path / "cut.png").write_bytes((tmp_path / "spot.png").read_bytes()[:60])
    mask = masked(tmp_path / "m.png", (32, 32, 52, 48))
    figures = evaluate(unlike, table(tmp_path, ("spot.png", mask), ("good.png", ""), ("cut.png", ""))).metrics
    assert (figures["image_auroc"], figures["accuracy"]) == (1.0, 1.0)
    assert figures["pixel_auroc"] > 0.99
    assert figures["pixel_iou"] > 0.85
    assert figures["confusion"] == {"anomalous": {"anomalous": 1}, "normal": {"normal": 1}}
    assert list(figures["refused"]) == ["cut.png"]


def test_pixels_that_are_the_same_everywhere_are_a_coin(corner: Bundle, unlike: Bundle, tmp_path: Path) -> None:
    tiny.picture(tmp_path / "red.png", (220, 30, 20))
    mask = masked(tmp_path / "m.png", (0, 0, 32, 64))
    figures = evaluate(unlike, table(tmp_path, ("red.png", mask))).metrics
    assert figures["pixel_auroc"] == pytest.approx(0.5)
    assert figures["image_auroc"] is None  # there is no good one


@pytest.mark.parametrize(
    ("rows", "where", "reason"),
    [
        ([("a.png", "none.png")], {}, "names the mask .*none.png, which is not there"),
        ([("a.png", "")], {"split": "val"}, "no column split"),
        ([], {}, "holds no picture"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    unlike: Bundle, tmp_path: Path, rows: list[tuple[str, str]], where: dict[str, str], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        evaluate(unlike, table(tmp_path, *rows), where=where)
    labels = tmp_path / "labels.csv"
    labels.write_text("image,label\na.png,good\n")
    with pytest.raises(ConfigError, match="columns image and mask"):
        evaluate(unlike, labels)

"""Import of real models on real pictures: bottles are found, groceries are named, and a wrong normalisation shows."""

import tomllib
from pathlib import Path

import cv2
import pytest
import tomli_w

from eyeline.inference import golden
from eyeline.inference.bundles import load_bundle, write_manifest
from eyeline.inference.importer import Imported, import_model
from eyeline.inference.runtimes.onnxruntime import OnnxRuntime

LITE = (1 / 128, 1 / 128, 1 / 128)


def bottles(shared: Path, folder: Path) -> Path:
    """Twelve frames of the bottle conveyor as JPEG files."""
    folder.mkdir()
    video = cv2.VideoCapture(str(shared / "video" / "bottle-detection.mp4"))
    for number in range(12):
        video.set(cv2.CAP_PROP_POS_FRAMES, number * 95)
        well, frame = video.read()
        assert well
        cv2.imwrite(str(folder / f"{number:02d}.jpg"), frame)
    video.release()
    return folder


def test_yolox_finds_the_bottles_on_the_conveyor(shared_data: Path, tmp_path: Path) -> None:
    done = import_model(
        shared_data / "models" / "yolox_nano.onnx",
        models_dir=tmp_path / "models",
        labels=shared_data / "models" / "coco_classes.txt",
        images=bottles(shared_data, tmp_path / "frames"),
    )
    answers = done.bundle.golden.images
    found = [box.label for answer in answers for box in answer.detections if box.score > 0.5]
    assert done.bundle.contract.output.decoder == "yolox"
    assert done.bundle.contract.input.dtype == "uint8"
    assert done.bundle.contract.input.max_batch == 8
    assert all(any(box.label == "bottle" for box in answer.detections) for answer in answers)
    assert found.count("bottle") / len(found) > 0.9
    assert not any("preprocessing" in note for note in done.notes)
    runtime = OnnxRuntime.of(done.bundle.weights.read_bytes(), "weights")
    assert golden.check(done.bundle, runtime.infer) == []


def classifier(shared: Path, models: Path, **numbers: tuple[float, float, float]) -> Imported:
    return import_model(
        shared / "models" / "efficientnet_lite0.onnx",
        models_dir=models,
        labels=shared / "models" / "imagenet_classes.txt",
        images=shared / "grocery" / "images",
        **numbers,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def right(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """The classifier with the preprocessing that it was trained with."""
    return classifier(shared_data, tmp_path_factory.mktemp("right"), mean=(127.0, 127.0, 127.0), scale=LITE)


def test_a_wrong_normalisation_of_a_classifier_is_easy_to_see(
    shared_data: Path, tmp_path: Path, right: Imported
) -> None:
    wrong = classifier(shared_data, tmp_path)
    assert not any("is the preprocessing right?" in note for note in right.notes)
    assert any("(x−127)/128 names" in note and "is the preprocessing right?" in note for note in wrong.notes)
    assert "is the preprocessing right?" in (wrong.bundle.path / "card.md").read_text()


def test_the_golden_check_sees_numbers_changed_after_the_import(shared_data: Path, right: Imported) -> None:
    weights = shared_data / "models" / "efficientnet_lite0.onnx"
    folder = right.bundle.path
    (folder / "weights.onnx").write_bytes(weights.read_bytes())
    content = tomllib.loads((folder / "model.toml").read_text())
    imagenet = {"mean": [123.675, 116.28, 103.53], "scale": [1 / 58.395, 1 / 57.12, 1 / 57.375]}
    for numbers, same in (({"mean": [127.0] * 3, "scale": list(LITE)}, True), (imagenet, False)):
        content["input"] |= {"name": "images", "layout": "nchw", "dtype": "float32", **numbers}
        (folder / "model.toml").write_text(tomli_w.dumps(content))
        write_manifest(folder)
        assert (golden.check(load_bundle(folder), OnnxRuntime.of(weights.read_bytes(), "w").infer) == []) is same

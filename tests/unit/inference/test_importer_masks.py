"""Import of models with masks and maps: proposed by their outputs, proved, and answering what another way of reading says."""

import json
from pathlib import Path

import onnx
import pytest

from eyeline.core.errors import ConfigError
from eyeline.inference.bundles import ExpectedDetection, load_bundle
from eyeline.inference.importer import Imported, import_model
from eyeline.inference.runtimes.onnxruntime import OnnxRuntime
from tests.unit.inference import tiny_models as tiny

UNIT = (1 / 255, 1 / 255, 1 / 255)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tiny.pictures(tmp_path / "pictures")


def boxes(done: Imported, picture: str) -> list[ExpectedDetection]:
    return [box for answer in done.bundle.golden.images if picture in answer.file for box in answer.detections]


def area(box: ExpectedDetection) -> float:
    """Of a mask of one rectangle, by its corners."""
    (polygon,) = box.mask
    xs, ys = polygon[::2], polygon[1::2]
    return (max(xs) - min(xs)) * (max(ys) - min(ys))


def test_yolo_with_masks_gives_boxes_with_the_shape_in_them(tmp_path: Path, images: Path) -> None:
    done = import_model(tiny.detector_with_masks(tmp_path / "best.onnx"), models_dir=tmp_path / "m", images=images)
    contract = done.bundle.contract
    assert (contract.output.decoder, contract.labels, contract.task) == ("yolov8-seg", ("red", "blue"), "detection")
    assert contract.input.dtype == "uint8"
    (box,) = boxes(done, "red")
    assert box.box == pytest.approx((12, 16, 52, 48))  # on a picture twice the model's size
    xs, ys = box.mask[0][::2], box.mask[0][1::2]
    assert (min(xs), max(xs), min(ys), max(ys)) == pytest.approx((8, 32, 16, 48), abs=5)  # left half, on a grid of 8


@pytest.mark.parametrize("ids", [False, True])
def test_segmentation_gives_regions_and_leaves_the_background_out(tmp_path: Path, images: Path, ids: bool) -> None:
    path = tiny.segmenter(tmp_path / "s.onnx", ids=ids)
    names = ("Background", "left", "corner")
    done = import_model(path, models_dir=tmp_path / "m", images=images, labels=names, scale=UNIT)
    assert done.bundle.contract.output.decoder == ("classmap" if ids else "segmentation")
    found = {box.label: box for box in boxes(done, "red")}
    assert set(found) == {"left", "corner"}
    assert found["left"].box == pytest.approx((0, 0, 32, 64), abs=0.6)
    assert found["corner"].box == pytest.approx((32, 32, 64, 64), abs=0.6)
    assert area(found["left"]) == pytest.approx(32 * 64, rel=0.03)


def test_one_number_for_each_pixel_says_nothing_of_itself(tmp_path: Path, images: Path) -> None:
    path = tiny.segmenter(tmp_path / "s.onnx", classes=1)
    with pytest.raises(ConfigError, match=r"--decoder anomaly.*--decoder segmentation"):
        import_model(path, models_dir=tmp_path / "m", images=images)
    named = import_model(
        path, models_dir=tmp_path / "m", images=images, decoder="segmentation", labels=("corner",), scale=UNIT
    )
    assert [box.label for box in boxes(named, "red")] == ["corner"]


def test_an_anomalib_export_calls_the_picture_and_shows_where(tmp_path: Path, images: Path) -> None:
    tiny.spotted(images / "spot.png")
    done = import_model(tiny.anomalous(tmp_path / "model.onnx"), models_dir=tmp_path / "m", images=images)
    contract = done.bundle.contract
    assert (contract.task, contract.labels, contract.input.fit) == ("anomaly", ("anomalous", "normal"), "stretch")
    assert contract.input.max_batch == 8
    said = {answer.file[3:-4]: answer.classifications[0].label for answer in done.bundle.golden.images}
    assert said == {"red": "anomalous", "spot": "anomalous", "green": "normal", "blue": "normal"}
    (box,) = boxes(done, "spot")
    assert box.label == "anomaly"
    assert box.box == pytest.approx((32, 32, 52, 48), abs=1.5)
    assert not boxes(done, "green")
    outputs = OnnxRuntime.of(load_bundle(done.bundle.path).weights.read_bytes(), "w")._outputs
    assert sorted(outputs) == ["anomaly_map", "pred_score"]  # labels and masks are made anew, so they are not computed
    assert "2 of 4 pictures are called anomalous" in done.notes


def test_older_exports_bring_their_thresholds_in_a_file_of_their_own(tmp_path: Path, images: Path) -> None:
    tiny.spotted(images / "spot.png")
    told = {"task": "segmentation", "image_threshold": 0.99, "pixel_threshold": 0.7, "min": 0.0, "max": 1.0}
    (tmp_path / "metadata.json").write_text(json.dumps(told))
    path = tiny.anomalous(tmp_path / "model.onnx", outputs=("output",))
    done = import_model(path, models_dir=tmp_path / "m", images=images)
    spot = next(answer for answer in done.bundle.golden.images if "spot" in answer.file)
    assert spot.classifications[0].label == "normal"
    assert spot.classifications[0].score == pytest.approx(1 - (250 / 255 - 0.99 + 0.5), abs=0.02)
    assert any("threshold 0.99" in note for note in done.notes)


def test_normalisation_outside_of_the_graph_is_taken_from_the_transform(tmp_path: Path, images: Path) -> None:
    transform = {
        "transform": {"transforms": [{"__class_fullname__": "Normalize", "mean": [0.4] * 3, "std": [0.2] * 3}]}
    }
    told = {"image_threshold": 0.5, "pixel_threshold": 0.5, "min": 0.0, "max": 1.0, "transform": transform}
    (tmp_path / "metadata.json").write_text(json.dumps(told))
    path = tiny.anomalous(tmp_path / "model.onnx", outputs=("output",))
    done = import_model(path, models_dir=tmp_path / "m", images=images)
    red = next(answer for answer in done.bundle.golden.images if "red" in answer.file)
    assert red.classifications[0].score == pytest.approx(min(1.0, (220 / 255 - 0.4) / 0.2), abs=0.02)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"image_threshold": 1, "min": 3, "max": 1}', "min 3 and max 1"),
        ('{"image_threshold": "high"}', "no metadata of anomalib's"),
        ("{", "cannot be read"),
    ],
)
def test_metadata_that_make_no_sense_are_refused(tmp_path: Path, images: Path, text: str, reason: str) -> None:
    (tmp_path / "metadata.json").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        import_model(tiny.anomalous(tmp_path / "model.onnx"), models_dir=tmp_path / "m", images=images)


def test_ultralytics_class_for_each_pixel_is_read_within_the_letterbox(tmp_path: Path, images: Path) -> None:
    model = tiny.parsed(tiny.segmenter(tmp_path / "s.onnx", ids=True))
    names = {"names": "['background', 'left', 'corner']", "stride": "32", "task": "semantic", "imgsz": "[32, 32]"}
    model.metadata_props.extend(onnx.StringStringEntryProto(key=key, value=value) for key, value in names.items())
    (tmp_path / "s.onnx").write_bytes(model.SerializeToString())
    done = import_model(tmp_path / "s.onnx", models_dir=tmp_path / "m", images=images)
    contract = done.bundle.contract
    assert (contract.output.decoder, contract.input.fit) == ("classmap", "letterbox")
    assert contract.labels == ("background", "left", "corner")
    assert {box.label for box in boxes(done, "red")} == {"left", "corner"}

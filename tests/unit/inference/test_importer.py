"""Import: what a file is, what is refused before it is loaded, and that the folded graph says what the original said."""

import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from eyeline.core.errors import ConfigError
from eyeline.inference import samples
from eyeline.inference.bundles import load_bundle, locate, made_with
from eyeline.inference.importer import Imported, import_model
from eyeline.inference.runtimes.onnxruntime import OnnxRuntime
from tests.unit.inference import tiny_models as tiny

UNIT = (1 / 255, 1 / 255, 1 / 255)
LABELS = ("red", "green", "blue")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tiny.pictures(tmp_path / "pictures")


def said(imported: Imported) -> dict[str, str]:
    """Golden picture → its label."""
    labels: dict[str, str] = {}
    for answer in imported.bundle.golden.images:
        found = [box.label for box in answer.detections] + [label.label for label in answer.classifications]
        if found:
            labels[answer.file[3:].partition(".")[0]] = found[0]
    return labels


@pytest.mark.parametrize(
    "made", [{}, {"batch": "N"}, {"nhwc": True}, {"softmax": True}, {"half": True}, {"softmax": True, "batch": "N"}]
)
def test_a_classifier_takes_bytes_afterwards_and_answers_the_same(
    tmp_path: Path, models: Path, images: Path, made: dict[str, object]
) -> None:
    path = tiny.classifier(tmp_path / "Colour Net.onnx", **made)  # type: ignore[arg-type]
    done = import_model(path, models_dir=models, labels=LABELS, images=images, scale=UNIT)
    contract = done.bundle.contract
    assert (contract.name, contract.version) == ("colour-net", "1.0.0")
    assert (contract.input.dtype, contract.input.layout, contract.input.color) == ("uint8", "nhwc", "rgb")
    assert contract.output.decoder == ("softmax" if made.get("softmax") else "logits")
    assert contract.input.max_batch == 8
    assert said(done) == {"red": "red", "green": "green", "blue": "blue"}
    assert locate(models, bundled=False) == {"colour-net": models / "colour-net" / "1.0.0"}


def test_colour_order_is_folded(tmp_path: Path, models: Path, images: Path) -> None:
    path = tiny.classifier(tmp_path / "c.onnx")
    done = import_model(path, models_dir=models, labels=LABELS, images=images, scale=UNIT, color="bgr")
    assert done.bundle.contract.input.color == "rgb"
    assert said(done) == {"red": "blue", "green": "green", "blue": "red"}


def test_an_ultralytics_export_tells_its_labels_and_its_batch_is_opened(
    tmp_path: Path, models: Path, images: Path
) -> None:
    done = import_model(tiny.detector(tmp_path / "best.onnx"), models_dir=models, images=images)
    contract = done.bundle.contract
    assert (contract.labels, contract.output.decoder, contract.task) == (("red", "blue"), "yolov8", "detection")
    assert (contract.input.fit, contract.input.align, contract.input.max_batch) == ("letterbox", "center", 8)
    assert said(done) == {"red": "red", "blue": "blue"}
    box = next(answer.detections[0].box for answer in done.bundle.golden.images if answer.file.endswith("red.png"))
    assert box == pytest.approx((22, 24, 42, 40))  # on a picture twice the model's size


def test_metadata_is_read_and_never_run(tmp_path: Path, models: Path, images: Path) -> None:
    harm = {"names": "__import__('os').system('touch harmed')", "stride": "32", "task": "detect"}
    done = import_model(tiny.detector(tmp_path / "m.onnx", harm), models_dir=models, images=images)
    assert done.bundle.contract.labels == ("class-0", "class-1")
    assert any("class-0" in note for note in done.notes)


def test_importing_again_makes_a_new_version_that_serves(tmp_path: Path, models: Path, images: Path) -> None:
    path = tiny.classifier(tmp_path / "c.onnx")
    for _ in range(2):
        done = import_model(path, models_dir=models, labels=LABELS, images=images, scale=UNIT)
    assert done.bundle.contract.version == "1.0.1"
    assert locate(models, bundled=False)["c"] == models / "c" / "1.0.1"
    assert (models / "c" / "1.0.0" / "model.toml").exists()


def test_the_bundle_is_whole_and_small(tmp_path: Path, models: Path, images: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1500, 1500, 3), np.uint8)
    Image.fromarray(noise).save(images / "noise.png")
    path = tiny.classifier(tmp_path / "c.onnx")
    done = import_model(path, models_dir=models, labels=LABELS, images=images, scale=UNIT)
    bundle = load_bundle(done.bundle.path)
    assert bundle.digest == done.bundle.digest
    assert sum(file.stat().st_size for file in (bundle.path / "golden").iterdir()) < 700_000
    assert done.preview.read_bytes().startswith(b"\x89PNG")
    assert "colour" not in (bundle.path / "card.md").read_text()
    provenance = tomllib.loads((bundle.path / "model.toml").read_text())["provenance"]
    assert provenance["source"] == "c.onnx"
    assert made_with(bundle)["numpy"] == np.__version__
    assert "host" not in made_with(bundle)


def test_nothing_is_left_of_a_refused_import(tmp_path: Path, models: Path, images: Path) -> None:
    with pytest.raises(ConfigError, match="2 labels, and the model has 3 classes"):
        import_model(tiny.classifier(tmp_path / "c.onnx"), models_dir=models, labels=("a", "b"), images=images)
    assert not models.exists() or not list(models.iterdir())


def test_numbers_that_make_a_model_unsure_are_asked_about(tmp_path: Path, models: Path, images: Path) -> None:
    path = tiny.classifier(tmp_path / "c.onnx", softmax=True)
    good = import_model(path, models_dir=models, labels=LABELS, images=images, scale=UNIT)
    faint = import_model(path, models_dir=models, labels=LABELS, images=images, scale=(1e-4, 1e-4, 1e-4))
    assert not any("is the preprocessing right?" in note for note in good.notes)
    assert any("gives mean top-1" in note and "is the preprocessing right?" in note for note in faint.notes)


# refusals


@pytest.mark.parametrize(
    ("name", "start", "way"),
    [
        ("best.pt", b"PK\x03\x04", "yolo export model=best.pt format=onnx"),
        ("net.pth", b"\x80\x02", "torch.onnx.export"),
        ("sly.onnx", b"\x80\x04\x95", "a pickle runs code"),
        ("zip.onnx", b"PK\x03\x04", "a pickle runs code"),
        ("net.h5", b"\x89HDF\r\n", "tf2onnx.convert --keras net.h5"),
        ("net.keras", b"PK\x03\x04", "tf2onnx.convert --keras"),
        ("net.tflite", b"\x1c\0\0\0TFL3", "tf2onnx.convert --tflite net.tflite"),
        ("renamed.onnx", b"\x1c\0\0\0TFL3", "--tflite"),
        ("net.engine", b"ftrt", "the ONNX file it was built from"),
        ("net.xml", b"<?xml", "the ONNX file it was converted from"),
        ("net.safetensors", b"\0" * 8, "weights without a graph"),
    ],
)
def test_other_formats_are_refused_with_the_command_to_type(
    tmp_path: Path, models: Path, name: str, start: bytes, way: str
) -> None:
    path = tmp_path / name
    path.write_bytes(start + b"\0" * 100)
    with pytest.raises(ConfigError) as caught:
        import_model(path, models_dir=models)
    assert way in str(caught.value)


def test_a_saved_model_folder_is_refused_with_the_command_to_type(tmp_path: Path, models: Path) -> None:
    (tmp_path / "saved").mkdir()
    with pytest.raises(ConfigError, match=r"tf2onnx.convert --saved-model saved --output saved.onnx"):
        import_model(tmp_path / "saved", models_dir=models)


def test_garbage_named_onnx_is_refused(tmp_path: Path, models: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"nothing like it" * 50)
    with pytest.raises(ConfigError, match="not a readable ONNX file"):
        import_model(tmp_path / "x.onnx", models_dir=models)


def test_external_data_is_refused_before_anything_is_loaded(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.parsed(tiny.classifier(tmp_path / "c.onnx"))
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    (tmp_path / "c.onnx").write_bytes(model.SerializeToString())
    monkeypatch.setattr(OnnxRuntime, "of", None)
    with pytest.raises(ConfigError, match=r"keeps its data in another file.*external_data=False"):
        import_model(tmp_path / "c.onnx", models_dir=models)


def test_a_custom_operator_is_refused(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    node = helper.make_node("Evil", ["x"], ["y"], domain="com.example")
    monkeypatch.setattr(OnnxRuntime, "of", None)
    with pytest.raises(ConfigError, match=r"custom domain 'com.example'"):
        import_model(tiny.saved(tmp_path / "c.onnx", [node], [output], [], domains=["com.example"]), models_dir=models)


def test_a_giant_array_is_refused_before_it_is_made(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = helper.make_node("ConstantOfShape", ["huge"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    huge = tiny.constant("huge", [10**6, 10**6], np.int64)
    monkeypatch.setattr(OnnxRuntime, "of", None)
    with pytest.raises(ConfigError, match="asks for an array"):
        import_model(tiny.saved(tmp_path / "c.onnx", [node], [output], [huge]), models_dir=models)


def test_a_shape_that_fits_nothing_is_refused_with_the_reason(tmp_path: Path, models: Path, images: Path) -> None:
    with pytest.raises(ConfigError, match="fits no decoder"):
        import_model(tiny.detector(tmp_path / "m.onnx", shape=(1, 7, 99)), models_dir=models, images=images)


@pytest.mark.parametrize("masks", [False, True])
def test_boxes_that_the_graph_chose_are_all_taken(tmp_path: Path, models: Path, images: Path, masks: bool) -> None:
    done = import_model(tiny.chosen(tmp_path / "m.onnx", masks=masks), models_dir=models, images=images)
    contract = done.bundle.contract
    assert contract.output.decoder == ("end2end-seg" if masks else "end2end")
    assert contract.labels == ("red", "blue", "never seen")
    assert (contract.input.fit, contract.input.dtype) == ("letterbox", "uint8")
    found = next(answer.detections for answer in done.bundle.golden.images if "blue" in answer.file)
    assert [box.label for box in found] == ["blue", "blue"]
    assert found[0].box == pytest.approx((12, 16, 52, 48))  # on a picture twice the model's size
    assert all(bool(box.mask) == masks for box in found)


def test_boxes_that_the_graph_chose_do_not_tell_the_classes(tmp_path: Path, models: Path, images: Path) -> None:
    with pytest.raises(ConfigError, match=r"how many classes there are; give --labels FILE"):
        import_model(tiny.chosen(tmp_path / "m.onnx", labelled=False), models_dir=models, images=images)


def test_a_model_for_several_pictures_at_once_is_asked_for_again(tmp_path: Path, models: Path, images: Path) -> None:
    with pytest.raises(ConfigError, match=r"takes 4 pictures at once.*batch=1"):
        import_model(tiny.classifier(tmp_path / "c.onnx", batch=4), models_dir=models, labels=LABELS, images=images)


def test_the_licence_of_the_weights_is_asked_for(tmp_path: Path, models: Path, images: Path) -> None:
    silent = tiny.classifier(tmp_path / "c.onnx")
    with pytest.raises(ConfigError, match=r"c.onnx names no licence.*--licence"):
        import_model(silent, models_dir=models, labels=LABELS, images=images, licence="")
    given = import_model(silent, models_dir=models, labels=LABELS, images=images, licence="unknown")
    assert given.bundle.contract.licence == "unknown"
    told = {"names": "['a', 'b']", "license": "MIT", "stride": "32"}
    named = import_model(tiny.detector(tmp_path / "m.onnx", told), models_dir=models, images=images, licence="")
    assert named.bundle.contract.licence == "MIT"


def test_yolov5_is_told_by_its_shape_and_agpl_is_said_aloud(tmp_path: Path, models: Path, images: Path) -> None:
    path = tiny.detector(tmp_path / "m.onnx", {"names": "['a', 'b']", "license": "AGPL-3.0"}, shape=(1, 63, 7))
    done = import_model(path, models_dir=models, images=images)
    assert done.bundle.contract.output.decoder == "yolov5"
    assert done.bundle.contract.labels == ("a", "b")
    assert any("AGPL-3.0" in note for note in done.notes)


def test_a_detr_with_two_outputs_is_imported_and_answers_the_same(tmp_path: Path, models: Path, images: Path) -> None:
    done = import_model(
        tiny.detr(tmp_path / "rf.onnx"), models_dir=models, labels=("red", "blue"), images=images, scale=UNIT
    )
    contract = done.bundle.contract
    assert (contract.output.decoder, contract.input.fit, contract.input.dtype) == ("rfdetr", "stretch", "uint8")
    assert said(done) == {"red": "red", "blue": "blue"}
    box = next(answer for answer in done.bundle.golden.images if "red" in answer.file).detections[0].box
    assert box == pytest.approx((22.4, 24, 41.6, 40), abs=0.1)  # of 64 × 64
    named = import_model(
        tiny.detr(tmp_path / "de.onnx"), models_dir=models, labels=("red",), images=images, decoder="detr", scale=UNIT
    )
    assert named.bundle.contract.output.decoder == "detr"


def test_a_decoder_that_does_not_fit_is_refused_and_the_fitting_one_named(
    tmp_path: Path, models: Path, images: Path
) -> None:
    with pytest.raises(ConfigError, match="what fits: yolov8"):
        import_model(tiny.detector(tmp_path / "m.onnx"), models_dir=models, images=images, decoder="yolox")


def test_another_ultralytics_task_is_named(tmp_path: Path, models: Path, images: Path) -> None:
    told = {"names": "{0: 'a', 1: 'b'}", "stride": "32", "task": "pose"}
    with pytest.raises(ConfigError, match="'pose'"):
        import_model(tiny.detector(tmp_path / "m.onnx", told), models_dir=models, images=images)


def test_an_open_input_size_asks_for_a_fixed_one(tmp_path: Path, models: Path, images: Path) -> None:
    model = tiny.parsed(tiny.classifier(tmp_path / "c.onnx"))
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.Clear()
    (tmp_path / "c.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match="leaves its input size open"):
        import_model(tmp_path / "c.onnx", models_dir=models, images=images)


def test_pictures_named_by_their_labels_are_found(tmp_path: Path) -> None:
    (tmp_path / "Granny-Smith").mkdir()
    for path in ("Granny-Smith/1.png", "x_orange_2.png", "orangery.png"):
        tiny.picture(tmp_path / path, (1, 2, 3))
    found = [hints for _, hints in samples.named(tmp_path, ("Granny Smith", "orange", "lemon"))]
    assert found == [frozenset({"Granny Smith"}), frozenset({"orange"})]

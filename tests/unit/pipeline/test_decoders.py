"""Model outputs: raw numbers become boxes at the right place, or an error that says what to check."""

from typing import Any

import msgspec
import numpy as np
import pytest

from eyeline.core.errors import InferenceError
from eyeline.pipeline.contract import Head, InputContract, ModelContract, OutputContract
from eyeline.pipeline.decoders import DECODERS, MAPS, MASKED, PAIRED, boxes_and_classes, classifications, detections
from eyeline.pipeline.geometry import Placement

WHOLE = Placement(1.0, 1.0, 0.0, 0.0, 416, 416)


def model(decoder: Any, labels: tuple[str, ...] = ("a", "b", "c"), **changes: Any) -> ModelContract:
    output = OutputContract(decoder=decoder, **changes)
    task: Any = DECODERS[decoder]
    return ModelContract(
        name="m",
        version="1",
        task=task,
        labels=labels,
        input=InputContract(name="images", size=(416, 416)),
        output=output,
    )


def yolox_row(cell: int, x: float, y: float, log_w: float, log_h: float, objectness: float, scores: list[float]) -> Any:
    out = np.zeros((2, 3549, 8), np.float32)
    out[1, cell] = [x, y, log_w, log_h, objectness, *scores]
    return {"output": out}


def test_yolox_boxes_are_relative_to_their_cell_and_stride() -> None:
    cell = 52 * 52 + 26 * 3 + 5  # stride 16, row 3, column 5
    outputs = yolox_row(cell, 0.5, 0.25, np.log(4), np.log(2), 0.9, [0.1, 0.8, 0.2])
    found = detections(outputs, model("yolox"), WHOLE, 1)
    assert found.class_ids.tolist() == [1]
    assert np.allclose(found.scores, 0.72)
    assert np.allclose(found.boxes, [[88 - 32, 52 - 16, 88 + 32, 52 + 16]])
    assert found.labels == ("a", "b", "c")
    assert len(detections(outputs, model("yolox"), WHOLE, 0)) == 0


def test_yolox_reports_nothing_under_the_threshold() -> None:
    outputs = yolox_row(0, 0.5, 0.5, 1, 1, 0.5, [0.5, 0.1, 0.1])
    assert len(detections(outputs, model("yolox", score_threshold=0.26), WHOLE, 1)) == 0
    assert len(detections(outputs, model("yolox", score_threshold=0.25), WHOLE, 1)) == 1


def test_yolov8_boxes_are_in_tensor_pixels_and_return_to_the_original() -> None:
    out = np.zeros((1, 7, 100), np.float32)
    out[0, :, 3] = [100, 200, 40, 20, 0.1, 0.2, 0.9]
    out[0, :, 4] = [101, 201, 40, 20, 0.1, 0.2, 0.8]  # the same thing again
    found = detections({"o": out}, model("yolov8"), Placement(0.5, 0.5, 0.0, 100.0, 800, 400))
    assert found.boxes.tolist() == [[160, 180, 240, 220]]
    assert found.class_ids.tolist() == [2]


def test_yolov5_scores_are_objectness_times_probability() -> None:
    out = np.zeros((1, 10647, 8), np.float32)
    out[0, 7] = [100, 200, 40, 20, 0.8, 0.1, 0.9, 0.2]
    out[0, 9] = [300, 200, 40, 20, 0.5, 0.5, 0.5, 0.5]  # 0.25, under the threshold
    found = detections({"output0": out}, model("yolov5"), WHOLE)
    assert found.boxes.tolist() == [[80, 190, 120, 210]]
    assert (found.class_ids.tolist(), found.scores.tolist()) == ([1], [pytest.approx(0.72)])
    with pytest.raises(InferenceError, match=r"wants \[anchors, 8\]"):
        detections({"output0": out[:, :, :7]}, model("yolov5"), WHOLE)


def test_boxes_chosen_in_the_graph_are_corners_score_and_class_and_rows_of_noughts_fill_up() -> None:
    out = np.zeros((1, 300, 6), np.float32)
    out[0, 0] = [100, 200, 140, 220, 0.9, 2]
    found = detections({"output0": out}, model("end2end"), Placement(0.5, 0.5, 0.0, 100.0, 800, 400))
    assert found.boxes.tolist() == [[200, 200, 280, 240]]
    assert (found.class_ids.tolist(), found.scores.tolist()) == ([2], pytest.approx([0.9]))
    out[0, 0, 5] = 3
    with pytest.raises(InferenceError, match="class 3 and has 3 labels"):
        detections({"output0": out}, model("end2end"), WHOLE)


def queries(classes: list[list[float]]) -> dict[str, Any]:
    boxes = np.array([[[0.25, 0.5, 0.1, 0.2], [0.75, 0.5, 0.1, 0.2]]], np.float32)
    return {"logits": np.array([classes], np.float32), "pred_boxes": boxes}


def test_detr_reads_the_last_class_as_nothing_and_boxes_as_shares() -> None:
    found = detections(queries([[0, 5, 0, 0], [0, 2, 0, 5]]), model("detr"), WHOLE)
    assert np.allclose(found.boxes, [[83.2, 166.4, 124.8, 249.6]], atol=1e-3)
    assert found.class_ids.tolist() == [1]
    assert found.scores[0] == pytest.approx(np.exp(5) / (np.exp(5) + 3))


def test_rfdetr_reads_each_class_for_itself() -> None:
    found = detections(queries([[-5, 2, 1], [-5, -5, -5]]), model("rfdetr"), WHOLE)
    assert found.class_ids.tolist() == [1]
    assert found.scores[0] == pytest.approx(1 / (1 + np.exp(-2)))


def test_the_two_outputs_of_a_detr_are_told_apart_by_shape_and_then_by_name() -> None:
    four, three = np.zeros((1, 9, 4)), np.zeros((1, 9, 3))
    assert boxes_and_classes({"b": three, "a": four}) == ("a", "b")
    assert boxes_and_classes({"dets": four, "labels": four}) == ("dets", "labels")
    assert boxes_and_classes({"logits": four, "pred_boxes": four}) == ("pred_boxes", "logits")
    assert boxes_and_classes({"x": four, "y": four}) is None
    assert boxes_and_classes({"x": four, "y": np.zeros((1, 8, 3))}) is None
    with pytest.raises(InferenceError, match="wants boxes"):
        detections({"x": four}, model("detr"), WHOLE)


def test_boxes_in_the_letterboxs_bars_are_not_reported() -> None:
    out = np.zeros((1, 7, 10), np.float32)
    out[0, :, 0] = [50, 20, 40, 20, 0.9, 0, 0]
    assert len(detections({"o": out}, model("yolov8"), Placement(1.0, 1.0, 0.0, 100.0, 400, 200))) == 0


def test_at_most_max_detections_best_first() -> None:
    out = np.zeros((1, 7, 3549), np.float32)
    out[0, 0] = np.arange(3549) % 400
    out[0, 1] = np.arange(3549) // 10
    out[0, 2:4] = 1
    out[0, 4] = np.linspace(0.3, 1, 3549)
    found = detections({"o": out}, model("yolov8", max_detections=7), WHOLE)
    assert len(found) == 7
    assert (np.diff(found.scores) <= 0).all()


def test_logits_become_probabilities_cooled_by_the_temperature() -> None:
    out = np.array([[0, 0, 0], [2, 1, 0]], np.float32)
    (hot,) = classifications({"o": out}, model("logits"), 1)
    (cold,) = classifications({"o": out}, model("logits", temperature=2.0), 1)
    assert hot.label == cold.label == "a"
    assert hot.score == pytest.approx(np.exp(2) / (np.exp(2) + np.exp(1) + 1), abs=1e-6)
    assert cold.score < hot.score


def test_softmax_is_taken_as_it_is_and_top_says_how_many() -> None:
    answers = classifications({"o": np.array([[0.2, 0.7, 0.1]], np.float32)}, model("softmax", top=2))
    assert [(answer.label, round(answer.score, 3), answer.head) for answer in answers] == [
        ("b", 0.7, None),
        ("a", 0.2, None),
    ]


def test_several_heads_answer_each_for_itself() -> None:
    heads = (Head(name="fine", output="f", labels=("x", "y")), Head(name="coarse", output="c", labels=("p", "q", "r")))
    outputs = {"f": np.array([[0, 5]], np.float32), "c": np.array([[9, 0, 0]], np.float32)}
    answers = classifications(outputs, model("logits", heads=heads))
    assert [(answer.label, answer.head) for answer in answers] == [("y", "fine"), ("p", "coarse")]
    with pytest.raises(InferenceError, match="no output 'c'"):
        classifications({"f": outputs["f"]}, model("logits", heads=heads))


def read(outputs: dict[str, Any], decoder: str, index: int = 0) -> Any:
    if DECODERS[decoder] == "detection":
        return detections(outputs, model(decoder), WHOLE, index)
    return classifications(outputs, model(decoder), index)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("decoder", sorted(DECODERS))
def test_nan_and_infinity_are_refused_for_their_own_image_alone(decoder: str, value: float) -> None:
    shape = {
        "yolox": (2, 3549, 8), "yolov8": (2, 7, 100), "yolov5": (2, 9, 8), "detr": (2, 9, 4), "rfdetr": (2, 9, 3),
        "end2end": (2, 9, 6), "end2end-seg": (2, 9, 8), "yolov8-seg": (2, 9, 100), "segmentation": (2, 3, 4, 4),
        "segmentation-probabilities": (2, 3, 4, 4),
        "classmap": (2, 4, 4), "anomaly": (2, 1, 4, 4),
    }.get(decoder, (2, 3))  # fmt: skip
    out = np.zeros(shape, np.float32)
    out[1].flat[-1] = value
    outputs = {"o": out} | ({"boxes": np.ones((2, 9, 4), np.float32)} if decoder in PAIRED else {})
    outputs |= {"prototypes": np.zeros((2, 2, 4, 4), np.float32)} if decoder in MASKED else {}
    read(outputs, decoder, 0)
    with pytest.raises(InferenceError, match="NaN or infinity"):
        read(outputs, decoder, 1)


@pytest.mark.parametrize("decoder", sorted(DECODERS))
def test_an_output_of_another_shape_says_what_to_check(decoder: str) -> None:
    outputs = {"o": np.zeros((1, 2, 5, 5) if decoder in MAPS else (1, 5, 5), np.float32)}
    with pytest.raises(InferenceError, match="check labels and decoder"):
        read(outputs | ({"boxes": np.ones((1, 5, 4), np.float32)} if decoder in PAIRED else {}), decoder)


def test_a_classifier_gives_no_boxes_and_a_detector_no_labels() -> None:
    with pytest.raises(InferenceError, match="gives no boxes"):
        detections({}, model("logits"), WHOLE)
    with pytest.raises(InferenceError, match="not labels"):
        classifications({}, model("yolox"))


def test_the_contract_knows_every_decoder() -> None:
    decoder = msgspec.inspect.type_info(OutputContract)
    assert isinstance(decoder, msgspec.inspect.StructType)
    known = next(field.type for field in decoder.fields if field.name == "decoder")
    assert isinstance(known, msgspec.inspect.LiteralType)
    assert set(known.values) == set(DECODERS)

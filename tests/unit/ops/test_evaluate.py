"""Figures that can be worked out by hand, and bundles measured through the code that serves them."""

import csv
import json
import math
from pathlib import Path

import cv2
import pytest

from eyeline.core.errors import ConfigError
from eyeline.inference.bundles import ExpectedDetection, load_bundle
from eyeline.ops import scores
from eyeline.ops.evaluate import evaluate
from eyeline.ops.scores import NOTHING, Named, Seen, Truth
from tests.fake_models import grey_picture, write_box_bundle, write_brightness_bundle

A, B, FAR = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (50.0, 50.0, 60.0, 60.0)


def box(label: str, score: float, place: scores.Box) -> ExpectedDetection:
    return ExpectedDetection(label, score, place)


def test_a_truth_is_found_once_and_by_the_best_box() -> None:
    picture = Seen([Truth("cut", A)], [box("cut", 0.9, A), box("cut", 0.8, A), box("dot", 0.7, A)])
    assert scores.matched(picture, 0.5) == [True, False, False]


def test_f_score_counts_misses_and_false_alarms() -> None:
    pictures = [Seen([Truth("cut", A), Truth("cut", B)], [box("cut", 0.9, A), box("cut", 0.4, FAR)])]
    assert scores.f_scores(pictures, 0.5, 0.3)["at_threshold"] == {
        "threshold": 0.3,
        "precision": 0.5,
        "recall": 0.5,
        "f": 0.5,
    }
    assert scores.f_scores(pictures, 0.5, 0.3)["best"]["threshold"] == 0.9


def test_average_precision_is_one_for_a_perfect_model_and_counts_recall() -> None:
    pytest.importorskip("pycocotools")
    perfect = [Seen([Truth("cut", A), Truth("dot", B)], [box("cut", 0.9, A), box("dot", 0.8, B)])]
    assert scores.average_precision(perfect, ("cut", "dot", "never"), 0.5) == pytest.approx({"cut": 1.0, "dot": 1.0})
    half = [Seen([Truth("cut", A), Truth("cut", B)], [box("cut", 0.9, A)])]
    assert scores.average_precision(half, ("cut",), 0.5)["cut"] == pytest.approx(0.5, abs=0.01)
    assert scores.average_precision([Seen([Truth("cut", A)], [])], ("cut",), 0.5) == {"cut": 0.0}


def test_confusion_of_boxes_tells_mistaken_from_missed_and_false() -> None:
    picture = Seen([Truth("cut", A), Truth("dot", B)], [box("dot", 0.9, A), box("cut", 0.8, FAR), box("cut", 0.1, B)])
    assert scores.confusion_of_boxes([picture], 0.5, 0.3) == {
        "cut": {"dot": 1},
        "dot": {NOTHING: 1},
        NOTHING: {"cut": 1},
    }


def test_calibration_error_is_the_gap_between_score_and_truth() -> None:
    assert scores.calibration_error([0.8] * 10, [True] * 8 + [False] * 2) == pytest.approx(0.0)
    assert scores.calibration_error([0.9] * 10, [True] * 5 + [False] * 5) == pytest.approx(0.4)
    assert scores.calibration_error([], []) == 0.0


def test_auroc_counts_ties_half() -> None:
    assert scores.auroc([0.9, 0.8, 0.2, 0.1], [True, True, False, False]) == 1.0
    assert scores.auroc([0.5, 0.5], [True, False]) == 0.5
    assert scores.auroc([0.1, 0.9, 0.5], [True, False, False]) == 0.0
    assert math.isnan(scores.auroc([0.1], [True]))


def test_f_by_label_knows_precision_and_recall() -> None:
    answers = [Named("a", "a", 1, {}), Named("a", "b", 1, {}), Named("b", "b", 1, {})]
    assert scores.f_by_label(scores.confusion_of_labels(answers)) == {
        "a": pytest.approx(2 / 3),
        "b": pytest.approx(2 / 3),
    }


def _labelled(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    path = folder / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label", "split"), *rows])
    return path


def _greys(folder: Path, *levels: float) -> None:
    for level in levels:
        (folder / f"{level}.png").write_bytes(grey_picture(level))


def test_a_classifier_is_measured_through_the_code_that_serves(tmp_path: Path) -> None:
    bundle = load_bundle(write_brightness_bundle(tmp_path / "models"))
    _greys(tmp_path, 0.1, 0.2, 0.6, 0.9)
    rows = [
        ("0.1.png", "dark", "val"),
        ("0.2.png", "bright", "val"),
        ("0.6.png", "bright", "val"),
        ("0.9.png", "dark", "train"),
    ]
    done: list[tuple[int, int]] = []
    measured = evaluate(
        bundle,
        _labelled(tmp_path, rows),
        where={"split": "val"},
        out=tmp_path / "out",
        progress=lambda n, of: done.append((n, of)),
    )
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert measured.metrics["accuracy"] == pytest.approx(2 / 3)
    assert measured.metrics["confusion"] == {"dark": {"dark": 1}, "bright": {"dark": 1, "bright": 1}}
    assert measured.metrics["auroc"] == {"dark": 1.0}
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["images"] == 3
    assert [path.name for path in measured.files] == ["metrics.json", "confusion.png", "worst.png"]
    assert cv2.imread(str(tmp_path / "out" / "worst.png")) is not None


def test_a_detector_is_measured_on_boxes(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    bundle = load_bundle(write_box_bundle(tmp_path / "models"))
    _greys(tmp_path, 0.05, 0.5, 0.9)
    middle = [16, 12, 48, 36, "thing"]
    rows = [
        {"image": "0.9.png", "boxes": [middle]},
        {"image": "0.5.png", "boxes": [middle, [0, 0, 9, 9, "thing"]]},
        {"image": "0.05.png", "boxes": []},
    ]
    data = tmp_path / "boxes.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = evaluate(bundle, data, out=tmp_path / "out").metrics
    assert metrics["f_score"]["at_threshold"]["precision"] == 1.0
    assert metrics["f_score"]["at_threshold"]["recall"] == pytest.approx(2 / 3)
    assert metrics["mAP"] == pytest.approx(2 / 3, abs=0.02)
    assert metrics["confusion"] == {"thing": {"thing": 2, NOTHING: 1}}
    assert (tmp_path / "out" / "worst.png").exists()


def test_a_picture_that_cannot_be_read_is_named_and_not_counted(tmp_path: Path) -> None:
    bundle = load_bundle(write_brightness_bundle(tmp_path / "models"))
    _greys(tmp_path, 0.1)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    metrics = evaluate(bundle, _labelled(tmp_path, [("0.1.png", "dark", ""), ("broken.png", "dark", "")])).metrics
    assert metrics["images"] == 1
    assert list(metrics["refused"]) == ["broken.png"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("none.csv", None, "no labelled data"),
        ("a.jsonl", "{}", "a classifier is measured on a .csv"),
        ("a.csv", "image,klass\na.png,dark\n", "no column label; it has image, klass"),
        ("a.csv", "image,label\n", "no labelled picture"),
        ("a.csv", "image,label\na.png,brihgt\n", "does not know: brihgt. Did you mean 'bright'?"),
        ("a.csv", "image,label\na.png,dark\n", "can be read"),
    ],
)
def test_data_that_do_not_fit_are_refused_in_words(tmp_path: Path, name: str, text: str | None, says: str) -> None:
    bundle = load_bundle(write_brightness_bundle(tmp_path / "models"))
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        evaluate(bundle, tmp_path / name)
    assert says in str(caught.value)


def test_a_line_that_is_no_box_is_named_by_its_number(tmp_path: Path) -> None:
    bundle = load_bundle(write_box_bundle(tmp_path / "models"))
    (tmp_path / "a.jsonl").write_text('{"image": "a.png", "boxes": []}\n{"image": "b.png", "boxes": [[1, 2]]}\n')
    with pytest.raises(ConfigError, match="line 2"):
        evaluate(bundle, tmp_path / "a.jsonl")

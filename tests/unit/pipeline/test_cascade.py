"""Where a small model is unsure, and how its answer makes room."""

from eyeline.core.types import Classification, Detection
from eyeline.pipeline import cascade

BOX = (0.0, 0.0, 1.0, 1.0)


def test_a_band_holds_its_lower_end_and_nothing_at_all_is_not_unsure() -> None:
    assert cascade.unsure([0.3], (0.3, 0.7))
    assert not cascade.unsure([0.7, 0.1], (0.3, 0.7))
    assert not cascade.unsure([], (0.0, 1.0))


def test_the_best_label_of_each_head_and_every_box_decide() -> None:
    labels = [Classification(name, score, step) for name, score, step in
              (("good", 0.9, "s.state"), ("bad", 0.1, "s.state"), ("up", 0.6, "s.side"), ("x", 0.5, "other"))]  # fmt: skip
    boxes = [Detection("a", 0.8, BOX, "s"), Detection("a", 0.4, BOX, "other")]
    assert sorted(cascade.scores(boxes, labels, "s")) == [0.6, 0.8, 0.9]


def test_a_crops_labels_of_one_step_are_taken_away() -> None:
    entries = [{"label": "a", "score": 0.5, "step": "small.x"}, {"label": "b", "score": 0.9, "step": "smaller"}]
    crop = Detection("box", 0.9, BOX, "find", {"classifications": entries})
    assert cascade.crop_scores(crop, "small") == [0.5]
    cascade.forget(crop, "small")
    assert [entry["label"] for entry in crop.attributes["classifications"]] == ["b"]

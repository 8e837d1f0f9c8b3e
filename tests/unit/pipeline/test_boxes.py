"""Boxes: overlap and suppression."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.pipeline.boxes import area, clip, iou, nms


def boxes_of(rng: np.random.Generator, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    corner = rng.random((count, 2)) * 100
    return np.concatenate([corner, corner + rng.random((count, 2)) * 40], axis=1).astype(np.float32)


def slow_nms(boxes: np.ndarray, scores: np.ndarray, class_ids: np.ndarray, threshold: float, limit: int) -> list[int]:
    keep: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        rivals = [k for k in keep if class_ids[k] == class_ids[index]]
        if all(iou(boxes[index][None], boxes[k][None])[0, 0] <= threshold for k in rivals):
            keep.append(int(index))
    return keep[:limit]


@given(
    seed=st.integers(0, 10_000), count=st.integers(0, 600), classes=st.integers(1, 5), limit=st.sampled_from([3, 100])
)
@settings(max_examples=25, deadline=None)
def test_suppression_keeps_what_the_plain_definition_keeps(seed: int, count: int, classes: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = boxes_of(rng, count), rng.random(count).astype(np.float32)
    class_ids = rng.integers(0, classes, count)
    small = min(count, 60)
    kept = nms(boxes[:small], scores[:small], class_ids[:small], 0.5, limit)
    assert kept.tolist() == slow_nms(boxes[:small], scores[:small], class_ids[:small], 0.5, limit)
    everything = nms(boxes, scores, class_ids, 0.5, count)
    overlaps = iou(boxes[everything], boxes[everything]) * (class_ids[everything][:, None] == class_ids[everything])
    np.fill_diagonal(overlaps, 0)
    assert not len(everything) or overlaps.max() <= 0.5 + 1e-3
    assert (np.diff(scores[everything]) <= 0).all()


def test_overlap_of_known_boxes() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 10, 20, 20], [3, 3, 3, 3]], np.float32)
    assert np.allclose(iou(a, b), [[1, 1 / 3, 0, 0]])


def test_boxes_of_different_classes_do_not_suppress_each_other() -> None:
    box = np.array([[0, 0, 10, 10]] * 2, np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert nms(box, scores, np.array([0, 1]), 0.5, 10).tolist() == [0, 1]
    assert nms(box, scores, np.array([1, 1]), 0.5, 10).tolist() == [0]


def test_inside_out_boxes_have_no_area_and_clipping_cuts_at_the_borders() -> None:
    assert area(np.array([[10, 10, 5, 20]], np.float32)).tolist() == [0]
    assert clip(np.array([[-5, -5, 50, 50]], np.float32), 20, 30).tolist() == [[0, 0, 20, 30]]

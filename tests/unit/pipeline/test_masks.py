"""Masks: polygons of the right shape in the right place, few points, and the same as the numbers read another way."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from eyeline.core.types import Floats, Mask
from eyeline.pipeline import masks
from eyeline.pipeline.contract import InputContract, ModelContract, OutputContract, Scale
from eyeline.pipeline.decoders import classifications, detections
from eyeline.pipeline.geometry import Placement, filled
from eyeline.pipeline.maps import anomaly, normalised, upright

SAME = Placement(1.0, 1.0, 0.0, 0.0, 640, 640)


def model(decoder: str, task: str = "detection", labels: tuple[str, ...] = ("a",), size: int = 64) -> ModelContract:
    return ModelContract(
        name="m",
        version="1",
        task=task,  # type: ignore[arg-type]
        labels=labels,
        input=InputContract(name="x", size=(size, size)),
        output=OutputContract(decoder=decoder),  # type: ignore[arg-type]
    )


def blobs(seed: int) -> Floats:
    """[8, 160, 160] smooth prototypes."""
    noise = np.random.default_rng(seed).normal(size=(8, 160, 160)).astype(np.float32)
    return np.stack([cv2.GaussianBlur(each, (0, 0), 9) * 20 for each in noise])


def by_hand(weights: Floats, prototypes: Floats, box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Ultralytics' way: the whole map enlarged to the picture, over a half after the sigmoid, cut to the box."""
    whole = cv2.resize((weights[:, None, None] * prototypes).sum(axis=0), (640, 640), interpolation=cv2.INTER_LINEAR)
    mask: NDArray[np.bool_] = 1 / (1 + np.exp(-whole)) > 0.5
    cut = np.zeros_like(mask)
    left, top, right, bottom = box
    cut[top:bottom, left:right] = mask[top:bottom, left:right]
    return cut


@pytest.mark.parametrize("seed", range(4))
def test_the_masks_of_yolo_are_those_of_another_way_of_reading_them(seed: int) -> None:
    prototypes, box = blobs(seed), (200, 160, 480, 400)
    row = np.zeros((1, 13, 4), np.float32)
    row[0, :4, 2] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]]
    row[0, 4, 2] = 0.9
    row[0, 5:, 2] = np.random.default_rng(seed).normal(size=8)
    outputs = {"boxes": row, "prototypes": prototypes[None]}
    found = detections(outputs, model("yolov8-seg", size=640), SAME)
    wanted = by_hand(row[0, 5:, 2], prototypes, box)
    got = filled(found.masks[0].polygons, 640, 640)
    # holes are not kept, and what is smaller than the eighth largest part is not either
    closed = filled(
        [edge.reshape(-1).tolist() for edge in cv2.findContours(wanted.astype(np.uint8), 0, 1)[0] if len(edge) > 2],
        640,
        640,
    )
    assert (got & closed).sum() / (got | closed).sum() > 0.93
    assert found.masks[0].area == pytest.approx(got.sum(), rel=0.05)


def test_a_mask_has_few_points_however_rough_its_edge() -> None:
    rough = np.random.default_rng(1).normal(size=(200, 200)).astype(np.float32)
    mask = masks.mask_of(rough, 0.0, (0.0, 0.0), (1.0, 1.0), SAME)
    assert mask is not None
    assert len(mask.polygons) <= masks.MOST_POLYGONS
    assert sum(len(polygon) // 2 for polygon in mask.polygons) <= masks.MOST_POINTS


def test_a_mask_is_cut_at_the_border_of_the_picture() -> None:
    letterboxed = Placement(1.0, 1.0, 0.0, 16.0, 64, 32)
    mask = masks.mask_of(np.ones((64, 32), np.float32), 0.5, (0.0, 0.0), (1.0, 1.0), letterboxed)
    assert mask is not None
    assert mask.area == pytest.approx(32 * 32, rel=0.03)
    above = Placement(1.0, 1.0, 0.0, 40.0, 64, 8)
    assert masks.mask_of(np.ones((30, 32), np.float32), 0.5, (0.0, 0.0), (1.0, 1.0), above) is None


def test_overlap_of_masks() -> None:
    square = Mask([[0, 0, 10, 0, 10, 10, 0, 10]], 100.0)
    half = Mask([[0, 0, 5, 0, 5, 10, 0, 10]], 50.0)
    assert masks.overlap(square, square) == 1.0
    assert masks.overlap(square, half) == pytest.approx(0.5, abs=0.02)
    assert masks.overlap(half, Mask([[7, 0, 10, 0, 10, 10]], 1.0)) == 0.0


def test_specks_are_no_regions() -> None:
    ids = np.zeros((1, 64, 64), np.float32)
    ids[0, 5, 5] = 1
    ids[0, 30:40, 30:40] = 1
    contract = model("classmap", labels=("background", "thing"))
    small = Placement(1.0, 1.0, 0.0, 0.0, 64, 64)
    assert len(detections({"o": ids}, contract, small)) == 2  # one pixel of 4096 is a speck from 0.0002 on
    tidy = ModelContract(
        **{f: getattr(contract, f) for f in contract.__struct_fields__}
        | {"output": OutputContract(decoder="classmap", min_region=0.01)}
    )
    assert len(detections({"o": ids}, tidy, small)) == 1


def test_scores_are_normalised_as_anomalib_does() -> None:
    scale = Scale(threshold=20.0, minimum=5.0, maximum=45.0)
    values = np.array([5.0, 20.0, 30.0, 80.0], np.float32)
    assert normalised(values, scale).tolist() == pytest.approx([0.125, 0.5, 0.75, 1.0])


def test_an_anomaly_in_the_bars_of_a_letterbox_is_none() -> None:
    heat = np.zeros((1, 1, 64, 64), np.float32)
    heat[0, 0, :8] = 1.0
    wide = Placement(1.0, 1.0, 0.0, 16.0, 64, 32)
    contract = model("anomaly", "anomaly", ("anomalous", "normal"))
    assert classifications({"o": heat}, contract, placement=wide)[0].label == "normal"
    assert len(detections({"o": heat}, contract, wide)) == 0
    heat[0, 0, 30:40, 10:20] = 0.9
    assert classifications({"o": heat}, contract, placement=wide)[0].label == "anomalous"
    assert detections({"o": heat}, contract, wide).boxes[0].tolist() == pytest.approx([10, 14, 20, 24], abs=0.6)
    assert anomaly({"o": heat}, contract, wide).share == pytest.approx(100 / 64**2)
    laid = upright(anomaly({"o": heat}, contract, wide), contract, wide, 64, 32)
    assert laid.shape == (32, 64)
    assert laid[19, 15] == pytest.approx(0.9, abs=0.01)
    assert laid[:10].max() < 0.01

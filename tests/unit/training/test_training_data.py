"""Reading labelled folders, and splits that do not leak."""

from pathlib import Path

import numpy as np
import pytest

from training import augment, data
from training.data import Sample
from training.render.boards_defects import LABELS


def test_a_split_shares_no_group() -> None:
    groups = [f"board-{i % 7}" for i in range(100)]
    train, held = data.split_by_group(groups, 0.3)

    assert {groups[i] for i in train}.isdisjoint(groups[i] for i in held)
    assert sorted(train + held) == list(range(100))
    assert held


def test_a_single_group_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="two groups"):
        data.split_by_group(["a"] * 5, 0.2)


def test_the_real_boards_split_by_board(shared_data: Path) -> None:
    items = data.read_annotations(shared_data / "pcb")
    train, held = data.split_by_group([item.group for item in items], 0.2)

    assert len(items) == 1000
    assert {items[i].group for i in train}.isdisjoint(items[i].group for i in held)


def test_copies_of_a_picture_are_one_group() -> None:
    rng = np.random.default_rng(0)
    one, other = (np.kron(rng.integers(0, 256, (12, 12)), np.ones((8, 8))).astype(np.uint8) for _ in range(2))
    brighter = np.clip(one.astype(int) + 5, 0, 255).astype(np.uint8)
    groups = data.near_duplicate_groups([one, other, brighter])

    assert groups[0] == groups[2] != groups[1]


def test_a_written_folder_reads_back_the_same(tmp_path: Path) -> None:
    image = np.arange(64 * 64, dtype=np.uint32).reshape(64, 64).astype(np.uint8)
    sample = Sample(image, np.array([[1, 2, 30, 40]], np.float32), np.array([3]))
    data.write_annotations(tmp_path, [("a", "g", sample)], LABELS)
    (item,) = data.read_annotations(tmp_path)
    back = data.load(item, LABELS, grey=True)

    assert item.group == "g"
    assert np.array_equal(back.image, image)
    assert np.array_equal(back.boxes, sample.boxes)
    assert back.classes.tolist() == [3]


def test_an_unknown_label_is_refused_by_name(tmp_path: Path) -> None:
    sample = Sample(np.zeros((8, 8), np.uint8), np.array([[0, 0, 4, 4]], np.float32), np.array([0]))
    data.write_annotations(tmp_path, [("a", "g", sample)], ["scratch"])

    with pytest.raises(ValueError, match="scratch"):
        data.load(data.read_annotations(tmp_path)[0], LABELS)


@pytest.mark.parametrize("seed", range(8))
def test_boxes_follow_their_pixels_through_every_symmetry(seed: int) -> None:
    image = np.zeros((40, 40), np.uint8)
    image[5:12, 20:36] = 255
    moved = augment.symmetry(
        Sample(image, np.array([[20, 5, 36, 12]], np.float32), np.array([0])), np.random.default_rng(seed)
    )
    x1, y1, x2, y2 = moved.boxes[0].astype(int)

    assert (moved.image[y1:y2, x1:x2] == 255).all()
    assert (moved.image == 255).sum() == (image == 255).sum()


def test_a_crop_keeps_boxes_on_their_pixels() -> None:
    image = np.zeros((200, 200), np.uint8)
    image[80:120, 60:140] = 255
    sample = Sample(image, np.array([[60, 80, 140, 120]], np.float32), np.array([0]))
    for seed in range(10):
        cut = augment.crop(sample, np.random.default_rng(seed), (160, 160), zoom=(0.9, 1.1), pad=0)
        ys, xs = np.nonzero(cut.image > 128)
        for box in cut.boxes:
            assert np.abs(box - [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).max() <= 1.5


def test_a_threshold_leaves_two_tones_and_an_even_picture_alone() -> None:
    rng = np.random.default_rng(0)
    ramp = np.tile(np.arange(40, 200, dtype=np.uint8), (8, 1))
    even = np.full((8, 8), 250, np.uint8)

    assert set(np.unique(augment.threshold(ramp, rng))) == {0, 255}
    assert np.array_equal(augment.threshold(even, rng), even)

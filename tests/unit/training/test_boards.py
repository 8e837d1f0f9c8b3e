"""The board renderer: same seed, same picture; and its truth is exact."""

import numpy as np
import pytest

from training.render import boards, boards_brush
from training.render.boards_defects import LABELS, plant

SEEDS = range(40, 46)


def test_the_same_seed_gives_the_same_board() -> None:
    one, two = boards.render(7), boards.render(7)

    assert np.array_equal(one.image, two.image)
    assert one.defects == two.defects


def test_another_seed_gives_another_board() -> None:
    assert not np.array_equal(boards.render(7).image, boards.render(8).image)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_changed_pixel_lies_in_a_stroke_and_every_stroke_in_its_box(seed: int) -> None:
    board = boards.render(seed, defects=12)
    changed = (board.image > 128) != (board.clean > 128)
    explained = np.zeros_like(changed)
    for defect in board.defects:
        x1, y1, x2, y2 = defect.stroke
        assert changed[y1:y2, x1:x2].any()
        assert defect.box[0] <= x1 < x2 <= defect.box[2]
        assert defect.box[1] <= y1 < y2 <= defect.box[3]
        explained[y1:y2, x1:x2] = True

    assert board.defects
    assert not (changed & ~explained).any()


def test_a_good_board_has_no_defects_and_no_change() -> None:
    board = boards.render(3, defects=0)

    assert board.defects == ()
    assert np.array_equal(board.image, board.clean)


def test_the_looks_share_their_truth() -> None:
    assert boards.render(5, "grey").defects == boards.render(5, "binary").defects


def test_copper_is_dark_in_both_looks() -> None:
    binary, grey = boards.render(5, "binary", defects=0), boards.render(5, "grey", defects=0)
    copper = binary.image < 128

    assert grey.image[copper].mean() + 50 < grey.image[~copper].mean()


def test_defects_add_or_remove_copper_as_their_name_says() -> None:
    bars = np.zeros((640, 640), bool)
    bars[:, 100:540:80] = True
    bars |= np.roll(bars, 1, 1) | np.roll(bars, 2, 1)
    for shift in range(3, 30):
        bars[:, 100 + shift : 540 + shift : 80] = True
    adds = {"short": True, "spur": True, "copper": True, "open": False, "mousebite": False, "pin-hole": False}
    for label in LABELS:
        after, planted = plant(np.random.default_rng(1), bars, [label] * 4)

        assert {d.label for d in planted} == {label}
        assert (after & ~bars).any() == adds[label]
        assert (bars & ~after).any() != adds[label]


def test_a_worn_stroke_stays_within_what_a_good_brush_covers() -> None:
    path = np.array([[40.0, 40.0], [70.0, 52.0]])
    good = boards_brush.paint(np.random.default_rng(0), path, 6.0, uneven=0.0)
    for seed in range(12):
        left = boards_brush.worn(np.random.default_rng(seed), good)

        assert left.mask.any()
        assert not (left.mask & ~good.mask).any()


def test_a_hollow_stroke_counts_as_a_solid_one() -> None:
    ring = np.zeros((30, 30), bool)
    ring[5:25, 5:25] = True
    ring[8:22, 8:22] = False

    assert boards_brush.solid(ring)[5:25, 5:25].all()
    assert boards_brush.solid(ring).sum() == 400


def test_a_wandering_path_is_as_long_as_asked() -> None:
    for seed in range(10):
        path = boards_brush.wander(np.random.default_rng(seed), np.array([50.0, 60.0]), 20.0)

        assert np.ptp(path, axis=0).max() == pytest.approx(20.0)
        assert np.abs(path - [50, 60]).max() <= 10.0 + 1e-6

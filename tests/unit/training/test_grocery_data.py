"""What the inventory model learns from, is chosen on and is examined on: no photograph twice."""

from pathlib import Path

import numpy as np
import pytest

from training import grocery_data
from training.grocery_data import Photo, splits


def _photo(name: str, split: str, fine: str = "Kiwi") -> Photo:
    return Photo(Path(name), split, fine, "Fruit")


def test_no_near_duplicate_group_of_the_groceries_is_on_two_sides(shared_data: Path) -> None:
    photos = grocery_data.read_photos(shared_data / "grocery")
    groups = grocery_data.near_groups(photos)
    parts = splits(photos, groups)
    learn, choose, val = ({groups[i] for i in rows} for rows in (parts.learn, parts.choose, parts.val))

    assert len(photos) == 2936
    assert len(parts.val) == 296
    assert learn.isdisjoint(choose)
    assert learn.isdisjoint(val)
    assert choose.isdisjoint(val)


def test_a_copy_of_a_val_picture_is_not_learned_from() -> None:
    photos = [_photo("a", "train"), _photo("b", "train"), _photo("c", "train"), _photo("d", "val")]
    parts = splits(photos, ["one", "two", "three", "one"], share=0.3)

    assert parts.val == [3]
    assert sorted(parts.learn + parts.choose) == [1, 2]


def test_each_kind_has_its_family() -> None:
    photos = [Photo(Path("a"), "train", "Lemon", "Citrus"), Photo(Path("b"), "train", "Kiwi", "Berry")]
    fine, coarse, parents = grocery_data.label_sets(photos)

    assert fine == ("Kiwi", "Lemon")
    assert [coarse[parent] for parent in parents] == ["Berry", "Citrus"]


@pytest.mark.parametrize("seed", range(6))
def test_a_varied_picture_is_another_of_the_wanted_size_and_the_same_for_the_same_seed(seed: int) -> None:
    picture = np.random.default_rng(9).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    one, same = (grocery_data.varied(picture, np.random.default_rng(seed), 48) for _ in range(2))

    assert one.shape == (48, 48, 3)
    assert np.array_equal(one, same)

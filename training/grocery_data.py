"""Photographs of groceries: reading them, keeping near-duplicates together, and what other phones and shops would make of one.

A folder holds `labels.csv` with the columns image, split (train or val), fine and coarse. No PyTorch here.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from training import augment
from training.data import Picture, near_duplicate_groups, read_picture, split_by_group


@dataclass(frozen=True)
class Photo:
    """A photograph on disk and what it shows; `split` is the data set's own."""

    path: Path
    split: str
    fine: str
    coarse: str


def read_photos(folder: Path) -> list[Photo]:
    """The photographs that `labels.csv` lists, in its order."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        return [Photo(folder / row["image"], row["split"], row["fine"], row["coarse"]) for row in csv.DictReader(file)]


def label_sets(photos: Sequence[Photo]) -> tuple[tuple[str, ...], tuple[str, ...], list[int]]:
    """(fine labels, coarse labels, for each fine label the index of its coarse one), sorted by name."""
    parents = {photo.fine: photo.coarse for photo in photos}
    fine, coarse = tuple(sorted(parents)), tuple(sorted(set(parents.values())))
    return fine, coarse, [coarse.index(parents[label]) for label in fine]


def near_groups(photos: Sequence[Photo]) -> list[str]:
    """The near-duplicate group of each photograph: the unit of every split and interval."""
    return near_duplicate_groups([read_picture(photo.path, grey=True) for photo in photos])


@dataclass(frozen=True)
class Splits:
    """Indices of photographs. No near-duplicate group is in two of them; `learn` and `choose` are of the set's train split."""

    learn: list[int]
    choose: list[int]
    val: list[int]


def splits(photos: Sequence[Photo], groups: Sequence[str], share: float = 0.15) -> Splits:
    """What is learned from, what the input's side is chosen on, and the set's own val split, which examines.

    A train photograph that nearly repeats one of val is in none of the three.
    """
    val = [i for i, photo in enumerate(photos) if photo.split == "val"]
    seen = {groups[i] for i in val}
    train = [i for i, photo in enumerate(photos) if photo.split == "train" and groups[i] not in seen]
    learn, choose = split_by_group([groups[i] for i in train], share)
    return Splits([train[i] for i in learn], [train[i] for i in choose], val)


def varied(image: Picture, rng: np.random.Generator, side: int) -> Picture:
    """Another view: a turned, skewed and mirrored part of the picture, in other light, from a worse camera."""
    image = _window(image, rng, side)
    if rng.random() < 0.8:
        image = _coloured(augment.tones(image, rng, 0.35), rng)
    if rng.random() < 0.15:
        image = augment.blur(image, rng, 1.5)
    if rng.random() < 0.15:
        image = augment.noise(image, rng, float(rng.uniform(2, 10)))
    if rng.random() < 0.2:
        image = augment.recompress(image, rng, 30)
    return augment.cutout(image, rng, 0.45) if rng.random() < 0.35 else image


def _window(image: Picture, rng: np.random.Generator, side: int) -> Picture:
    """A quadrilateral of 25 to 100 % of the picture's area, brought to a square: crop, turn, skew and mirror in one step."""
    height, width = image.shape[:2]
    share, aspect = rng.uniform(0.25, 1.0) ** 0.5, float(np.exp(rng.uniform(-0.3, 0.3)))
    half = np.array([width * min(1.0, share * aspect**0.5), height * min(1.0, share / aspect**0.5)]) / 2
    centre = rng.uniform(half, np.array([width, height]) - half)
    angle = np.deg2rad(rng.normal(0, 9))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) + rng.uniform(-0.12, 0.12, (4, 2))
    if rng.random() < 0.5:
        corners = corners[[1, 0, 3, 2]]
    quad = (corners * half) @ turn.T + centre
    goal = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    matrix = cv2.getPerspectiveTransform(quad.astype(np.float32), goal)
    return np.asarray(
        cv2.warpPerspective(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101),
        np.uint8,
    )


def _coloured(image: Picture, rng: np.random.Generator, cast: float = 0.12, wash: float = 0.35) -> Picture:
    """Another white balance, and stronger or paler colours."""
    depth, grey = rng.uniform(1 - wash, 1 + wash), np.array([0.299, 0.587, 0.114])
    matrix = np.diag(rng.uniform(1 - cast, 1 + cast, 3)) @ (depth * np.eye(3) + (1 - depth) * np.tile(grey, (3, 1)))
    return np.asarray(cv2.transform(image, matrix), np.uint8)

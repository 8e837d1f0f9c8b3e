"""Labelled pictures on disk and in memory: reading, writing, and splitting without leaks. No PyTorch here.

A labelled folder holds `annotations.jsonl`, one line a picture:
`{"image": "images/a.png", "width": 640, "height": 640, "boxes": [[x1, y1, x2, y2, "label"], …]}`, with an optional
`"group"`. Renderers write such folders and people label them, so training has one way in.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(frozen=True)
class Sample:
    """A picture (uint8, HW grey or HWC RGB) with its boxes (float32 [n, 4], xyxy pixels) and class ids (int64 [n])."""

    image: Picture
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Item:
    """A picture on disk. `group` names what was captured together: the unit of every split."""

    path: Path
    group: str
    boxes: NDArray[np.float32]
    labels: tuple[str, ...]


def read_annotations(folder: Path) -> list[Item]:
    """The items of a labelled folder. Without a `group`, a picture's group is the first five letters of its name."""
    lines = (folder / "annotations.jsonl").read_text("utf-8").splitlines()
    return [_item(folder, json.loads(line)) for line in lines if line.strip()]


def _item(folder: Path, line: dict[str, Any]) -> Item:
    path = folder / line["image"]
    boxes = np.asarray([box[:4] for box in line["boxes"]], np.float32).reshape(-1, 4)
    return Item(path, str(line.get("group", path.stem[:5])), boxes, tuple(str(box[4]) for box in line["boxes"]))


def load(item: Item, labels: Sequence[str], *, grey: bool = False) -> Sample:
    """Read an item's pixels. Raises ValueError where the file is no picture or a label is not in `labels`."""
    unknown = set(item.labels) - set(labels)
    if unknown:
        raise ValueError(f"{item.path.name} has labels {sorted(unknown)}; this model knows {list(labels)}")
    classes = np.asarray([labels.index(label) for label in item.labels], np.int64)
    return Sample(read_picture(item.path, grey=grey), item.boxes, classes)


def read_picture(path: Path, *, grey: bool = False) -> Picture:
    """Pixels of a file, uint8: HW when `grey`, else HWC RGB."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path} is not a picture that can be read")
    return np.asarray(image if grey else cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def write_annotations(folder: Path, samples: Iterable[tuple[str, str, Sample]], labels: Sequence[str]) -> None:
    """Write (name, group, sample) triples as a labelled folder of PNG files."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "annotations.jsonl").open("w", encoding="utf-8") as out:
        for name, group, sample in samples:
            colour = sample.image if sample.image.ndim == 2 else cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(folder / "images" / f"{name}.png"), colour)
            boxes = [
                [*(round(float(v), 1) for v in box), labels[c]]
                for box, c in zip(sample.boxes, sample.classes, strict=True)
            ]
            height, width = sample.image.shape[:2]
            line = {"image": f"images/{name}.png", "group": group, "width": width, "height": height, "boxes": boxes}
            out.write(json.dumps(line) + "\n")


def read_class_folders(folder: Path) -> tuple[list[Path], list[str]]:
    """Pictures sorted into one sub-folder a class: their paths and, in the same order, their class names."""
    paths = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in PICTURES)
    if not paths:
        raise ValueError(f"{folder} holds no pictures; expected {folder}/<label>/*.jpg, one sub-folder a label")
    return paths, [p.parent.name for p in paths]


def split_by_group(groups: Sequence[str], share: float, seed: int = 0) -> tuple[list[int], list[int]]:
    """Indices (train, validation): whole groups only, and about `share` of the pictures held back.

    Groups are ordered by a seeded hash of their name, so adding pictures moves no group to the other side.
    Raises ValueError with fewer than two groups: such a split would have to leak.
    """
    names = sorted(set(groups), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    if len(names) < 2:
        raise ValueError(f"a split needs two groups at least; all {len(groups)} pictures are of {names}")
    held: set[str] = set()
    for name in names[:-1]:
        held.add(name)
        if sum(group in held for group in groups) >= share * len(groups):
            break
    train = [i for i, group in enumerate(groups) if group not in held]
    return train, [i for i, group in enumerate(groups) if group in held]


def near_duplicate_groups(images: Sequence[Picture], distance: int = 8) -> list[str]:
    """A group name for each picture: those whose 64-bit difference hashes differ by `distance` or less are one group."""
    hashes = np.stack([_difference_hash(image) for image in images])
    parent = list(range(len(images)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i in range(len(images)):
        near = np.flatnonzero((hashes[i + 1 :] != hashes[i]).sum(axis=1) <= distance) + i + 1
        for j in near:
            parent[root(int(j))] = root(i)
    return [f"near-{root(i)}" for i in range(len(images))]


def _difference_hash(image: Picture) -> NDArray[np.bool_]:
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.asarray(small[:, 1:] > small[:, :-1]).reshape(-1)

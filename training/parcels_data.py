"""Rendered pictures for the two parcel models, written to disk once: conveyor scenes with boxes, and damage pairs.

A damage pair is one parcel twice, intact and damaged, in the same view, light and place: nothing but the damage tells
the two apart. Pairs, scenes and their seeds are groups; whole groups are held back for validation.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.data import PICTURES, Picture, read_picture, split_by_group
from training.render import conveyor, parcels

PAIR_SIZE = 224
SCENE_SIZE = (288, 512)
PICTURES_A_SCENE = 4
LABELS = ("damaged", "intact")
VISIBLE = 0.03  # least share of the parcel's box that the damage must change, or nobody could see it


@dataclass(frozen=True)
class Shot:
    """A picture of one parcel on disk; `box` is xyxy in its pixels and may reach outside."""

    path: Path
    label: str
    group: str
    box: tuple[float, float, float, float]
    damage: str = ""
    kind: str = "carton"


def pair(seed: int, backgrounds: list[Path]) -> tuple[parcels.CloseUp, parcels.CloseUp]:
    """An intact and a damaged picture that differ by the damage alone."""
    rng = np.random.default_rng([seed, 9])
    parcel = parcels.draw(
        rng, f"{rng.integers(10**7, 10**8)}", str(rng.choice(parcels.KINDS, p=[0.76, 0.09, 0.06, 0.09]))
    )
    parcel = replace(parcel, label_scale=float(rng.uniform(0.35, 1)), labelled=bool(rng.random() < 0.6))
    backdrop = _backdrop(rng, backgrounds) if backgrounds and rng.random() < 0.25 else None
    view = int(rng.integers(1 << 31))
    intact = parcels.close_up(parcel, view, PAIR_SIZE, backdrop)
    for _ in range(6):
        hurt = parcels.close_up(parcels.damaged(parcel, rng), view, PAIR_SIZE, backdrop)
        if _changed(intact, hurt) >= VISIBLE:
            return intact, hurt
    return intact, parcels.close_up(parcels.damaged(parcel, rng, "crushed", 0.7), view, PAIR_SIZE, backdrop)


def _changed(a: parcels.CloseUp, b: parcels.CloseUp) -> float:
    """The share of the parcel's box in which two pictures differ."""
    x1, y1, x2, y2 = (float(np.clip(value, 0, PAIR_SIZE)) for value in a.box)
    different = np.abs(a.image.astype(np.int16) - b.image).max(-1) > 28
    return float(different.sum()) / max((x2 - x1) * (y2 - y1), 1)


def _backdrop(rng: np.random.Generator, backgrounds: list[Path]) -> Picture:
    """A piece of a photograph, out of focus."""
    picture = read_picture(backgrounds[rng.integers(len(backgrounds))])
    side = int(min(picture.shape[:2]) * rng.uniform(0.5, 1))
    y, x = (int(rng.integers(length - side + 1)) for length in picture.shape[:2])
    piece = cv2.resize(picture[y : y + side, x : x + side], (PAIR_SIZE, PAIR_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(piece, (0, 0), rng.uniform(0.3, 3)), np.uint8)


def _write_pair(job: tuple[Path, int, list[Path]]) -> list[dict[str, Any]]:
    folder, seed, backgrounds = job
    cv2.setNumThreads(1)
    lines = []
    for label, shot in zip(("intact", "damaged"), pair(seed, backgrounds), strict=True):
        name = f"{label}/{seed:06d}.jpg"
        _save(folder / name, shot.image)
        damage = shot.parcel.damage.kind if shot.parcel.damage else ""
        box = [round(value, 1) for value in shot.box]
        lines.append(
            {
                "image": name,
                "label": label,
                "group": f"pair-{seed}",
                "box": box,
                "damage": damage,
                "kind": shot.parcel.kind,
            }
        )
    return lines


def _write_scene(job: tuple[Path, int, list[Path]]) -> list[dict[str, Any]]:
    folder, seed, _ = job
    cv2.setNumThreads(1)
    lines = []
    for number, (picture, seen) in enumerate(conveyor.scenes(seed, SCENE_SIZE, PICTURES_A_SCENE)):
        name = f"images/{seed:06d}-{number}.jpg"
        _save(folder / name, picture)
        boxes = [[*_inside(one.box), one.parcel.kind] for one in seen if _share_inside(one.box) > 0.2]
        lines.append(
            {"image": name, "group": f"scene-{seed}", "width": SCENE_SIZE[1], "height": SCENE_SIZE[0], "boxes": boxes}
        )
    return lines


def _save(path: Path, image: Picture) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 93])


def _inside(box: tuple[float, float, float, float]) -> list[float]:
    height, width = SCENE_SIZE
    return [round(float(value), 1) for value in np.clip(box, 0, [width, height, width, height])]


def _share_inside(box: tuple[float, float, float, float]) -> float:
    x1, y1, x2, y2 = _inside(box)
    return (x2 - x1) * (y2 - y1) / max((box[2] - box[0]) * (box[3] - box[1]), 1)


def write(folder: Path, kind: str, seeds: range, backgrounds: list[Path], workers: int = 2) -> None:
    """Render `seeds` as `pairs` (index.jsonl) or `scenes` (annotations.jsonl, as training.data reads it)."""
    make, index = {"pairs": (_write_pair, "index.jsonl"), "scenes": (_write_scene, "annotations.jsonl")}[kind]
    folder.mkdir(parents=True, exist_ok=True)
    jobs = ((folder, seed, backgrounds) for seed in seeds)
    with Pool(workers) as pool, (folder / index).open("w", encoding="utf-8") as out:
        for lines in pool.imap(make, jobs, chunksize=8):
            out.writelines(json.dumps(line) + "\n" for line in lines)


def read_shots(folder: Path) -> list[Shot]:
    """The pictures of a folder of pairs."""
    return list(_shots(folder))


def _shots(folder: Path) -> Iterator[Shot]:
    for text in (folder / "index.jsonl").read_text("utf-8").splitlines():
        line = json.loads(text)
        x1, y1, x2, y2 = line["box"]
        yield Shot(folder / line["image"], line["label"], line["group"], (x1, y1, x2, y2), line["damage"], line["kind"])


def split(shots: list[Shot], share: float = 0.1) -> tuple[list[Shot], list[Shot]]:
    """Training and validation; a pair is never divided."""
    train, held = split_by_group([shot.group for shot in shots], share)
    return [shots[index] for index in train], [shots[index] for index in held]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("pairs", "scenes"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--backgrounds", type=Path, help="a folder of photographs that may be learned from")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    found = sorted(options.backgrounds.glob("*")) if options.backgrounds else []
    backgrounds = [path for path in found if path.suffix.lower() in PICTURES]
    write(options.out, options.kind, range(options.first, options.first + options.count), backgrounds, options.workers)


if __name__ == "__main__":
    main()

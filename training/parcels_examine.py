"""Examines the two parcel models, as bundles, on what they never learned from: the demo's clips and real photographs."""

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data import Picture, near_duplicate_groups, read_picture
from training.evaluate import auroc, calibration_error, interval
from training.parcels_data import PAIR_SIZE, pair
from training.render.parcels import KINDS
from training.runner import Runner, overlaps

#: Pictures labelled "damaged" in the examiner set on which no damaged parcel can be seen (empty or open boxes, food,
#: broken contents of sound boxes, other things). Listed by eye, before any score was known.
NO_DAMAGE = (
    0, 1, 2, 3, 5, 6, 7, 8, 9, 12, 14, 15, 16, 18, 19, 20, 23, 26, 27, 28, 30, 31, 32, 34, 35, 42, 43, 53, 70, 77, 80, 93, 100,
    105, 110, 115, 118, 122, 139, 145, 146, 156, 157, 158, 164, 165,
)  # fmt: skip
#: Drawings, not photographs.
DRAWN = (13, 29, 38, 50, 52, 55, 59, 60, 65, 81, 87, 98, 102, 103, 106, 107, 116, 123, 126, 132, 134, 137, 143, 168)
#: Photographs that plainly show a damaged parcel.
CLEAR = (
    4, 10, 17, 21, 24, 25, 36, 45, 47, 48, 54, 56, 58, 61, 62, 63, 64, 67, 68, 69, 71, 72, 73, 74, 75, 78, 79, 82, 84, 85, 86, 88,
    89, 90, 91, 92, 94, 95, 96, 97, 108, 109, 111, 112, 113, 114, 117, 120, 121, 124, 125, 127, 128, 129, 130, 131, 133, 135, 136,
    138, 140, 141, 142, 144, 147, 148, 149, 150, 151, 152, 153, 154, 155, 159, 160, 162, 166, 167, 170, 171, 172, 173, 174, 175,
    176, 177, 179, 181,
)  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """One picture's chance of damage, the truth and its near-duplicate group."""

    name: str
    chance: float
    damaged: bool
    group: str


def chance(runner: Runner, image: Picture) -> float:
    """How likely the picture shows damage, 0..1."""
    return float(runner.classify(image)[0][0])


def photographs(runner: Runner, folder: Path) -> list[Scored]:
    """Every picture of a folder with labels.csv (image, label)."""
    with (folder / "labels.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    images = [read_picture(folder / row["image"]) for row in rows]
    groups = near_duplicate_groups(images)
    return [
        Scored(Path(row["image"]).stem, chance(runner, image), row["label"] == "damaged", group)
        for row, image, group in zip(rows, images, groups, strict=True)
    ]


def separation(scored: list[Scored]) -> dict[str, Any]:
    """AUROC with its interval over near-duplicate groups, points of the ROC, and rates at the two thresholds in use."""
    chances, truth = np.array([s.chance for s in scored]), np.array([s.damaged for s in scored])

    def area(chosen: list[int]) -> float:
        return auroc(chances[chosen], truth[chosen]) if 0 < truth[chosen].sum() < len(chosen) else float("nan")

    told = chances >= 0.5
    return {
        "pictures": len(scored), "damaged": int(truth.sum()), "auroc": round(area(list(range(len(scored)))), 4),
        "auroc_interval": interval([s.group for s in scored], area),
        "calibration_error": round(calibration_error(np.where(told, chances, 1 - chances), told == truth), 4),
        "found_at_flagged": {f"{share:.2f}": _found(chances, truth, share) for share in (0.02, 0.05, 0.1, 0.2, 0.3)},
        **{f"at_{t}": _rates(scored, t) for t in (0.5, 0.8)},
    }  # fmt: skip


def _found(chances: NDArray[np.floating], truth: NDArray[np.bool_], flagged: float) -> float:
    """The share of damage found where `flagged` of the intact pictures are flagged."""
    threshold = float(np.quantile(chances[~truth], 1 - flagged))
    return round(float((chances[truth] > threshold).mean()), 4)


def _rates(scored: list[Scored], threshold: float) -> dict[str, Any]:
    hits = np.array([s.chance >= threshold for s in scored])
    truth = np.array([s.damaged for s in scored])
    groups = [s.group for s in scored]

    def rate(wanted: bool) -> dict[str, Any]:
        chosen = np.flatnonzero(truth == wanted)
        if not len(chosen):
            return {}
        own = [groups[i] for i in chosen]
        return {
            "share": round(float(hits[chosen].mean()), 4),
            "interval": interval(own, lambda k: float(hits[chosen][k].mean())),
        }

    return {"found": rate(True), "flagged_intact": rate(False)}


def subset(scored: list[Scored], numbers: tuple[int, ...]) -> list[Scored]:
    """The intact pictures, and of the damaged only those of the given numbers."""
    wanted = {f"damaged_{number:04d}" for number in numbers}
    return [one for one in scored if not one.damaged or one.name in wanted]


def renders(runner: Runner, seeds: range) -> list[Scored]:
    """Fresh pairs that no training saw."""
    out = []
    for seed in seeds:
        for shot in pair(seed, []):
            x1, y1, x2, y2 = (int(np.clip(value, 0, PAIR_SIZE)) for value in shot.box)
            crop = np.ascontiguousarray(shot.image[y1:y2, x1:x2])
            out.append(Scored(f"{seed}", chance(runner, crop), shot.parcel.damage is not None, f"pair-{seed}"))
    return out


# ---- clips -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """One parcel in one frame: what the two models said of it."""

    ident: str
    damaged: bool
    whole: bool
    kind: str
    told_kind: str | None  # None: not found
    chance: float


def frames(path: Path) -> Iterator[Picture]:
    """The pictures of a clip, RGB."""
    clip = cv2.VideoCapture(str(path))
    while True:
        read, picture = clip.read()
        if not read:
            return
        yield np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def watch(finder: Runner, judge: Runner, clip: Path, score: float, every: int = 1) -> tuple[list[View], int, int]:
    """Every parcel's views; the number of detections that match no parcel; the number of frames."""
    truth = [json.loads(line) for line in clip.with_suffix(".jsonl").read_text().splitlines()]
    views: list[View] = []
    stray = count = 0
    for picture, line in islice(zip(frames(clip), truth, strict=True), 0, None, every):
        found = finder.detect(picture, score)
        boxes = np.array([entry["box"] for entry in line["parcels"]], np.float32).reshape(-1, 4)
        shared = overlaps(found.boxes, boxes)
        stray += int((shared.max(1) < 0.3).sum()) if len(boxes) else len(found.boxes)
        count += 1
        for column, entry in enumerate(line["parcels"]):
            views.append(_view(judge, picture, entry, found.boxes, found.classes, shared[:, column]))
    return views, stray, count


def _view(
    judge: Runner,
    picture: Picture,
    entry: dict[str, Any],
    boxes: NDArray[np.float32],
    classes: NDArray[np.int64],
    shared: NDArray[np.float64],
) -> View:
    best = int(shared.argmax()) if len(shared) and shared.max() >= 0.5 else None
    if best is None:
        return View(entry["id"], entry["damaged"], entry["whole"], entry["kind"], None, 0.0)
    x1, y1, x2, y2 = (round(float(value)) for value in boxes[best])
    crop = np.ascontiguousarray(picture[max(y1, 0) : max(y2, y1 + 2), max(x1, 0) : max(x2, x1 + 2)])
    return View(entry["id"], entry["damaged"], entry["whole"], entry["kind"], KINDS[classes[best]], chance(judge, crop))


def summary(views: list[View], stray: int, count: int, seconds: float, threshold: float) -> dict[str, Any]:
    """Recall of parcels and kinds; planted damage found and false alarms, for each parcel and each hour.

    A parcel is called damaged where the mean over its whole views reaches the threshold; `any_view` counts single views.
    """
    whole = [view for view in views if view.whole]
    found = [view for view in whole if view.told_kind is not None]
    by_parcel: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for view in found:
        by_parcel[view.ident, view.damaged].append(view.chance)
    called = {key: float(np.mean(chances)) >= threshold for key, chances in by_parcel.items()}
    once = {key: max(chances) >= threshold for key, chances in by_parcel.items()}
    return {
        "views": len(whole), "recall": round(len(found) / len(whole), 4), "stray_detections_per_frame": round(stray / count, 4),
        "kind_right": round(float(np.mean([view.kind == view.told_kind for view in found])), 4), "threshold": threshold,
        "planted": sum(damaged for _, damaged in by_parcel),
        "planted_found": sum(value for (_, damaged), value in called.items() if damaged),
        "planted_found_any_view": sum(value for (_, damaged), value in once.items() if damaged),
        "false_alarms": sum(value for (_, damaged), value in called.items() if not damaged),
        "false_alarms_any_view": sum(value for (_, damaged), value in once.items() if not damaged),
        "false_alarms_per_hour": round(sum(value for (_, damaged), value in called.items() if not damaged) / seconds * 3600, 1),
        "damaged_views_flagged": round(float(np.mean([v.chance >= threshold for v in found if v.damaged] or [0])), 4),
        "intact_views_flagged": round(float(np.mean([v.chance >= threshold for v in found if not v.damaged] or [0])), 4),
    }  # fmt: skip

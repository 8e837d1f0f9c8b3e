"""Makes the bundles `parcel-finder` and `parcel-damage` from trained networks: weights, golden set, metrics, card.

`python -m training.parcels_bundle finder|damage --trained DIR --clips DIR --out DIR [--parcels DIR] [--photos DIR]`
"""

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from training import export, parcels_damage, parcels_examine, parcels_finder, parcels_net
from training.data import Picture, read_picture
from training.evaluate import draw_confusion, save_json
from training.parcels_data import LABELS, PAIR_SIZE, SCENE_SIZE, pair
from training.render import conveyor
from training.render.parcels import KINDS
from training.runner import Runner

GOLDEN_FROM = 900_000  # seeds of golden and examination pictures: far from those of training
#: How the networks are made anew. PHOTOS: packaged groceries; DELIVERED: the three photographs of a delivered parcel.
PAIRS = "python -m training.parcels_data pairs --out work/pairs --count 3551 --backgrounds grocery/images"
FINDER = (
    "python -m training.parcels_data scenes --out work/scenes --count 94",
    PAIRS,
    (
        "python -m training.parcels_finder --scenes work/scenes --pairs work/pairs --trunk efficientnet_lite0.onnx"
        " --out work/finder --looks 4000 --steps 1600"
    ),
    "python -m training.parcels_bundle finder --trained work/finder --out parcel-finder",
)
DAMAGE = (
    PAIRS,
    (
        "python -m training.parcels_damage --pairs work/pairs --photos PHOTOS --delivered DELIVERED"
        " --trunk efficientnet_lite0.onnx --out work/damage --rounds 2 --share 0.3 --steps 900"
    ),
    "python -m training.parcels_bundle damage --trained work/damage --out parcel-damage",
)
FIT = {"interpolation": "linear", "max_batch": 16}


def milliseconds(weights: Path, size: tuple[int, int], rounds: int = 60) -> float:
    """The fastest of many single-picture runs on one thread: what the machine can do when left alone."""
    runner = Runner(weights, size, "stretch", threads=1)
    picture = np.zeros((1, *size, 3), np.uint8)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        runner.session.run(None, {"images": picture})
        times.append(time.perf_counter() - start)
    return round(min(times) * 1000, 2)


def contract(
    name: str,
    task: str,
    labels: tuple[str, ...],
    size: tuple[int, int],
    fit: str,
    output: dict[str, Any],
    description: str,
) -> dict[str, Any]:
    """What model.toml says."""
    return {
        "schema_version": 1,
        "name": name,
        "version": "1.0.0",
        "task": task,
        "labels": list(labels),
        "licence": "Apache-2.0",
        "description": description,
        "input": {
            "name": "images",
            "size": list(size),
            "fit": fit,
            "color": "rgb",
            "layout": "nhwc",
            "dtype": "uint8",
            **FIT,
        },
        "output": output,
    }


def finder(options: argparse.Namespace) -> None:
    """The detector's bundle."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    model = parcels_net.FinderNet(len(KINDS))
    model.load_state_dict(torch.load(options.trained / "network.pt", weights_only=True))
    parcels_net.export(model.eval(), out / "weights.onnx", parcels_finder.SIZE)
    held = json.loads((options.trained / "held_out.json").read_text())
    threshold = max(0.2, float(held["threshold"]))
    runner = Runner(out / "weights.onnx", parcels_finder.SIZE, threads=1)
    toml = contract(
        "parcel-finder", "detection", KINDS, parcels_finder.SIZE, "letterbox",
        {"decoder": "yolov8", "score_threshold": threshold, "iou_threshold": 0.5, "max_detections": 50},
        "Finds parcels seen from above on a conveyor and says of what kind they are; trained on rendered scenes alone.",
    )  # fmt: skip
    toml["provenance"] = {
        "source": "early layers of EfficientNet-lite0 (ImageNet, Apache-2.0), unchanged; the head trained on renders",
        "data": ["rendered conveyor scenes", "rendered close-ups, some before out-of-focus grocery photographs (MIT)"],
        "created": "2026-11-23",
        "commands": list(FINDER),
        "licence_of_weights": "Apache-2.0",
    }
    golden = []
    for number in range(5):
        picture = _reread(next(conveyor.scenes(GOLDEN_FROM + number, SCENE_SIZE, 1))[0], out, f"scene-{number}.jpg")
        answers = {"detections": export.detections(runner.detect(picture, threshold), KINDS)}
        golden.append((f"scene-{number}.jpg", picture, answers))
    _golden(out, golden)
    metrics = {
        "held_out_renders": held,
        "milliseconds_one_thread": milliseconds(out / "weights.onnx", parcels_finder.SIZE),
        "clips": {},
    }
    judge = Runner(options.judge, parcels_damage.SIZE, "stretch", threads=1) if options.judge else None
    if judge is not None:
        for clip in ("inbound", "outbound"):
            views, stray, count = parcels_examine.watch(
                runner, judge, options.clips / f"{clip}.mp4", threshold, options.every
            )
            told = parcels_examine.summary(views, stray, count, 50, 0.5)
            metrics["clips"][clip] = {
                key: told[key] for key in ("views", "recall", "kind_right", "stray_detections_per_frame")
            }
            _kinds(out / f"confusion-{clip}.png", views)
    _finish(out, options.trained, toml, metrics)


def _kinds(path: Path, views: list[parcels_examine.View]) -> None:
    """What kind each whole parcel was told to be, as a confusion matrix with a column for those missed."""
    matrix = np.zeros((len(KINDS), len(KINDS) + 1), np.int64)
    for view in views:
        if view.whole:
            matrix[KINDS.index(view.kind), len(KINDS) if view.told_kind is None else KINDS.index(view.told_kind)] += 1
    draw_confusion(path, matrix, KINDS, [*KINDS, "missed"])


def damage(options: argparse.Namespace) -> None:
    """The classifier's bundle."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    model = parcels_net.DamageNet()
    model.load_state_dict(torch.load(options.trained / "network.pt", weights_only=True))
    parcels_net.export(model.eval(), out / "weights.onnx", parcels_damage.SIZE)
    runner = Runner(out / "weights.onnx", parcels_damage.SIZE, "stretch", threads=1)
    toml = contract(
        "parcel-damage", "classification", LABELS, parcels_damage.SIZE, "stretch", {"decoder": "logits", "score_threshold": 0.0},
        "Says whether a parcel, on a crop or a whole picture, is damaged; a start, to be finished with a site's own pictures.",
    )  # fmt: skip
    toml["provenance"] = {
        "source": "early layers of EfficientNet-lite0 (ImageNet, Apache-2.0); the rest trained here",
        "data": options.learned_from,
        "created": "2026-11-23",
        "commands": list(DAMAGE),
        "licence_of_weights": "Apache-2.0",
    }
    golden = []
    for number in range(4):
        for label, shot in zip(("intact", "damaged"), pair(GOLDEN_FROM + number, []), strict=True):
            x1, y1, x2, y2 = (int(np.clip(value, 0, PAIR_SIZE)) for value in shot.box)
            name = f"{label}-{number}.jpg"
            picture = _reread(np.ascontiguousarray(shot.image[y1:y2, x1:x2]), out, name)
            best = runner.classify(picture)[0]
            told = int(best.argmax())
            golden.append(
                (
                    name,
                    picture,
                    {"classifications": [{"label": LABELS[told], "score": round(float(best[told]), 4), "step": None}]},
                )
            )
    _golden(out, golden)
    metrics = examined(runner, options)
    metrics["milliseconds_one_thread"] = milliseconds(out / "weights.onnx", parcels_damage.SIZE)
    _finish(out, options.trained, toml, metrics)


def examined(runner: Runner, options: argparse.Namespace) -> dict[str, Any]:
    """Every examination of the damage model."""
    metrics: dict[str, Any] = {"held_out": json.loads((options.trained / "held_out.json").read_text())}
    metrics["fresh_renders"] = parcels_examine.separation(
        parcels_examine.renders(runner, range(GOLDEN_FROM + 100, GOLDEN_FROM + 100 + options.renders))
    )
    if options.finder:
        finding = Runner(options.finder / "weights.onnx", parcels_finder.SIZE, threads=1)
        score = _threshold(options.finder / "model.toml")
        metrics["clips"] = {}
        for clip in ("inbound", "outbound"):
            views, stray, count = parcels_examine.watch(
                finding, runner, options.clips / f"{clip}.mp4", score, options.every
            )
            metrics["clips"][clip] = {
                f"at_{t}": parcels_examine.summary(views, stray, count, 50, t) for t in (0.5, 0.8)
            }
    if options.parcels:
        scored = parcels_examine.photographs(runner, options.parcels)
        _told(options.out / "confusion-real.png", parcels_examine.subset(scored, parcels_examine.CLEAR), 0.8)
        metrics["real_photographs"] = {
            "all": parcels_examine.separation(scored),
            "clear_damage_against_intact": parcels_examine.separation(
                parcels_examine.subset(scored, parcels_examine.CLEAR)
            ),
            "labelled_damaged_but_none_to_be_seen": [
                f"damaged_{number:04d}.jpg" for number in parcels_examine.NO_DAMAGE
            ],
            "drawings": [f"damaged_{number:04d}.jpg" for number in parcels_examine.DRAWN],
        }
    if options.photos:
        found = sorted(options.photos.glob("parcel_*.jpg"))
        metrics["intact_delivered"] = {
            path.stem: round(parcels_examine.chance(runner, read_picture(path)), 4) for path in found
        }
    return metrics


def _told(path: Path, scored: list[parcels_examine.Scored], threshold: float) -> None:
    """What real photographs, clear damage and intact, are told to be at a threshold."""
    matrix = np.zeros((2, 2), np.int64)
    for one in scored:
        matrix[0 if one.damaged else 1, 0 if one.chance >= threshold else 1] += 1
    draw_confusion(path, matrix, LABELS)


def _threshold(toml: Path) -> float:
    import tomllib

    return float(tomllib.loads(toml.read_text())["output"]["score_threshold"])


def _reread(picture: Picture, folder: Path, name: str) -> Picture:
    """The picture as it will be read back from its golden file."""
    golden = folder / "golden"
    golden.mkdir(exist_ok=True)
    cv2.imwrite(str(golden / name), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    return read_picture(golden / name)


def _golden(folder: Path, golden: list[tuple[str, Picture, dict[str, Any]]]) -> None:
    """expected.json beside the pictures that `_reread` wrote."""
    entries = [{"file": name, "detections": [], "classifications": [], **answers} for name, _, answers in golden]
    content = {"schema_version": 1, "tolerance": {"iou": 0.9, "score": 0.03, "class_flips": 0}, "images": entries}
    (folder / "golden" / "expected.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _finish(folder: Path, trained: Path, toml: dict[str, Any], metrics: dict[str, Any]) -> None:
    save_json(folder / "metrics.json", metrics)
    shutil.copy(trained / "curve.png", folder / "curve.png")
    card = folder / "card.md"  # written by hand; kept
    print(json.dumps(metrics, indent=1))
    print(export.finish(folder, toml, card.read_text("utf-8") if card.exists() else f"# {toml['name']}\n"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=("finder", "damage"))
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--every", type=int, default=2, help="examine every n-th frame of a clip")
    parser.add_argument("--judge", type=Path, help="finder: weights.onnx of the damage model")
    parser.add_argument("--finder", type=Path, help="damage: the finder's bundle")
    parser.add_argument("--parcels", type=Path, help="damage: the labelled photographs that examine it")
    parser.add_argument("--photos", type=Path, help="damage: photographs of intact delivered parcels")
    parser.add_argument("--renders", type=int, default=200, help="damage: fresh pairs to examine on")
    parser.add_argument(
        "--learned-from",
        nargs="*",
        default=["rendered pairs", "grocery photographs (MIT), as they are and with planted damage"],
    )
    options = parser.parse_args()
    {"finder": finder, "damage": damage}[options.which](options)


if __name__ == "__main__":
    main()

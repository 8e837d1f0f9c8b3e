"""Makes the bundle `grocery` from trained networks: weights, golden set, metrics, pictures of both.

`python -m training.grocery_bundle --data DIR --work DIR --out DIR`; the card is written by hand and kept.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib import pyplot as plt
from numpy.typing import NDArray

from training import export, grocery_net
from training.data import Picture, read_picture
from training.evaluate import save_json
from training.grocery import FROZEN, scored
from training.grocery_data import label_sets, near_groups, read_photos, splits
from training.parcels_bundle import milliseconds
from training.render import groceries
from training.runner import Runner

#: A golden picture is one of which the model is this much surer than of its second guess, in both heads.
MARGIN = 0.25
GOLDEN = 8
RUN = "python -m training.grocery --data grocery --trunk efficientnet_lite0.onnx --work work --on {on}"
BUNDLE = "python -m training.grocery_bundle --data grocery --work work --out grocery --ship {on}"


def contract(fine: tuple[str, ...], coarse: tuple[str, ...], side: int, run: str, count: int) -> dict[str, Any]:
    """What model.toml says."""
    return {
        "schema_version": 1,
        "name": "grocery",
        "version": "1.0.0",
        "task": "classification",
        "labels": list(fine),
        "licence": "Apache-2.0",
        "description": "Says what grocery a photograph shows, coarsely (43 families) and finely (81 kinds).",
        "input": {
            "name": "images",
            "size": [side, side],
            "fit": "stretch",
            "interpolation": "linear",
            "color": "rgb",
            "layout": "nhwc",
            "dtype": "uint8",
            "max_batch": 16,
        },
        "output": {
            "decoder": "logits",
            "score_threshold": 0.0,
            "heads": [
                {"name": "coarse", "output": "coarse", "labels": list(coarse)},
                {"name": "fine", "output": "fine", "labels": list(fine)},
            ],
        },
        "provenance": {
            "source": "EfficientNet-lite0 (ImageNet weights, Apache-2.0), its last blocks fine-tuned; both heads trained here",
            "data": [f"{count} of 2936 photographs of the Grocery Store Dataset (Klasson et al. 2019, MIT)"],
            "created": "2026-11-25",
            "commands": [*(RUN.format(on=on) for on in dict.fromkeys(("learn", run))), BUNDLE.format(on=run)],
            "licence_of_weights": "Apache-2.0",
        },
    }


def exported(run: Path, parents: list[int], side: int, path: Path) -> Runner:
    """The network of a run as an ONNX file, ready to be asked."""
    network = grocery_net.GroceryNet(parents, FROZEN)
    network.load_state_dict(torch.load(run / "network.pt", weights_only=True))
    network.temperatures = torch.load(run.parent / "learn" / "network.pt", weights_only=True)["temperatures"]
    grocery_net.export(network.eval(), path, (side, side))
    return Runner(path, (side, side), "stretch", threads=1)


def examined(runner: Runner, folder: Path) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """An ONNX file's figures on the set's own val split, and the confusion of families."""
    photos = read_photos(folder)
    groups, (fine, coarse, _) = near_groups(photos), label_sets(photos)
    rows = splits(photos, groups).val
    told = [runner.classify(read_picture(photos[i].path)) for i in rows]
    out: dict[str, Any] = {"pictures": len(rows)}
    for head, (name, labels) in enumerate((("coarse", coarse), ("fine", fine))):
        best = [int(answer[head].argmax()) for answer in told]
        right = np.array([labels[b] == getattr(photos[i], name) for b, i in zip(best, rows, strict=True)])
        chance = np.array([answer[head].max() for answer in told])
        out[name] = scored(chance, right, [groups[i] for i in rows])
    matrix = np.zeros((len(coarse), len(coarse)), np.int64)
    for answer, i in zip(told, rows, strict=True):
        matrix[coarse.index(photos[i].coarse), int(answer[0].argmax())] += 1
    return out, matrix


def parity(full: Runner, half: Runner, folder: Path) -> dict[str, Any]:
    """What the shorter weights change, on every photograph: decisions that flip, and how far scores move."""
    flips, shifts, count = 0, 0.0, 0
    for photo in read_photos(folder):
        pixels = read_picture(photo.path)
        for one, other in zip(full.classify(pixels), half.classify(pixels), strict=True):
            flips += int(one.argmax() != other.argmax())
            shifts = max(shifts, float(np.abs(one - other).max()))
            count += 1
    return {"answers": count, "flips_percent": round(100 * flips / count, 3), "largest_score_shift": round(shifts, 5)}


def golden(folder: Path, runner: Runner, labels: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    """Rendered pictures of which the model is sure, and its answers: coarse, then fine."""
    entries = []
    (folder / "golden").mkdir(exist_ok=True)
    for name, picture in candidates():
        path = folder / "golden" / name
        cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
        answers = runner.classify(read_picture(path))
        if len(entries) == GOLDEN or min(np.diff(np.sort(answer)[-2:])[0] for answer in answers) < MARGIN:
            path.unlink()
            continue
        heads = zip(("coarse", "fine"), labels, answers, strict=True)
        said = [{"label": own[a.argmax()], "score": round(float(a.max()), 4), "step": head} for head, own, a in heads]
        entries.append({"file": name, "detections": [], "classifications": said})
    content = {"schema_version": 1, "tolerance": {"iou": 0.9, "score": 0.03, "class_flips": 0}, "images": entries}
    (folder / "golden" / "expected.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def candidates() -> list[tuple[str, Picture]]:
    """Heaps of every fruit and shelves of cartons, by turns."""
    pictures = []
    for seed in range(4):
        pictures += [(f"{name.replace(' ', '-')}-{seed}.jpg", groceries.heap(name, seed)) for name in groceries.FRUIT]
        pictures += [(f"cartons-{seed}-{turn}.jpg", groceries.cartons(10 * seed + turn)) for turn in range(2)]
    return pictures


def draw_families(path: Path, matrix: NDArray[np.int64], labels: tuple[str, ...]) -> None:
    """A confusion matrix too large for draw_confusion: small letters, and figures only where there are any."""
    figure, axes = plt.subplots(figsize=(9.5, 9), dpi=80)
    axes.imshow(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    for y, x in np.argwhere(matrix):
        axes.text(x, y, str(matrix[y, x]), ha="center", va="center", fontsize=6)
    axes.set(xlabel="told", ylabel="true")
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where training.grocery wrote its runs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ship", choices=("learn", "all"), default="all", help="the run whose network is shipped")
    options = parser.parse_args()
    out, shipped = options.out, options.work / options.ship
    out.mkdir(parents=True, exist_ok=True)
    fine, coarse, parents = label_sets(read_photos(options.data))
    held = json.loads((options.work / "learn" / "held_out.json").read_text("utf-8"))
    count = json.loads((shipped / "held_out.json").read_text("utf-8"))["learned_from"]
    side = int(held["side"])
    val, matrix = examined(exported(options.work / "learn", parents, side, options.work / "learn.onnx"), options.data)
    full = exported(shipped, parents, side, options.work / "shipped.onnx")
    export.halve(options.work / "shipped.onnx", out / "weights.onnx")
    runner = Runner(out / "weights.onnx", (side, side), "stretch", threads=1)
    golden(out, runner, (coarse, fine))
    draw_families(out / "confusion-val.png", matrix, coarse)
    shutil.copy(shipped / "curve.png", out / "curve.png")
    metrics = {
        "run_on_learn": held,
        "run_on_learn_as_onnx": val,
        "shipped": {"run": options.ship, "learned_from": count, "half_weights": parity(full, runner, options.data)},
        "milliseconds_one_thread": milliseconds(out / "weights.onnx", (side, side)),
    }
    save_json(out / "metrics.json", metrics)
    card = out / "card.md"  # written by hand; kept
    toml = contract(fine, coarse, side, options.ship, count)
    print(json.dumps(metrics, indent=1))
    print(export.finish(out, toml, card.read_text("utf-8") if card.exists() else "# grocery\n"))


if __name__ == "__main__":
    main()

"""Trains `grocery`: 81 kinds of groceries in 43 families, in one network with two heads.

`python -m training.grocery --data DIR --trunk efficientnet_lite0.onnx --work DIR [--on learn|all]` writes network,
curve and scores. Run on `learn` first: it chooses the side on pictures held back, and is examined and calibrated on the
set's own val split; `all` goes on from there with every photograph, and is what ships. The frozen first blocks see each
photograph in a few augmented views and as it is, once, and the rest learns from what they saw.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn

from training import loop
from training.data import Picture, read_picture
from training.evaluate import calibration_error, draw_curve, interval, save_json
from training.grocery_data import Photo, Splits, label_sets, near_groups, read_photos, splits, varied
from training.grocery_net import GroceryNet, export
from training.parcels_net import Early
from training.runner import Runner, fitted

#: Pixels a side while learning; and those tried in the end, as things look smaller in a whole picture than in the views.
SIDE = 224
SIDES = (224, 256, 288)
FROZEN = 10
VIEWS = 6
EPOCHS = 8
MORE_EPOCHS = 2
BATCH = 32
SEED = 3
RATE = 2e-3
SMOOTHING = 0.1
Batch = tuple[Tensor, ...]
Logits = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Truth:
    """The true classes of photographs: indices of fine and coarse labels."""

    fine: NDArray[np.int64]
    coarse: NDArray[np.int64]

    @classmethod
    def of(cls, photos: Sequence[Photo]) -> "Truth":
        """Those of these photographs."""
        fine, coarse, _ = label_sets(photos)
        return cls(
            np.array([fine.index(photo.fine) for photo in photos]),
            np.array([coarse.index(photo.coarse) for photo in photos]),
        )


# --- what the frozen blocks see --------------------------------------------------------------------------------------


def kept(number: int, folder: Path) -> Path:
    """Where a view lies."""
    return folder / ("plain.npy" if number < 0 else f"view-{number:02d}.npy")


def view(number: int, photos: Sequence[Photo], trunk: Path, folder: Path) -> None:
    """Keep all photographs in their `number`th view, seen by the frozen blocks: float16 [photos, C, h, w]. -1 is as they are."""
    path = kept(number, folder)
    cv2.setNumThreads(1)
    early, seen = Early(trunk, FROZEN, threads=1), []
    for i in range(0, len(photos), 32):
        part = [_seen(read_picture(photo.path), number, i + j) for j, photo in enumerate(photos[i : i + 32])]
        seen.append(early(torch.from_numpy(np.stack(part))).numpy())
    np.save(path.with_suffix(".part.npy"), np.concatenate(seen))
    path.with_suffix(".part.npy").replace(path)


def _seen(image: Picture, number: int, index: int) -> Picture:
    if number < 0:
        return fitted(image, (SIDE, SIDE), "stretch")[0]
    return varied(image, np.random.default_rng([number, index]), SIDE)


def views(photos: Sequence[Photo], trunk: Path, folder: Path, count: int, processes: int = 2) -> list[NDArray[Any]]:
    """`count` views, and last the photographs as they are; those in `folder` are not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [*range(count), -1]
    missing = [number for number in numbers if not kept(number, folder).exists()]
    if missing:
        make = partial(view, photos=photos, trunk=trunk, folder=folder)
        with get_context("spawn").Pool(processes) as pool:
            list(track(pool.imap(make, missing), "looking", total=len(missing)))
    return [np.load(kept(number, folder), mmap_mode="r") for number in numbers]


# --- learning --------------------------------------------------------------------------------------------------------


def batch_maker(
    seen: Sequence[NDArray[Any]], truth: Truth, chosen: Sequence[int]
) -> Callable[[np.random.Generator], Batch]:
    """Batches of features with two sets of true classes and the share of the first: pictures are mixed or cut together."""
    rows = np.asarray(chosen)
    frequent = np.bincount(truth.fine[rows])[truth.fine[rows]]
    chances = frequent**-0.5 / (frequent**-0.5).sum()  # rare kinds a little more often than they were photographed

    def make(rng: np.random.Generator) -> Batch:
        picked = rng.choice(rows, BATCH, p=chances)
        features = torch.from_numpy(np.stack([seen[rng.integers(len(seen))][i] for i in picked])).float()
        features, share = _mixed(features, rng)
        ours = torch.from_numpy(np.stack([truth.fine[picked], truth.coarse[picked]]))
        return features, ours, ours.flip(1), torch.tensor(share)

    return make


def _mixed(features: Tensor, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Features of a batch mixed with those of the same batch backwards (mixup or cutmix), and the share that is their own."""
    other, way = features.flip(0), rng.random()
    share = float(rng.beta(0.4, 0.4)) if way < 0.1 else float(rng.uniform(0.3, 1.0))
    if way < 0.1:
        return share * features + (1 - share) * other, share
    if way > 0.4:
        return features, 1.0
    side = features.shape[2]
    length = round(side * (1 - share) ** 0.5)
    y, x = (int(value) for value in rng.integers(side - length + 1, size=2))
    features[:, :, y : y + length, x : x + length] = other[:, :, y : y + length, x : x + length].clone()
    return features, 1 - (length / side) ** 2


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    """Cross entropy of both heads, softened, against both pictures of a mixture."""
    features, ours, theirs, share = batch
    coarse, fine = cast("GroceryNet", model).logits(features)
    against = partial(nn.functional.cross_entropy, label_smoothing=SMOOTHING)
    own, other = (against(fine, kinds[0]) + 0.5 * against(coarse, kinds[1]) for kinds in (ours, theirs))
    return share * own + (1 - share) * other


def answers(network: GroceryNet, photos: Sequence[Photo], side: int) -> Logits:
    """Logits of both heads for photographs as they are, brought to `side` pixels, by the exported network."""
    with tempfile.TemporaryDirectory() as folder:
        export(network.eval(), Path(folder) / "bare.onnx", (side, side), agreed=False)
        session = Runner(Path(folder) / "bare.onnx", (side, side), "stretch", threads=1).session
    pixels = (fitted(read_picture(photo.path), (side, side), "stretch")[0][None] for photo in photos)
    coarse, fine = zip(*(session.run(None, {"images": each}) for each in pixels), strict=True)
    return torch.from_numpy(np.concatenate(coarse)), torch.from_numpy(np.concatenate(fine))


def figures(told: Logits, truth: Truth, rows: Sequence[int], groups: Sequence[str]) -> dict[str, Any]:
    """Accuracy with an interval, and calibration, of the log-probabilities of both heads."""
    out: dict[str, Any] = {"pictures": len(rows), "groups": len({groups[i] for i in rows})}
    for name, each, true in zip(("coarse", "fine"), told, (truth.coarse, truth.fine), strict=True):
        chance, best = (value.numpy() for value in each.exp().max(1))
        out[name] = scored(chance, best == true[list(rows)], [groups[i] for i in rows])
    return out


def scored(chance: NDArray[np.floating], right: NDArray[np.bool_], groups: Sequence[str]) -> dict[str, Any]:
    """One head's accuracy with its interval, and its calibration error."""
    return {
        "accuracy": round(float(right.mean()), 4),
        "interval": interval(groups, lambda drawn: float(right[drawn].mean())),
        "calibration_error": round(calibration_error(chance, right), 4),
    }


def plan(rows: int, on: str, threads: int) -> loop.Plan:
    """The recipe, for so many photographs; `all` goes on from where `learn` ended, half as fast and not for long."""
    epochs, rate = (EPOCHS, RATE) if on == "learn" else (MORE_EPOCHS, RATE / 2)
    return loop.Plan(
        epochs * rows // BATCH, BATCH, rate, decay=0.02, warm_up=50, cool=0.8, average=0.995, seed=SEED, threads=threads,
        gentle="trunk", gentleness=0.15,
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """One run: network.pt, held_out.json and curve.png in WORK/ON."""
    photos = read_photos(options.data)
    groups = near_groups(photos)
    parts = splits(photos, groups)
    rows = parts.learn if options.on == "learn" else list(range(len(photos)))
    out: Path = options.work / options.on
    out.mkdir(parents=True, exist_ok=True)
    loop.settle(SEED, options.threads)
    truth = Truth.of(photos)
    network = GroceryNet(label_sets(photos)[2], FROZEN)
    if not (out / "network.pt").exists():
        start = _start(network, options)
        seen = views(photos, options.trunk, options.work / f"views-{FROZEN}", VIEWS)
        trained = learned(start, batch_maker(seen, truth, rows), plan(len(rows), options.on, options.threads), out)
        torch.save(trained.state_dict(), out / "network.pt")
    network.load_state_dict(torch.load(out / "network.pt", weights_only=True))
    metrics: dict[str, Any] = {"learned_from": len(rows)}
    if options.on == "learn":
        metrics |= examined(network, photos, truth, parts, groups)
        torch.save(network.state_dict(), out / "network.pt")
    save_json(out / "held_out.json", metrics)
    print(json.dumps(metrics, indent=1))


def _start(network: GroceryNet, options: argparse.Namespace) -> GroceryNet:
    """Weights of ImageNet; or, with every photograph, those of the run on `learn`."""
    if options.on == "learn":
        return network.take(options.trunk)
    network.load_state_dict(torch.load(options.work / "learn" / "network.pt", weights_only=True))
    return network


def learned(
    network: GroceryNet, make: Callable[[np.random.Generator], Batch], recipe: loop.Plan, out: Path
) -> GroceryNet:
    """Train, and draw the curve. A run that was cut off is taken up again."""
    checkpoint = out / "checkpoint.pt"
    made = loop.batches(make, recipe.steps, recipe.seed, 0, loop.resumed(checkpoint))
    trained, history = loop.train(network, made, loss_of, recipe, checkpoint=checkpoint)
    draw_curve(out / "curve.png", history)
    return cast("GroceryNet", trained)


def examined(
    network: GroceryNet, photos: Sequence[Photo], truth: Truth, parts: Splits, groups: Sequence[str]
) -> dict[str, Any]:
    """Choose the side on pictures held back; then look at val, bare and with temperatures.

    Pictures held back show the same scenes as those learned from, and would make the model too sure of itself elsewhere:
    temperatures are fitted on val. What is told of val is cross-fitted, each fifth with the temperatures of the others.
    """
    network.temperatures = torch.ones(2)
    chosen = [photos[i] for i in parts.choose]
    sides = {
        side: figures(network.agreed(*answers(network, chosen, side)), truth, parts.choose, groups) for side in SIDES
    }
    best = max(SIDES, key=lambda side: sides[side]["fine"]["accuracy"] + sides[side]["coarse"]["accuracy"])
    val = answers(network, [photos[i] for i in parts.val], best)
    bare = figures(network.agreed(*val), truth, parts.val, groups)
    crossed = cross_fitted(network, val, truth, parts.val, groups)
    told = fit(network, val, truth, parts.val, range(len(parts.val)))
    return {
        "side": best,
        "choose_uncalibrated_by_side": sides,
        "temperatures": dict(zip(("coarse", "fine"), told, strict=True)),
        "val_uncalibrated": bare,
        "val": figures(crossed, truth, parts.val, groups),
    }


def fit(network: GroceryNet, logits: Logits, truth: Truth, rows: Sequence[int], some: Sequence[int]) -> list[float]:
    """Set the temperatures by `some` of the pictures in `rows`, whose logits these are."""
    chosen, own = list(some), np.asarray(rows)[list(some)]
    kinds, families = (torch.from_numpy(labels[own]) for labels in (truth.fine, truth.coarse))
    return network.calibrate(logits[0][chosen], logits[1][chosen], kinds, families)


def cross_fitted(
    network: GroceryNet, logits: Logits, truth: Truth, rows: Sequence[int], groups: Sequence[str], folds: int = 5
) -> Logits:
    """Log-probabilities of both heads, each fold's with the temperatures of the others; a group is in one fold."""
    names = sorted({groups[i] for i in rows})
    fold = np.array([names.index(groups[i]) % folds for i in rows])
    coarse, fine = torch.empty_like(logits[0]), torch.empty_like(logits[1])
    for number in range(folds):
        fit(network, logits, truth, rows, np.flatnonzero(fold != number).tolist())
        held = fold == number
        coarse[held], fine[held] = network.agreed(logits[0][held], logits[1][held])
    return coarse, fine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder with labels.csv: image, split, fine, coarse")
    parser.add_argument("--trunk", type=Path, required=True, help="efficientnet_lite0.onnx")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--on", choices=("learn", "all"), default="learn")
    parser.add_argument("--threads", type=int, default=2)
    run(parser.parse_args())


if __name__ == "__main__":
    main()

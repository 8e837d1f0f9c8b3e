"""Trains `parcel-damage`: damaged or intact, on pairs that differ by the damage alone.

`python -m training.parcels_damage --pairs DIR --trunk efficientnet_lite0.onnx --photos DIR --out DIR` writes the
network, its held-out scores and curve; training.parcels_bundle makes the bundle of it.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn

from training import augment, loop
from training.data import PICTURES, Picture, read_picture, split_by_group
from training.evaluate import auroc, calibration_error, draw_curve, save_json
from training.parcels_data import Shot, read_shots, split
from training.parcels_net import DamageNet, Early
from training.render.parcels_planted import plant

SIZE = (192, 192)
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Pair:
    """An intact and a damaged picture of one thing; the box is xyxy in both."""

    intact: Path
    damaged: Path | None  # None: damage is planted on the intact photograph
    box: Box


def pairs_of(shots: list[Shot]) -> list[Pair]:
    """Shots put together again by their group."""
    by_group: dict[str, dict[str, Shot]] = {}
    for shot in shots:
        by_group.setdefault(shot.group, {})[shot.label] = shot
    return [
        Pair(both["intact"].path, both["damaged"].path, _hull(both["intact"].box, both["damaged"].box))
        for both in by_group.values()
    ]


def _hull(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def photographs(folder: Path) -> list[Pair]:
    """Photographs of intact things to plant damage on; the thing is taken to fill the middle."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    return [Pair(path, None, (0, 0, 0, 0)) for path in found]


def window(rng: np.random.Generator, box: Box, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A crop around the box, from a tight detection (a bit off) to a whole picture, inside the picture."""
    loose = float(np.exp(rng.uniform(np.log(0.9), np.log(1.7))))
    wide, tall = (box[2] - box[0]) * loose, (box[3] - box[1]) * loose * float(np.exp(rng.normal(0, 0.06)))
    x = (box[0] + box[2]) / 2 + rng.normal(0, 0.05) * wide
    y = (box[1] + box[3]) / 2 + rng.normal(0, 0.05) * tall
    x1, y1 = int(np.clip(x - wide / 2, 0, shape[1] - 16)), int(np.clip(y - tall / 2, 0, shape[0] - 16))
    return x1, y1, int(np.clip(x + wide / 2, x1 + 16, shape[1])), int(np.clip(y + tall / 2, y1 + 16, shape[0]))


def both(pair: Pair, rng: np.random.Generator) -> tuple[Picture, Picture, Box]:
    """The pair's pictures and box; damage is planted where there is no damaged picture."""
    if pair.damaged is not None:
        return read_picture(pair.intact), read_picture(pair.damaged), pair.box
    intact = _shrunk(pair.intact)
    height, width = intact.shape[:2]
    margin = rng.uniform(0.05, 0.25, 4)
    box = (margin[0] * width, margin[1] * height, (1 - margin[2]) * width, (1 - margin[3]) * height)
    return intact, plant(rng, intact, box), box


@lru_cache(4)
def _shrunk(path: Path) -> Picture:
    """A photograph at 360 pixels on its short side; the few large ones are not read again and again."""
    image = read_picture(path)
    scale = 360 / min(image.shape[:2])
    return (
        image
        if scale >= 1
        else np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    )


def varied(image: Picture, rng: np.random.Generator) -> Picture:
    """What other cameras and networks would make of the picture."""
    if rng.random() < 0.3:  # small in the frame: few pixels
        few = int(rng.uniform(70, 150))
        image = np.asarray(cv2.resize(image, (few, few), interpolation=cv2.INTER_AREA), np.uint8)
    image = np.asarray(
        cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_AREA if image.shape[0] > 300 else cv2.INTER_LINEAR),
        np.uint8,
    )
    image = augment.tones(image, rng, 0.25)
    image = augment.colour_cast(image, rng, 0.12)
    if rng.random() < 0.1:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    if rng.random() < 0.3:
        image = augment.blur(image, rng, 1.2)
    if rng.random() < 0.25:  # sharpened, as phones do
        soft = cv2.GaussianBlur(image, (0, 0), 1.5).astype(np.float32)
        image = np.clip(image + (image - soft) * rng.uniform(0.3, 1.2), 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        image = augment.noise(image, rng, float(rng.uniform(1, 9)))
    return augment.recompress(image, rng, 35) if rng.random() < 0.6 else image


def batch_maker(
    rendered: list[Pair], real: list[Pair], share: float, pairs: int
) -> Callable[[np.random.Generator], tuple[Tensor, ...]]:
    """Batches of `pairs` pairs: pixels uint8 [2 pairs, H, W, 3] and targets [2 pairs] (1 damaged)."""

    def make(rng: np.random.Generator) -> tuple[Tensor, ...]:
        cv2.setNumThreads(1)
        images: list[Picture] = []
        for _ in range(pairs):
            source = real if real and rng.random() < share else rendered
            images += _augmented(source[rng.integers(len(source))], rng)
        targets = torch.tensor([0.0, 1.0]).repeat(pairs)
        return torch.from_numpy(np.stack(images)), targets

    return make


def _augmented(pair: Pair, rng: np.random.Generator) -> list[Picture]:
    intact, damaged, box = both(pair, rng)
    x1, y1, x2, y2 = window(rng, box, intact.shape)
    flip = rng.random() < 0.5
    out = []
    for image in (intact, damaged):
        piece = np.ascontiguousarray(image[y1:y2, x1:x2][:, :: -1 if flip else 1])
        out.append(varied(piece, rng))
    return out


@dataclass(frozen=True)
class Memory:
    """What the frozen layers made of augmented pairs: features float16 [2 pairs, C, h, w], intact and damaged in turn."""

    features: Tensor

    def batches(self, steps: int, pairs: int, seed: int) -> Iterator[tuple[Tensor, ...]]:
        """`steps` batches of `pairs` pairs and their targets; every pair is used before any is used again."""
        rng = np.random.default_rng(seed)
        count, queue = len(self.features) // 2, np.zeros(0, np.int64)
        targets = torch.tensor([0.0, 1.0]).repeat(pairs)
        for _ in range(steps):
            if len(queue) < pairs:
                queue = np.concatenate([queue, rng.permutation(count)])
            chosen, queue = queue[:pairs], queue[pairs:]
            rows = torch.from_numpy(np.stack([2 * chosen, 2 * chosen + 1], 1).reshape(-1))
            yield self.features[rows].float(), targets


def remember(early: Early, rendered: list[Pair], real: list[Pair], share: float, rounds: int, seed: int) -> Memory:
    """Every rendered pair about `rounds` times under other augmentations, and planted pairs so that they make up `share`."""
    steps = round(len(rendered) * rounds / (1 - share) / 16)
    made = loop.batches(batch_maker(rendered, real, share, 16), steps, seed, workers=1)
    return Memory(torch.cat([early(pixels) for pixels, _ in track(made, "looking", total=steps)]))


def recalled(path: Path, look: Callable[[], Memory]) -> Memory:
    """What an earlier run remembered in `path`, or what `look` makes now, kept there for the next run."""
    if not path.exists():
        torch.save(look().features, path)
    return Memory(torch.load(path, weights_only=True))


def loss_of(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Cross entropy from remembered features, the targets softened a little."""
    features, targets = batch
    network = cast("DamageNet", model)
    score = network.judge(network.trunk.late(features))[:, 0]
    return nn.functional.binary_cross_entropy_with_logits(score, targets * 0.94 + 0.03)


@torch.no_grad()
def scores(network: DamageNet, memory: Memory) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scores (logits) and truth of remembered pairs."""
    parts = [network.judge(network.trunk.late(part.float()))[:, 0] for part in memory.features.split(64)]
    return torch.cat(parts).numpy(), np.arange(len(memory.features)) % 2 == 1


def held_out(network: DamageNet, memory: Memory) -> dict[str, float]:
    """AUROC, accuracy and calibration on held-out pairs."""
    logits, truth = scores(network, memory)
    chance = 1 / (1 + np.exp(-logits))
    told = chance >= 0.5
    return {
        "auroc": round(auroc(logits, truth), 4),
        "accuracy": round(float((told == truth).mean()), 4),
        "flagged_intact": round(float(told[~truth].mean()), 4),
        "found_damaged": round(float(told[truth].mean()), 4),
        "calibration_error": round(calibration_error(np.where(told, chance, 1 - chance), told == truth), 4),
        "pictures": len(truth),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--trunk", type=Path, required=True, help="efficientnet_lite0.onnx")
    parser.add_argument(
        "--photos",
        type=Path,
        nargs="*",
        default=[],
        help="folders or pictures of intact things that may be learned from",
    )
    parser.add_argument("--delivered", type=Path, help="a folder of a few photographs of intact delivered parcels")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--share", type=float, default=0.25, help="of pairs planted on photographs")
    parser.add_argument("--rounds", type=int, default=2, help="augmentations of each rendered pair")
    parser.add_argument("--frozen", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    train, held = (pairs_of(shots) for shots in split(read_shots(options.pairs)))
    real = [pair for folder in options.photos for pair in photographs(folder)]
    kept, real_held = split_by_group([pair.intact.stem[:-4] for pair in real], 0.1) if real else ([], [])
    loop.settle(1, options.threads)
    model = DamageNet(options.frozen)
    model.trunk.take(options.trunk)
    plan = loop.Plan(
        options.steps, batch=64, rate=7e-4, decay=1e-3, warm_up=60, average=0.995, seed=1, threads=options.threads
    )
    early = Early(options.trunk, options.frozen)
    kept_real, held_real = ([real[i] for i in chosen] for chosen in (kept, real_held))
    memory = recalled(
        options.out / "train.pt", lambda: remember(early, train, kept_real, options.share, options.rounds, plan.seed)
    )
    if options.delivered:
        delivered = photographs(options.delivered) * 60
        more = recalled(options.out / "delivered.pt", lambda: remember(early, delivered, [], 0.0, 2, seed=7))
        memory = Memory(torch.cat([memory.features, more.features]))
    seen = recalled(options.out / "held.pt", lambda: remember(early, held, [], 0.0, 1, seed=5))
    planted = (
        recalled(options.out / "planted.pt", lambda: remember(early, held_real, [], 0.0, 1, seed=6))
        if held_real
        else None
    )
    made = memory.batches(plan.steps, plan.batch // 2, plan.seed)
    best, history = loop.train(model, made, loss_of, plan, lambda m: held_out(cast("DamageNet", m), seen)["auroc"], 300)
    network = cast("DamageNet", best)
    logits, truth = scores(network, seen)
    scale, shift = network.calibrate(torch.from_numpy(logits), torch.from_numpy(truth.astype(np.float32)))
    metrics = {
        "rendered": held_out(network, seen),
        "planted": held_out(network, planted) if planted else {},
        "calibration": {"scale": scale, "shift": shift},
    }
    print(metrics)
    torch.save(network.state_dict(), options.out / "network.pt")
    save_json(options.out / "held_out.json", metrics)
    draw_curve(options.out / "curve.png", history, "AUROC on held-out renders")


if __name__ == "__main__":
    main()

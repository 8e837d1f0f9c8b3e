"""Trains `parcel-finder`: where the parcels are and of what kind, on rendered conveyors and single rendered parcels.

`python -m training.parcels_finder --scenes DIR --pairs DIR --out DIR` writes network.pt, held_out.json and curve.png.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from training import augment, loop
from training.data import Item, Picture, Sample, load, read_annotations, read_picture, split_by_group
from training.evaluate import best_threshold, draw_curve, examine, report, save_json
from training.losses import detector_loss, targets
from training.parcels_data import Shot, read_shots
from training.parcels_data import split as split_shots
from training.parcels_net import Early, FinderNet
from training.render.parcels import KINDS
from training.runner import Found, decode, fitted

SIZE = (192, 336)  # height, width: a third of a 960×540 frame; parcels are large in it
IOU = 0.5


@dataclass(frozen=True)
class Sources:
    """What batches are drawn from."""

    scenes: list[Item]
    shots: list[Shot]

    def sample(self, rng: np.random.Generator) -> Sample:
        """A scene, a close-up or a mosaic of close-ups; augmented to SIZE."""
        draw = rng.random() if self.shots else 1.0
        if draw < 0.15:
            sample = close_up(self.shots[rng.integers(len(self.shots))])
        elif draw < 0.45:
            sample = mosaic([close_up(self.shots[rng.integers(len(self.shots))]) for _ in range(6)])
        else:
            sample = load(self.scenes[rng.integers(len(self.scenes))], KINDS)
        sample = augment.symmetry(sample, rng, turns=False)
        sample = augment.crop(sample, rng, SIZE, zoom=(0.45, 1.0), stretch=0.12, keep=0.25)
        return Sample(varied(sample.image, rng), sample.boxes, sample.classes)


def close_up(shot: Shot) -> Sample:
    """A close-up and the box of its parcel, as far as it is in the picture."""
    image = read_picture(shot.path)
    height, width = image.shape[:2]
    boxes = np.clip(np.array([shot.box], np.float32), 0, [width, height, width, height]).astype(np.float32)
    return Sample(image, boxes, np.array([KINDS.index(shot.kind)], np.int64))


def mosaic(samples: list[Sample]) -> Sample:
    """Six close-ups as two rows of three, each cut or shrunk to 160 pixels: many grounds in one picture."""
    tile = 160
    images, boxes = [], []
    for number, sample in enumerate(samples):
        scale = tile / sample.image.shape[0]
        images.append(cv2.resize(sample.image, (tile, tile), interpolation=cv2.INTER_AREA))
        offset = np.array([number % 3, number // 3, number % 3, number // 3], np.float32) * tile
        boxes.append(sample.boxes * scale + offset)
    picture = np.vstack([np.hstack(images[:3]), np.hstack(images[3:])]).astype(np.uint8)
    return Sample(
        picture, np.concatenate(boxes).astype(np.float32), np.concatenate([sample.classes for sample in samples])
    )


def varied(image: Picture, rng: np.random.Generator) -> Picture:
    """Other light, colours, lenses."""
    image = augment.colour_cast(augment.tones(image, rng, 0.3), rng, 0.15)
    if rng.random() < 0.3:
        image = augment.blur(image, rng, 1.5)
    if rng.random() < 0.3:
        image = augment.noise(image, rng, float(rng.uniform(1, 8)))
    if rng.random() < 0.1:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    return augment.recompress(image, rng, 40) if rng.random() < 0.3 else image


@dataclass(frozen=True)
class Memory:
    """What the frozen layers made of augmented pictures, and what is to be said of them."""

    features: Tensor  # float16 [n, C, h, w]
    heat: Tensor
    boxes: Tensor
    weights: Tensor

    def batches(self, steps: int, size: int, seed: int) -> Iterator[tuple[Tensor, ...]]:
        """`steps` batches drawn without replacement until all were seen."""
        rng = np.random.default_rng(seed)
        order = np.concatenate(
            [rng.permutation(len(self.features)) for _ in range(-(-steps * size // len(self.features)))]
        )
        for step in range(steps):
            rows = torch.from_numpy(order[step * size : (step + 1) * size])
            yield self.features[rows].float(), self.heat[rows], self.boxes[rows], self.weights[rows]


def remember(early: Early, sources: Sources, count: int, seed: int) -> Memory:
    """`count` augmented pictures, as the frozen layers see them."""
    parts = []
    for number in track(range(count // 16), "looking"):
        rng = np.random.default_rng([seed, number])
        samples = [sources.sample(rng) for _ in range(16)]
        features = early(torch.from_numpy(np.stack([sample.image for sample in samples])))
        parts.append((features, *targets(samples, len(KINDS), FinderNet.stride)))
    return Memory(*(torch.cat(column) for column in zip(*parts, strict=True)))


def loss_of(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    features, heat, boxes, weights = batch
    logits, told = cast("FinderNet", model).look(features)
    return detector_loss(logits, told, heat, boxes, weights)


@torch.no_grad()
def detect(model: FinderNet, early: Early, image: Picture, score: float) -> Found:
    """Detections in one picture, through the network that is being trained."""
    pixels, scale, shift = fitted(image, SIZE, "letterbox")
    found = decode(model.answer(early(torch.from_numpy(pixels[None])).float())[0].numpy(), score, 0.5, 50)
    boxes = (found.boxes - np.tile(shift, 2)) / np.tile(scale, 2)
    return Found(boxes.astype(np.float32), found.scores, found.classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trunk", type=Path, required=True, help="efficientnet_lite0.onnx")
    parser.add_argument("--looks", type=int, default=2400, help="augmented pictures to learn from")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    items = read_annotations(options.scenes)
    train, held = split_by_group([item.group for item in items], 0.1)
    shots, _ = split_shots(read_shots(options.pairs))
    loop.settle(1, options.threads)
    plan = loop.Plan(options.steps, batch=16, rate=2e-3, warm_up=50, average=0.99, seed=1, threads=options.threads)
    early = Early(options.trunk, FinderNet.frozen)
    memory = remember(early, Sources([items[i] for i in train], shots), options.looks, plan.seed)
    network = FinderNet(len(KINDS))
    network.trunk.take(options.trunk)
    best, history = loop.train(network, memory.batches(plan.steps, plan.batch, plan.seed), loss_of, plan)
    model = cast("FinderNet", best)
    examined = []
    for item in (items[i] for i in held):
        sample = load(item, KINDS)
        examined.append(
            examine(detect(model, early, sample.image, 0.02), sample.boxes, sample.classes, IOU, item.group)
        )
    threshold = best_threshold(examined)
    metrics = {key: value for key, value in report(examined, KINDS, threshold, 200).items() if key != "by_group"}
    print(metrics)
    torch.save(model.state_dict(), options.out / "network.pt")
    save_json(options.out / "held_out.json", metrics)
    draw_curve(options.out / "curve.png", history)


if __name__ == "__main__":
    main()

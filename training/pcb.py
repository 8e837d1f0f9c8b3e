"""`pcb-defects`: six defects of bare circuit boards, learnt from rendered boards alone, or from your own labelled folder.

python -m training.pcb --work DIR                     render, train, export: the shipped bundle
python -m training.pcb --start FILE --work DIR        the same, going on from the weights.onnx of an earlier version
python -m training.pcb --data FOLDER --work DIR       finish the shipped network on a labelled folder, split by board group
python -m training.pcb --data FOLDER --scratch …      the same from scratch: better where boards are many and a GPU is at hand
python -m training.pcb --work DIR --examine FOLDER    only measure the model in DIR on a labelled folder
"""

import argparse
import functools
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from training import augment, data, evaluate, export, losses
from training.data import Item, Sample
from training.loop import History, Plan, batches, resumed, settle, train
from training.model import Detector
from training.render import boards
from training.runner import Found, Runner

LABELS = boards.LABELS
SIZE = (640, 640)
CROP = 320
STRIDE = 8
MORE_STEPS, MORE_RATE = 1500, 5e-4  # where a trained network goes on
SHIPPED = Path(__file__).parents[1] / "src/eyeline/bundled/models/pcb-defects/weights.onnx"
IOU = 0.33  # the benchmark's, for matching
HELD = 160  # rendered boards to choose the threshold on


@dataclass(frozen=True)
class Scale:
    """How much one run may cost. `crowded` and `plain` are rendered boards to learn from: full of defects, and with as
    many as real boards have, so that a detector learns how rare they are. `makers` are processes that make batches.
    """

    steps: int
    batch: int
    rate: float
    crowded: int
    plain: int
    makers: int


def scale_of(device: str) -> Scale:
    """Two hours of two cores; or ten minutes of a GPU with 16 cores beside it, which see 30 times as many pictures."""
    cores = os.cpu_count() or 2
    if device == "cpu":
        return Scale(steps=7000, batch=8, rate=2e-3, crowded=1200, plain=600, makers=1)
    return Scale(steps=12_000, batch=64, rate=3e-3, crowded=3000, plain=1500, makers=max(cores - 2, 1))


def network() -> Detector:
    """0.4 million parameters; sees 300 pixels around each cell."""
    return Detector(len(LABELS), widths=(16, 48, 96), depths=(1, 2, 3), stride=STRIDE, channels=1, reach=16.0)


def sample_of(board: boards.Board) -> Sample:
    """A rendered board as a sample."""
    boxes = np.array([d.box for d in board.defects], np.float32).reshape(-1, 4)
    return Sample(board.image, boxes, np.array([LABELS.index(d.label) for d in board.defects], np.int64))


def _rendered(seed: int, crowded: bool) -> tuple[str, str, Sample]:
    look = "grey" if seed % 8 == 0 else "binary"
    board = boards.render(seed, look, defects=26 if crowded else None)
    return f"{seed:08d}", f"{seed:08d}", sample_of(board)


def render_pool(folder: Path, first: int, count: int, *, crowded: bool) -> list[Item]:
    """`count` rendered boards as a labelled folder; made once. Crowded boards teach more a picture."""
    if not (folder / "done").exists():
        with ProcessPoolExecutor(initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            make = functools.partial(_rendered, crowded=crowded)
            data.write_annotations(folder, pool.map(make, range(first, first + count), chunksize=8), LABELS)
        (folder / "done").touch()
    return data.read_annotations(folder)


def plain_pool(out: Path, count: int) -> list[Item]:
    """Rendered boards with as many defects as real ones have."""
    return render_pool(out / "plain", 4_000_000, count, crowded=False)


def batch_of(samples: Sequence[Sample], size: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """A batch of augmented crops: pixels uint8 [N, 1, CROP, CROP] and what the loss wants."""
    chosen = [_augmented(samples[i], rng) for i in rng.integers(0, len(samples), size)]
    pixels = torch.from_numpy(np.stack([s.image for s in chosen]))[:, None]
    return (pixels, *losses.targets(chosen, len(LABELS), STRIDE))


def _augmented(sample: Sample, rng: np.random.Generator) -> Sample:
    sample = augment.crop(sample, rng, (CROP, CROP), zoom=(0.85, 1.2), stretch=0.06, pad=255, keep=0.55)
    sample = augment.symmetry(sample, rng)
    image = sample.image
    if rng.random() < 0.25:
        image = augment.blur(image, rng, 1.0)
    if rng.random() < 0.4:  # scaled edges are soft; a camera that binarises gives hard ones at every scale
        image = augment.threshold(image, rng)
    if rng.random() < 0.3:
        image = augment.tones(image, rng, 0.2)
    if rng.random() < 0.25:
        image = augment.noise(image, rng, rng.uniform(1, 10))
    return Sample(image, sample.boxes, sample.classes)


def loss_of(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    pixels, heat, boxes, weights = batch
    detector = cast("Detector", model)
    logits, sides = detector(pixels.float().contiguous(memory_format=torch.channels_last))
    return losses.detector_loss(logits, detector.boxes(sides), heat, boxes, weights)


def examined(weights: Path, items: Sequence[Item]) -> tuple[list[Found], list[evaluate.Examined]]:
    """Every detection on `items`, and how it fares at the benchmark's IoU."""
    runner = Runner(weights, SIZE)
    samples = [data.load(item, LABELS, grey=True) for item in items]
    found = [runner.detect(sample.image, score=0.02) for sample in samples]
    fared = [
        evaluate.examine(f, s.boxes, s.classes, IOU, item.group)
        for f, s, item in zip(found, samples, items, strict=True)
    ]
    return found, fared


def started(weights: Path) -> Detector:
    """The network with the weights of a bundle."""
    return export.restored(network(), weights)


def fit(
    build: Callable[[], Detector],
    items: Sequence[Item],
    plan: Plan,
    out: Path,
    examine_on: Sequence[Item] = (),
    beside: Sequence[Item] = (),
    makers: int = 1,
) -> History:
    """Train on `items` and write `weights.onnx` and the learning curve to `out`. Half of what is shown is from `beside`."""
    settle(plan.seed, plan.threads)
    samples = [data.load(item, LABELS, grey=True) for item in items]
    others = [data.load(item, LABELS, grey=True) for item in beside]
    samples = samples * max(1, round(len(others) / len(samples))) + others
    make = functools.partial(batch_of, samples, plan.batch)

    def score(model: nn.Module) -> float:
        export.export(cast("Detector", model), out / "trial.onnx", SIZE)
        return float(np.nanmean(evaluate.average_precisions(examined(out / "trial.onnx", examine_on)[1], len(LABELS))))

    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    source = batches(make, plan.steps, plan.seed, makers, resumed(checkpoint))
    examiner = score if examine_on else None
    model, history = train(build(), source, loss_of, plan, examiner, max(plan.steps // 4, 1), checkpoint)
    export.export(cast("Detector", model), out / "weights.onnx", SIZE)
    (out / "trial.onnx").unlink(missing_ok=True)
    evaluate.draw_curve(out / "curve.png", history, "mAP on held-out boards")
    return history


def measure(weights: Path, items: Sequence[Item], threshold: float, out: Path, name: str) -> dict[str, Any]:
    """Examine on `items`; write the confusion matrix and return the figures."""
    found, fared = examined(weights, items)
    truth = [(s.boxes, s.classes) for s in (data.load(item, LABELS, grey=True) for item in items)]
    matrix = evaluate.confusion(found, truth, len(LABELS), threshold, IOU)
    evaluate.draw_confusion(out / f"confusion-{name}.png", matrix, [*LABELS, "nothing"])
    return {"iou": IOU, **evaluate.report(fared, LABELS, threshold)}


def on_renders(out: Path, plan: Plan, scale: Scale, build: Callable[[], Detector]) -> dict[str, Any]:
    """The shipped model: renders to learn from, other renders to choose the threshold on."""
    items = render_pool(out / "renders", 1_000_000, scale.crowded, crowded=True) + plain_pool(out, scale.plain)
    held = render_pool(out / "held", 2_000_000, HELD, crowded=False)
    fit(build, items, plan, out, held, makers=scale.makers)
    threshold = evaluate.best_threshold(examined(out / "weights.onnx", held)[1])
    return {
        "steps": plan.steps,
        "threshold": threshold,
        "rendered": measure(out / "weights.onnx", held, threshold, out, "rendered"),
    }


def on_folder(
    folder: Path, out: Path, plan: Plan, scale: Scale, build: Callable[[], Detector], share: float = 0.2
) -> dict[str, Any]:
    """The network learns from a labelled folder and renders beside it, as a few boards are not all boards.

    Whole board groups are held back for the figures, and choose nothing.
    """
    items = data.read_annotations(folder)
    train_ids, test_ids = data.split_by_group([item.group for item in items], share, plan.seed)
    shown = [items[i] for i in train_ids]
    fit(build, shown, plan, out, beside=plain_pool(out, scale.plain), makers=scale.makers)
    test = [items[i] for i in test_ids]
    threshold = 0.4  # fixed beforehand
    return {
        "steps": plan.steps,
        "trained_on": sorted({items[i].group for i in train_ids}),
        "held_back": measure(out / "weights.onnx", test, threshold, out, "held-back"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="a labelled folder (annotations.jsonl) to train on instead of renders"
    )
    parser.add_argument("--work", type=Path, default=Path(".demo/train-pcb"), help="where pictures and results go")
    parser.add_argument("--examine", type=Path, help="do not train: measure WORK/weights.onnx on this labelled folder")
    parser.add_argument("--start", type=Path, help="weights.onnx of an earlier version to go on from")
    parser.add_argument("--scratch", action="store_true", help="with --data: forget the shipped network, learn anew")
    parser.add_argument(
        "--steps", type=int, help=f"7000 (12 000 on a GPU); {MORE_STEPS} where a trained network goes on"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    start = chosen.start or (SHIPPED if chosen.data and not chosen.scratch else None)
    build = functools.partial(started, start) if start else network
    scale = scale_of(chosen.device)
    steps, rate = (MORE_STEPS, MORE_RATE) if start else (scale.steps, scale.rate)
    half = chosen.device != "cpu"  # most CPUs only emulate bfloat16, many times slower
    plan = Plan(
        chosen.steps or steps, batch=scale.batch, rate=rate, half=half, threads=chosen.threads, device=chosen.device
    )
    metrics = chosen.work / "metrics.json"
    if chosen.examine:
        known = json.loads(metrics.read_text("utf-8"))
        items = data.read_annotations(chosen.examine)
        result = {
            **known,
            "examined": measure(chosen.work / "weights.onnx", items, known["threshold"], chosen.work, "examined"),
        }
    elif chosen.data:
        result = on_folder(chosen.data, chosen.work, plan, scale, build)
    else:
        result = on_renders(chosen.work, plan, scale, build)
    evaluate.save_json(metrics, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

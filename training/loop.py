"""The training loop: seeded, averaged, with a cosine learning rate, a progress bar and its history for the curves."""

import copy
import math
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, get_worker_info

LossOf = Callable[[nn.Module, tuple[Tensor, ...]], Tensor]


@dataclass(frozen=True)
class Plan:
    """All that decides a run, apart from model and data."""

    steps: int
    batch: int = 16
    rate: float = 2e-3
    decay: float = 1e-4
    warm_up: int = 100
    cool: float = 0.3  # the share of the steps, at the end, over which the rate falls to nothing
    average: float = 0.998  # of the weights kept by the moving average at each step, once warm
    seed: int = 0
    threads: int = 2
    half: bool = False  # bfloat16 where the machine has it
    device: str = "cpu"
    gentle: str = ""  # parameters whose name begins so were learned before, and learn at `gentleness` times the rate
    gentleness: float = 0.1


@dataclass
class History:
    """The curve: (step, smoothed loss), and (step, score) where the run was examined."""

    loss: list[tuple[int, float]] = field(default_factory=list)
    score: list[tuple[int, float]] = field(default_factory=list)


class Endless(Dataset[tuple[Tensor, ...]]):
    """Batches by number: `make(rng)` gives batch n from a generator seeded by (seed, n), whoever asks."""

    def __init__(
        self, make: Callable[[np.random.Generator], tuple[Tensor, ...]], first: int, steps: int, seed: int
    ) -> None:
        self.make, self.first, self.steps, self.seed = make, first, steps, seed

    def __len__(self) -> int:
        return self.steps - self.first

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        if get_worker_info() is not None:
            torch.set_num_threads(1)
            cv2.setNumThreads(1)
        return self.make(np.random.default_rng([self.seed, self.first + index]))


def batches(
    make: Callable[[np.random.Generator], tuple[Tensor, ...]], steps: int, seed: int, workers: int = 1, first: int = 0
) -> Iterable[tuple[Tensor, ...]]:
    """Batches `first` to `steps`, made ahead in `workers` processes; the same for the same seed, whatever `workers` is."""
    return DataLoader(Endless(make, first, steps, seed), batch_size=None, num_workers=workers)


def settle(seed: int, threads: int) -> None:
    """Fix every seed and the number of threads."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  libraries that use the old global generator
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)


def train(
    model: nn.Module,
    data: Iterable[tuple[Tensor, ...]],
    loss_of: LossOf,
    plan: Plan,
    examine: Callable[[nn.Module], float] | None = None,
    every: int = 0,
    checkpoint: Path | None = None,
) -> tuple[nn.Module, History]:
    """Train `model`; return the moving average of its weights, ready for inference, and the history.

    `examine` scores the average each `every` steps, for the curve alone: nothing is chosen by it. With a `checkpoint` the
    run is kept each 250 steps, and taken up where it was left; `data` must then begin at `resumed(checkpoint)`.
    """
    model = model.to(plan.device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # the stubs forget it
    average = copy.deepcopy(model).eval()
    optimiser = torch.optim.AdamW(_groups(model, plan), lr=plan.rate)
    history, first = History(), resumed(checkpoint)
    if checkpoint is not None and first:
        _take_up(checkpoint, model, average, optimiser, history)
    for step, batch in _shown(data, first, plan.steps, history):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * group.get("share", 1.0) * _pace(step, plan)
        loss = _step(model, batch, loss_of, optimiser, plan)
        _follow(average, model, min(plan.average, (1 + step) / (10 + step)))
        history.loss.append((step, _ahead(history.loss[-1][1] if history.loss else loss, loss, step)))
        if examine is not None and every and (step + 1) % every == 0:
            history.score.append((step + 1, examine(average)))
        if checkpoint is not None and (step + 1) % 250 == 0:
            _keep(checkpoint, step + 1, model, average, optimiser, history)
    return average, history


def resumed(checkpoint: Path | None) -> int:
    """The step at which a run with this checkpoint goes on."""
    if checkpoint is None or not checkpoint.exists():
        return 0
    return int(torch.load(checkpoint, weights_only=True)["step"])


def _keep(
    path: Path, step: int, model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, history: History
) -> None:
    parts = {"model": model.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save({"step": step, "loss": history.loss, "score": history.score, **parts}, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def _take_up(
    path: Path, model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, history: History
) -> None:
    kept = torch.load(path, weights_only=True)
    for name, part in (("model", model), ("average", average), ("optimiser", optimiser)):
        part.load_state_dict(kept[name])
    history.loss, history.score = list(kept["loss"]), list(kept["score"])


def _step(
    model: nn.Module, batch: tuple[Tensor, ...], loss_of: LossOf, optimiser: torch.optim.Optimizer, plan: Plan
) -> float:
    moved = tuple(tensor.to(plan.device) for tensor in batch)
    with torch.autocast(plan.device, torch.bfloat16, enabled=plan.half):
        loss = loss_of(model, moved)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimiser.step()
    return float(loss.detach())


def _groups(model: nn.Module, plan: Plan) -> list[dict[str, object]]:
    """Biases and norms are not decayed; `gentle` parameters get a `share` of the rate; frozen ones are left out."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gentle = bool(plan.gentle) and name.startswith(plan.gentle)
            groups.setdefault((gentle, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": plan.decay if decayed else 0.0,
            "share": plan.gentleness if gentle else 1.0,
        }
        for (gentle, decayed), parameters in groups.items()
    ]


def _pace(step: int, plan: Plan) -> float:
    warm = min(1.0, (step + 1) / max(plan.warm_up, 1))
    left = min(1.0, (plan.steps - step) / max(plan.cool * plan.steps, 1.0))
    return warm * (1 - math.cos(math.pi * left)) / 2


def _ahead(smooth: float, loss: float, step: int) -> float:
    keep = min(0.98, step / (step + 1))
    return keep * smooth + (1 - keep) * loss


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    ours, theirs = average.state_dict(), model.state_dict()
    for name, value in ours.items():
        if value.dtype.is_floating_point:
            value.lerp_(theirs[name], 1 - keep)
        else:
            value.copy_(theirs[name])


def _shown(
    data: Iterable[tuple[Tensor, ...]], first: int, steps: int, history: History
) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, refresh_per_second=0.5) as progress:
        task = progress.add_task("training", total=steps, completed=first, note="")
        for step, batch in enumerate(data, first):
            yield step, batch
            progress.update(task, advance=1, note=f"loss {history.loss[-1][1]:.3f}")
            if not progress.console.is_terminal and (step + 1) % max(steps // 20, 1) == 0:
                print(f"step {step + 1} of {steps}, loss {history.loss[-1][1]:.3f}", flush=True)

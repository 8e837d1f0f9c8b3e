"""`eyeline compare`: two pipelines on the same labelled pictures: who is right how often, at what cost, and when which pays.

The figures are pure functions of what each pipeline said and took; `eyeline.worker.measure` runs them.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from eyeline.core.errors import ConfigError
from eyeline.core.types import Classification, Detection
from eyeline.inference.bundles import ExpectedDetection
from eyeline.ops import scores
from eyeline.ops.evaluate import Sample
from eyeline.ops.scores import Named, Seen

#: Resamples of the pictures for the interval of the difference.
RESAMPLES = 2000
#: What an hour of one CPU core costs, where nothing else is said: about an on-demand core of the large clouds.
PRICE = 0.045
INK, MUTED, LINE, COLOURS = "#16191D", "#4F5964", "#D5DAE0", ("#0A5FA8", "#B35C00")
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """What a pipeline said and took, picture by picture, in the order of the samples; `memory` in bytes."""

    name: str
    detections: Sequence[Sequence[Detection]]
    classifications: Sequence[Sequence[Classification]]
    seconds: Sequence[float]
    cpu: Sequence[float]
    escalated: Sequence[bool]
    refused: Sequence[str]
    memory: int
    models: Sequence[str]


@dataclass(frozen=True)
class _Judged:
    """A pipeline against the truth: its metrics, and a function of chosen pictures' indices → its score."""

    metrics: dict[str, Any]
    score: Callable[[NDArray[np.int64]], float]


def compare(
    samples: Sequence[Sample], runs: tuple[Run, Run], *, iou: float = 0.5, price: float = PRICE, rate: float = 0.0
) -> dict[str, Any]:
    """All figures. rate: pictures a second that arrive (at random times, the same for both); 0: one after another.

    Raises ConfigError where a pipeline answered nothing, or the labels are none that it could give.
    """
    kept = [at for at in range(len(samples)) if not runs[0].refused[at] and not runs[1].refused[at]]
    if not kept:
        raise ConfigError(f"no picture could be read by both: {runs[0].refused[0] or runs[1].refused[0]}")
    kind = "boxes" if any(sample.boxes for sample in samples) else "labels"
    chosen = [samples[at] for at in kept]
    judged = [_boxes(chosen, run, kept, iou) if kind == "boxes" else _labels(chosen, run, kept) for run in runs]
    figures = [
        {"pipeline": run.name, "models": list(run.models), **each.metrics, **_costs(run, kept, price, rate)}
        for run, each in zip(runs, judged, strict=True)
    ]
    return {
        "pictures": len(kept),
        "refused": {samples[at].path.name: runs[0].refused[at] or runs[1].refused[at] for at in _others(samples, kept)},
        "measure": "F-score" if kind == "boxes" else "accuracy",
        "price_per_cpu_hour": price,
        "rate": rate,
        "pipelines": figures,
        "difference": _difference(judged, len(kept)),
        "break_even": _break_even(figures),
    }


def _others(samples: Sequence[Sample], kept: Sequence[int]) -> list[int]:
    return sorted(set(range(len(samples))) - set(kept))


# --- who is right -----------------------------------------------------------------------------------------------------


def _labels(samples: Sequence[Sample], run: Run, kept: Sequence[int]) -> _Judged:
    """The label of the picture; where no step names the picture, what the largest box or its crop is called."""
    known = {sample.label for sample in samples}
    answers = [
        _called(sample, run.detections[at], run.classifications[at], known)
        for sample, at in zip(samples, kept, strict=True)
    ]
    if not any(answer.said in known for answer in answers):
        heard = ", ".join(sorted({answer.said for answer in answers})[:5])
        raise ConfigError(f"{run.name!r} never says one of the labels {', '.join(sorted(known)[:5])}; it says {heard}")
    right = np.array([answer.said == answer.truth for answer in answers], np.float64)
    table = scores.confusion_of_labels(answers)
    return _Judged(
        {"score": float(right.mean()), "f_by_label": scores.f_by_label(table), "confusion": table},
        lambda chosen: float(right[chosen].mean()),
    )


def _called(sample: Sample, found: Sequence[Detection], named: Sequence[Classification], known: set[str]) -> Named:
    said = [(each.label, each.score) for each in named if each.label in known] or [
        (each.label, each.score) for each in named
    ]
    if not said and found:
        largest = max(found, key=lambda each: (each.box[2] - each.box[0]) * (each.box[3] - each.box[1]))
        said = [_best_name(largest, known)]
    label, score = max(said, key=lambda each: each[1], default=(scores.NOTHING, 0.0))
    return Named(sample.label, label, score, dict(said))


def _best_name(found: Detection, known: set[str]) -> tuple[str, float]:
    """What a box is called: by its crop's classifiers where they use the data's words, else by its detector."""
    crops = [(str(each["label"]), float(each["score"])) for each in found.attributes.get("classifications", ())]
    fitting = [each for each in crops if each[0] in known]
    return max(fitting, key=lambda each: each[1], default=(found.label, found.score))


def _boxes(samples: Sequence[Sample], run: Run, kept: Sequence[int], iou: float) -> _Judged:
    """F-score over all boxes, as served: what is under a step's threshold was not said."""
    known = {box.label for sample in samples for box in sample.boxes}
    pictures = [
        Seen(
            sample.boxes,
            [ExpectedDetection(*_best_name(found, known), found.box) for found in run.detections[at]],
        )
        for sample, at in zip(samples, kept, strict=True)
    ]
    if not any(box.label in known for picture in pictures for box in picture.found):
        heard = ", ".join(sorted({box.label for picture in pictures for box in picture.found})[:5]) or "nothing"
        raise ConfigError(f"{run.name!r} never says one of the labels {', '.join(sorted(known)[:5])}; it says {heard}")
    hits = np.array([sum(scores.matched(picture, iou)) for picture in pictures], np.float64)
    said = np.array([len(picture.found) for picture in pictures], np.float64)
    true = np.array([len(picture.truths) for picture in pictures], np.float64)

    def score(chosen: NDArray[np.int64]) -> float:
        total = float(said[chosen].sum() + true[chosen].sum())
        return 2 * float(hits[chosen].sum()) / total if total else 0.0

    return _Judged(
        {
            "score": score(np.arange(len(pictures))),
            "iou": iou,
            "precision": float(hits.sum() / said.sum()) if said.sum() else 0.0,
            "recall": float(hits.sum() / true.sum()) if true.sum() else 0.0,
        },
        score,
    )


def _difference(judged: Sequence[_Judged], count: int) -> dict[str, Any]:
    """Second minus first, with the interval in which 95 of 100 resamples of the pictures fall, both judged on the same ones."""
    every = np.arange(count)
    draws = np.random.default_rng(7).integers(0, count, (RESAMPLES, count))
    found = [judged[1].score(draw) - judged[0].score(draw) for draw in draws]
    low, high = (float(value) for value in np.quantile(found, (0.025, 0.975)))
    return {"score": judged[1].score(every) - judged[0].score(every), "low": low, "high": high, "resamples": RESAMPLES}


# --- what it takes ----------------------------------------------------------------------------------------------------


def _costs(run: Run, kept: Sequence[int], price: float, rate: float) -> dict[str, Any]:
    seconds, cpu = (np.array([values[at] for at in kept], np.float64) for values in (run.seconds, run.cpu))
    escalated = np.array([run.escalated[at] for at in kept], bool)
    latency = waited(seconds, rate) if rate else seconds
    told: dict[str, Any] = {
        "p50": float(np.quantile(latency, 0.5)),
        "p95": float(np.quantile(latency, 0.95)),
        "cpu_seconds_per_image": float(cpu.mean()),
        "images_per_core_second": float(1 / cpu.mean()) if cpu.mean() else math.inf,
        "cost_per_million": float(cpu.mean()) * 1e6 / 3600 * price,
        "memory_bytes": run.memory,
    }
    if escalated.any():
        told["escalated"] = float(escalated.mean())
        told["cpu_seconds_sure"] = float(cpu[~escalated].mean()) if not escalated.all() else None
        told["cpu_seconds_escalated"] = float(cpu[escalated].mean())
    return told


def waited(seconds: Numbers, rate: float) -> Numbers:
    """Seconds from arrival to answer with one server in line: arrivals at random times, `rate` a second, the same every time."""
    gaps = np.random.default_rng(11).exponential(1 / rate, len(seconds))
    arrivals, free, found = np.cumsum(gaps), 0.0, []
    for arrival, needed in zip(arrivals, seconds, strict=True):
        free = max(free, float(arrival)) + float(needed)
        found.append(free - float(arrival))
    return np.array(found)


def _break_even(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """From which price of a wrong answer the dearer one pays, and up to which share of escalations a cascade does."""
    cheap, dear = sorted(figures, key=lambda each: float(each["cost_per_million"]))
    extra = (dear["cost_per_million"] - cheap["cost_per_million"]) / 1e6
    gain = dear["score"] - cheap["score"]
    told: dict[str, Any] = {
        "cheaper": cheap["pipeline"],
        "dearer": dear["pipeline"],
        "extra_cost_per_million": extra * 1e6,
        "price_of_an_error": extra / gain if gain > 0 else None,
    }
    for cascade, other in ((cheap, dear), (dear, cheap)):
        sure, both = cascade.get("cpu_seconds_sure"), cascade.get("cpu_seconds_escalated")
        if sure is not None and both is not None and both > sure:
            share = (other["cpu_seconds_per_image"] - sure) / (both - sure)
            told["cascade"] = {
                "pipeline": cascade["pipeline"],
                "escalated": cascade["escalated"],
                "cheaper_up_to": min(1.0, max(0.0, share)),
            }
    return told


# --- telling ----------------------------------------------------------------------------------------------------------


def table(figures: Mapping[str, Any]) -> list[list[str]]:
    """Rows: what, first, second."""
    first, second = figures["pipelines"]

    def row(name: str, key: str, words: Callable[[Any], str]) -> list[str]:
        return [name, *(words(each[key]) if each.get(key) is not None else "" for each in (first, second))]

    rows = [
        row(str(figures["measure"]), "score", lambda value: f"{value:.3f}"),
        row("p50", "p50", lambda value: f"{value * 1000:.1f} ms"),
        row("p95", "p95", lambda value: f"{value * 1000:.1f} ms"),
        row("memory", "memory_bytes", lambda value: f"{value / 1e6:.0f} MB"),
        row("CPU an image", "cpu_seconds_per_image", lambda value: f"{value * 1000:.1f} ms"),
        row("a million images", "cost_per_million", lambda value: f"{value:.2f}"),
        row("escalated", "escalated", lambda value: f"{value:.1%}"),
    ]
    return [each for each in rows if any(each[1:])]


def sentences(figures: Mapping[str, Any]) -> list[str]:
    """What follows, in words."""
    gap, even = figures["difference"], figures["break_even"]
    first, second = (each["pipeline"] for each in figures["pipelines"])
    sure = "" if gap["low"] > 0 or gap["high"] < 0 else ": no difference is shown"
    within = f"95 % of resamples within {gap['low']:+.3f} … {gap['high']:+.3f}{sure}"
    told = [f"{second} − {first}: {figures['measure']} {gap['score']:+.3f}, {within}"]
    if even["price_of_an_error"] is None:
        told.append(f"{even['cheaper']} is cheaper and not worse here: nothing is to be gained by {even['dearer']}")
    else:
        told.append(
            f"{even['dearer']} costs {even['extra_cost_per_million']:.2f} more a million; it pays from a price of "
            f"{even['price_of_an_error']:.2g} for each wrong answer on{', if there is a difference' if sure else ''}"
        )
    if "cascade" in even:
        cascade = even["cascade"]
        told.append(
            f"{cascade['pipeline']} escalates {cascade['escalated']:.1%}; it is the cheaper one up to "
            f"{cascade['cheaper_up_to']:.1%}"
        )
    return told


def write(figures: Mapping[str, Any], folder: Path) -> list[Path]:
    """compare.json and compare.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compare.json").write_text(json.dumps(figures, indent=2) + "\n")
    _chart(figures).save(folder / "compare.png")
    return [folder / "compare.json", folder / "compare.png"]


def _chart(figures: Mapping[str, Any]) -> Image.Image:
    """Bars of each figure, both pipelines one below the other."""
    rows = table(figures)
    keys = {
        "p50": "p50", "p95": "p95", "memory": "memory_bytes", "CPU an image": "cpu_seconds_per_image",
        "a million images": "cost_per_million", "escalated": "escalated", str(figures["measure"]): "score",
    }  # fmt: skip
    picture = Image.new("RGB", (900, 70 + 78 * len(rows)), "white")
    draw = ImageDraw.Draw(picture)
    names = [str(each["pipeline"]) for each in figures["pipelines"]]
    draw.text((24, 18), f"{names[0]} and {names[1]}, {figures['pictures']} pictures", INK, ImageFont.load_default(20))
    for number, (what, *words) in enumerate(rows):
        top = 62 + number * 78
        draw.line((24, top, 876, top), fill=LINE)
        draw.text((24, top + 6), what, INK, ImageFont.load_default(14))
        values = [float(each.get(keys[what]) or 0.0) for each in figures["pipelines"]]
        for place, (value, text) in enumerate(zip(values, words, strict=True)):
            y, length = top + 26 + place * 23, int(480 * value / (max(values) or 1.0))
            draw.text((24, y + 2), names[place][:22], MUTED, ImageFont.load_default(13))
            draw.rectangle((220, y, 220 + max(1, length), y + 18), fill=COLOURS[place])
            draw.text((228 + length, y + 2), text, INK, ImageFont.load_default(13))
    return picture

"""`eyeline models eval`: how good a bundle is on labelled pictures, through the very code that serves it.

Boxes come as JSON lines, `{"image": "a.jpg", "boxes": [[x1, y1, x2, y2, "label"], …]}`; labels as a CSV file with the
columns `image` and `label` (or one named as the head), masks as
one with `image` and `mask` (evaluate_masks.py). Paths are relative to the file.
"""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import msgspec
from PIL import Image, ImageDraw, ImageFont

from eyeline.core.errors import ConfigError, InferenceError, InputError
from eyeline.core.settings import InferenceSettings
from eyeline.core.types import Classification, Detection
from eyeline.inference.answers import Infer, ask
from eyeline.inference.bundles import Answer, Bundle
from eyeline.inference.runtimes import choose, open_runtimes
from eyeline.ops import evaluate_masks, scores
from eyeline.ops.evaluate_masks import MaskedSample
from eyeline.ops.scores import NOTHING, Named, Seen, Truth
from eyeline.pipeline.contract import ModelContract
from eyeline.pipeline.decode import decode
from eyeline.pipeline.drawing import overlay, thumbnail

#: For precision at every recall, boxes are wanted far below the threshold that serves.
FLOOR = 0.01
MOST_BOXES = 300
#: Pictures on the sheet of worst mistakes.
WORST = 16
TILE = 320
COLUMNS = 4
S = TypeVar("S")
T = TypeVar("T")
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Sample:
    """A labelled picture: boxes for a detector, `label` for a classifier."""

    path: Path
    boxes: tuple[Truth, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What was measured. `metrics` is what `metrics.json` holds; `files` are those written."""

    metrics: dict[str, Any]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class _Asked:
    sample: Sample
    answer: Answer
    refused: str = ""


def evaluate(
    bundle: Bundle,
    data: Path,
    *,
    iou: float = 0.5,
    out: Path | None = None,
    column: str | None = None,
    where: Mapping[str, str] | None = None,
    head: str | None = None,
    progress: Progress = lambda _done, _total: None,
    settings: InferenceSettings | None = None,
) -> Evaluation:
    """Measure a bundle on `data` (.jsonl with boxes, .csv with labels); with `out`, write metrics.json and worst.png there.

    column: of the CSV, the label's (default: the head's name, else `label`). where: only rows with these values
    (`{"split": "val"}`). Blocks for as long as the pictures take. Raises ConfigError for data that do not fit the bundle.
    """
    heads = [each.name for each in bundle.contract.output.heads]
    if heads and head not in heads:
        raise ConfigError(f"{bundle.name!r} has several heads: say which with --head: {', '.join(heads)}")
    if bundle.contract.task == "anomaly" and not evaluate_masks.has_masks(data):
        raise ConfigError(
            f"{data}: an anomaly model is measured on a .csv file with the columns image and mask (empty: good)"
        )
    if bundle.contract.gives_boxes and evaluate_masks.has_masks(data):
        return _masked(bundle, data, where or {}, out, progress, settings or InferenceSettings())
    samples = _read(bundle.contract, data, column or head or "label", where or {})
    asked = _ask_all(bundle, _generous(bundle.contract), samples, settings or InferenceSettings(), progress)
    readable = [each for each in asked if not each.refused]
    if not readable:
        raise ConfigError(f"none of the {len(asked)} pictures of {data} can be read: {asked[0].refused}")
    metrics: dict[str, Any] = {
        "model": bundle.name,
        "version": bundle.version,
        "data": data.name,
        "images": len(readable),
        "refused": {each.sample.path.name: each.refused for each in asked if each.refused},
    }
    if bundle.contract.task == "detection":
        metrics |= _detection(bundle.contract, readable, iou)
        worst = _worst_boxes(bundle.contract, readable, iou)
    else:
        metrics |= _classification(bundle.contract, readable, head)
        worst = _worst_labels(readable, head)
    return Evaluation(metrics, _write(out, metrics, worst, bundle.contract) if out else ())


def _masked(
    bundle: Bundle,
    data: Path,
    where: Mapping[str, str],
    out: Path | None,
    progress: Progress,
    settings: InferenceSettings,
) -> Evaluation:
    """Against masks, pixel by pixel, at the thresholds that serve."""
    samples = evaluate_masks.read(data, where)
    contract = bundle.contract
    every = msgspec.structs.replace(contract, output=msgspec.structs.replace(contract.output, top=2))
    refused: dict[str, str] = {}

    def one(infer: Infer, sample: MaskedSample) -> tuple[MaskedSample, Answer, Any] | None:
        try:
            return sample, *evaluate_masks.asked(sample.path.read_bytes(), sample, every, infer)
        except (InputError, InferenceError, OSError) as error:
            refused[sample.path.name] = str(error)
            return None

    answered = _over(bundle, settings, samples, one, progress)
    metrics: dict[str, Any] = {
        "model": bundle.name,
        "version": bundle.version,
        "data": data.name,
        "images": len(samples) - len(refused),
        "refused": refused,
    }
    metrics |= evaluate_masks.measured(contract, [each for each in answered if each is not None])
    if out is None:
        return Evaluation(metrics, ())
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    return Evaluation(metrics, (out / "metrics.json",))


# --- data -------------------------------------------------------------------------------------------------------------


def _read(contract: ModelContract, data: Path, column: str, where: Mapping[str, str]) -> list[Sample]:
    if not data.is_file():
        raise ConfigError(f"no labelled data at {data}")
    samples = _read_boxes(data) if contract.task == "detection" else _read_labels(data, column, where)
    if not samples:
        raise ConfigError(f"{data} holds no labelled picture{' with ' + str(dict(where)) if where else ''}")
    known = {*contract.labels, *(label for head in contract.output.heads for label in head.labels)}
    strange = sorted({label for sample in samples for label in _labels_of(sample)} - known)
    if strange:
        near = get_close_matches(strange[0], known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{data} has labels that {contract.name!r} does not know: {', '.join(strange[:5])}.{hint}")
    return samples


def read_samples(data: Path, column: str = "label", where: Mapping[str, str] | None = None) -> list[Sample]:
    """Labelled pictures of either kind, whatever labels they have. Raises ConfigError."""
    if not data.is_file():
        raise ConfigError(f"no labelled data at {data}")
    samples = _read_boxes(data) if data.suffix == ".jsonl" else _read_labels(data, column, where or {})
    if not samples:
        raise ConfigError(f"{data} holds no labelled picture{' with ' + str(dict(where)) if where else ''}")
    return samples


def _labels_of(sample: Sample) -> list[str]:
    return [box.label for box in sample.boxes] if not sample.label else [sample.label]


def _read_boxes(data: Path) -> list[Sample]:
    if data.suffix != ".jsonl":
        raise ConfigError(f"{data}: a detector is measured on boxes, one JSON line a picture, in a .jsonl file")
    samples = []
    for number, line in enumerate(data.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            boxes = tuple(
                Truth(str(label), (float(a), float(b), float(c), float(d))) for a, b, c, d, label in row["boxes"]
            )
            samples.append(Sample(data.parent / str(row["image"]), boxes))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f'{data}, line {number}: {error!r}; wanted {{"image": "a.jpg", "boxes": [[x1, y1, x2, y2, "label"]]}}'
            ) from error
    return samples


def _read_labels(data: Path, column: str, where: Mapping[str, str]) -> list[Sample]:
    if data.suffix != ".csv":
        raise ConfigError(f"{data}: a classifier is measured on a .csv file with the columns image and label")
    with data.open(newline="") as file:
        reader = csv.DictReader(file)
        missing = sorted({"image", column, *where} - set(reader.fieldnames or ()))
        if missing:
            has = ", ".join(reader.fieldnames or ())
            raise ConfigError(
                f"{data} has no column {', '.join(missing)}; it has {has}: name the label's with --column"
            )
        rows = [row for row in reader if all(row[key] == value for key, value in where.items())]
    return [Sample(data.parent / row["image"], label=row[column]) for row in rows]


# --- asking -----------------------------------------------------------------------------------------------------------


def _generous(contract: ModelContract) -> ModelContract:
    """The same contract, telling all it sees."""
    output = contract.output
    top = max(len(contract.labels), *(len(head.labels) for head in output.heads), 1)
    floor = min(FLOOR, output.score_threshold) if contract.task == "detection" else output.score_threshold
    generous = msgspec.structs.replace(
        output, score_threshold=floor, max_detections=max(MOST_BOXES, output.max_detections), top=top
    )
    return msgspec.structs.replace(contract, output=generous)


def _ask_all(
    bundle: Bundle, contract: ModelContract, samples: Sequence[Sample], settings: InferenceSettings, progress: Progress
) -> list[_Asked]:
    def one(infer: Infer, sample: Sample) -> _Asked:
        try:
            return _Asked(sample, ask(sample.path.read_bytes(), contract, infer, sample.path.name))
        except (InputError, InferenceError, OSError) as error:
            return _Asked(sample, Answer(sample.path.name), str(error))

    return _over(bundle, settings, samples, one, progress)


def _over(
    bundle: Bundle,
    settings: InferenceSettings,
    samples: Sequence[S],
    work: Callable[[Infer, S], T],
    progress: Progress,
) -> list[T]:
    """`work` on every sample, by as many instances of the model as there are, in order."""
    runtimes = open_runtimes(bundle, choose(bundle, settings))
    free: SimpleQueue[Infer] = SimpleQueue()
    for runtime in runtimes:
        free.put(runtime.infer)

    def one(sample: S) -> T:
        infer = free.get()
        try:
            return work(infer, sample)
        finally:
            free.put(infer)

    done = []
    with ThreadPoolExecutor(len(runtimes)) as pool:
        for number, each in enumerate(pool.map(one, samples), 1):
            done.append(each)
            progress(number, len(samples))
    for runtime in runtimes:
        runtime.close()
    return done


# --- figures ----------------------------------------------------------------------------------------------------------


def _detection(contract: ModelContract, asked: Sequence[_Asked], iou: float) -> dict[str, Any]:
    pictures = [Seen(each.sample.boxes, each.answer.detections) for each in asked]
    threshold = contract.output.score_threshold
    precision = scores.average_precision(pictures, contract.labels, iou)
    shown = [(box.score, hit) for p in pictures for box, hit in _with_verdict(p, iou) if box.score >= threshold]
    table = scores.confusion_of_boxes(pictures, iou, threshold)
    return {
        "iou": iou,
        "boxes": sum(len(picture.truths) for picture in pictures),
        "mAP": sum(precision.values()) / len(precision) if precision else math.nan,
        "average_precision": precision,
        "f_score": scores.f_scores(pictures, iou, threshold),
        "confusion": table,
        "calibration_error": scores.calibration_error([score for score, _ in shown], [hit for _, hit in shown]),
    }


def _with_verdict(picture: Seen, iou: float) -> list[tuple[Any, bool]]:
    ordered = sorted(picture.found, key=lambda each: -each.score)
    return list(zip(ordered, scores.matched(picture, iou), strict=True))


def _classification(contract: ModelContract, asked: Sequence[_Asked], head: str | None) -> dict[str, Any]:
    answers = [_named(each, head) for each in asked]
    right = [answer.truth == answer.said for answer in answers]
    table = scores.confusion_of_labels(answers)
    by_label = scores.f_by_label(table)
    metrics: dict[str, Any] = {
        "accuracy": sum(right) / len(right),
        "f_score": {"macro": sum(by_label.values()) / len(by_label), "by_label": by_label},
        "confusion": table,
        "calibration_error": scores.calibration_error([answer.score for answer in answers], right),
    }
    if len(contract.labels) == 2:
        positive = contract.labels[0]
        marks = [answer.scores.get(positive, 0.0) for answer in answers]
        metrics["auroc"] = {positive: scores.auroc(marks, [answer.truth == positive for answer in answers])}
    return metrics


def _named(asked: _Asked, head: str | None) -> Named:
    said = [each for each in asked.answer.classifications if head is None or each.step == head]
    if not said:
        raise ConfigError(f"the model has no head {head!r}")
    best = max(said, key=lambda each: each.score)
    return Named(asked.sample.label, best.label, best.score, {each.label: each.score for each in said})


# --- the sheet of worst mistakes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Mistake:
    weight: float
    path: Path
    words: str
    detections: tuple[Detection, ...] = ()
    missed: tuple[Truth, ...] = ()
    classifications: tuple[Classification, ...] = ()


def _worst_boxes(contract: ModelContract, asked: Sequence[_Asked], iou: float) -> list[_Mistake]:
    """Pictures with the most missed and false boxes at the bundle's threshold."""
    mistakes = []
    for each in asked:
        found = [box for box in each.answer.detections if box.score >= contract.output.score_threshold]
        found.sort(key=lambda box: -box.score)
        hits, missed = scores.judged(Seen(each.sample.boxes, found), iou)
        false = [Detection(box.label, box.score, box.box, "") for box, hit in zip(found, hits, strict=True) if not hit]
        words = f"{len(missed)} missed (white), {len(false)} false"
        mistakes.append(_Mistake(len(missed) + len(false), each.sample.path, words, tuple(false), tuple(missed)))
    return _heaviest(mistakes)


def _worst_labels(asked: Sequence[_Asked], head: str | None) -> list[_Mistake]:
    """Wrong answers, the surest first."""
    mistakes = []
    for each in asked:
        answer = _named(each, head)
        if answer.said != answer.truth:
            label = (Classification(answer.said, answer.score, ""),)
            mistakes.append(_Mistake(answer.score, each.sample.path, f"is {answer.truth}", classifications=label))
    return _heaviest(mistakes)


def _heaviest(mistakes: Sequence[_Mistake]) -> list[_Mistake]:
    return sorted((each for each in mistakes if each.weight > 0), key=lambda each: -each.weight)[:WORST]


def _write(
    out: Path, metrics: Mapping[str, Any], worst: Sequence[_Mistake], contract: ModelContract
) -> tuple[Path, ...]:
    out.mkdir(parents=True, exist_ok=True)
    figures = out / "metrics.json"
    figures.write_text(json.dumps(metrics, indent=2) + "\n")
    table = out / "confusion.png"
    _matrix(metrics["confusion"]).save(table)
    if not worst:
        return figures, table
    sheet = out / "worst.png"
    _sheet(worst, contract).save(sheet)
    return figures, table, sheet


def _sheet(worst: Sequence[_Mistake], contract: ModelContract) -> Image.Image:
    tiles = [_tile(mistake, contract) for mistake in worst]
    height = max(tile.height for tile in tiles)
    page = Image.new("RGB", (min(COLUMNS, len(tiles)) * TILE, -(-len(tiles) // COLUMNS) * height), "#101418")
    for number, tile in enumerate(tiles):
        page.paste(tile, (number % COLUMNS * TILE, number // COLUMNS * height))
    return page


def _tile(mistake: _Mistake, contract: ModelContract) -> Image.Image:
    decoded = decode(mistake.path.read_bytes(), at_least=(TILE, TILE))
    drawn = overlay(
        thumbnail(decoded.pixels, TILE),
        mistake.detections,
        mistake.classifications,
        original=(decoded.width, decoded.height),
        labels=contract.labels,
    )
    picture = Image.fromarray(drawn)
    _outline(picture, mistake.missed, picture.width / decoded.width)
    tile = Image.new("RGB", (TILE, picture.height + 24), "#101418")
    tile.paste(picture, (0, 24))
    ImageDraw.Draw(tile).text(
        (6, 4), f"{mistake.words}: {mistake.path.name}"[:48], "#FFD34D", ImageFont.load_default(13)
    )
    return tile


def _outline(picture: Image.Image, missed: Sequence[Truth], scale: float) -> None:
    """What nothing found, in white on black, with its name."""
    draw = ImageDraw.Draw(picture)
    for truth in missed:
        left, top, right, bottom = (value * scale for value in truth.box)
        draw.rectangle((left - 3, top - 3, right + 3, bottom + 3), outline="black", width=5)
        draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), outline="white", width=2)
        place = (max(0.0, min(left, picture.width - 70)), bottom + 4 if bottom < picture.height - 20 else top - 18)
        draw.text(place, truth.label, "white", ImageFont.load_default(12), stroke_width=3, stroke_fill="black")


def _matrix(table: Mapping[str, Mapping[str, int]]) -> Image.Image:
    """A confusion matrix: truths down, what was said across, each cell's shade its share of the row."""
    labels = sorted(
        {*table, *(said for row in table.values() for said in row)}, key=lambda label: (label == NOTHING, label)
    )
    cell, margin = (48, 150) if len(labels) <= 30 else (14, 150)
    page = Image.new("RGB", (margin + cell * len(labels) + 8, margin + cell * len(labels) + 8), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(min(13, cell))
    for row, truth in enumerate(labels):
        top = margin + row * cell
        draw.text((4, top + cell // 2 - 7), truth[:20], "black", font)
        across = Image.new("RGB", (margin, cell), "white")
        ImageDraw.Draw(across).text((4, cell // 2 - 7), truth[:20], "black", font)
        page.paste(across.rotate(90, expand=True), (top, 0))
        counts = table.get(truth, {})
        total = sum(counts.values())
        for place, said in enumerate(labels):
            share = counts.get(said, 0) / total if total else 0.0
            left = margin + place * cell
            shade = (int(255 - 225 * share), int(255 - 150 * share), 255)
            draw.rectangle((left, top, left + cell - 1, top + cell - 1), shade, "#D0D7DE")
            if counts.get(said) and cell > 20:
                draw.text((left + 6, top + cell // 2 - 7), str(counts[said]), "white" if share > 0.6 else "black", font)
    return page

"""Is the preprocessing right? A contact sheet of answers to look at, and the same pictures under other well-known numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from eyeline.core.errors import InferenceError
from eyeline.core.types import Classification, Detection
from eyeline.inference.answers import Infer, ask
from eyeline.inference.bundles import Answer, ExpectedDetection
from eyeline.inference.families import IMAGENET_MEAN, IMAGENET_SCALE, UNIT, Three
from eyeline.pipeline.contract import InputContract, ModelContract
from eyeline.pipeline.decode import decode
from eyeline.pipeline.drawing import overlay, thumbnail
from eyeline.pipeline.maps import NORMAL

#: Well-known preprocessing, as (pixel − mean) × scale.
KNOWN: dict[str, tuple[Three, Three]] = {
    "x (0..255, nothing done)": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "x/255": ((0.0, 0.0, 0.0), UNIT),
    "(x−127)/128": ((127.0, 127.0, 127.0), (1 / 128, 1 / 128, 1 / 128)),
    "ImageNet's mean and std": (IMAGENET_MEAN, IMAGENET_SCALE),
}
#: How much surer another preprocessing must be before we ask.
VISIBLE = 0.05
#: Pictures with a telling name that are enough to count.
ENOUGH = 10
#: Boxes under this are not drawn.
SHOWN = 0.3
#: A mean best score under this is low for pictures that the model knows.
LOW = 0.4
_WIDTH, _COLUMNS, _BAR = 320, 4, 22


@dataclass(frozen=True)
class Trial:
    """One preprocessing on the sample pictures. `confidence`: the mean of each picture's best score; `best`: what it is called;
    `right`: the share of pictures called as their file's name says, None where too few have a telling name.
    """

    words: str
    contract: ModelContract
    confidence: float
    best: tuple[str, ...]
    right: float | None


def wide(contract: ModelContract) -> ModelContract:
    """The same model asked for more than it would report: three labels, boxes from 0.05 on."""
    output = msgspec.structs.replace(contract.output, top=3, score_threshold=min(0.05, contract.output.score_threshold))
    return msgspec.structs.replace(contract, output=output)


def _asked(data: bytes, contract: ModelContract, infer: Infer) -> Answer:
    try:
        return ask(data, contract, infer)
    except InferenceError:  # NaN from absurd numbers: no answer
        return Answer("")


def _best(answer: Answer) -> tuple[str, float]:
    """The best label and its score; nothing and 0 where there is no answer at all."""
    found = [(label.label, label.score) for label in answer.classifications]
    found = found or [(box.label, box.score) for box in answer.detections]
    return max(found, key=lambda pair: pair[1], default=("", 0.0))


def trials(
    pictures: Sequence[bytes], named: Sequence[tuple[bytes, frozenset[str]]], contract: ModelContract, infer: Infer
) -> list[Trial]:
    """The chosen preprocessing first, then the other well-known ones (and the other colour order), the surest first.

    contract: of the original graph, dtype float32; `infer` runs that graph. named: pictures and what they are, by their names.
    """

    def tried(words: str, numbers: InputContract) -> Trial:
        asked = wide(msgspec.structs.replace(contract, input=numbers))
        best = [_best(_asked(data, asked, infer)) for data in pictures]
        hits = [_best(_asked(data, asked, infer))[0] in labels for data, labels in named]
        right = float(np.mean(hits)) if len(hits) >= ENOUGH and contract.task == "classification" else None
        return Trial(words, asked, float(np.mean([score for _, score in best])), tuple(name for name, _ in best), right)

    # an anomaly model takes whatever is wrong with the pictures for an anomaly: being surer says nothing
    rivals = {} if contract.task == "anomaly" else _others(contract.input)
    others = [tried(words, other) for words, other in rivals.items()]
    chosen = tried(words_of(contract.input), contract.input)
    return [chosen, *sorted(others, key=lambda trial: (-(trial.right or 0.0), -trial.confidence))]


def _others(chosen: InputContract) -> dict[str, InputContract]:
    flipped = "bgr" if chosen.color == "rgb" else "rgb"
    variants = {
        words: msgspec.structs.replace(chosen, mean=mean, scale=scale)
        for words, (mean, scale) in KNOWN.items()
        if not _same(chosen, mean, scale)
    }
    variants[f"{flipped.upper()} instead of {chosen.color.upper()}"] = msgspec.structs.replace(chosen, color=flipped)
    return variants


def _same(chosen: InputContract, mean: Three, scale: Three) -> bool:
    """Nearly the same numbers: (x−127)/128 and (x−127.5)/127.5 are no two opinions."""
    return bool(
        np.allclose(chosen.scale, scale, rtol=0.02)
        and np.allclose(np.multiply(chosen.mean, chosen.scale), np.multiply(mean, scale), atol=0.02)
    )


def words_of(contract: InputContract) -> str:
    """A preprocessing in words: the well-known name, or the numbers."""
    for words, (mean, scale) in KNOWN.items():
        if _same(contract, mean, scale):
            return words
    return f"(x−{list(contract.mean)})×{[round(value, 6) for value in contract.scale]}"


def warnings(tried: Sequence[Trial]) -> list[str]:
    """What a person should be asked, in plain words; empty where nothing looks wrong."""
    chosen, *others = tried
    if not others:
        return _alarms(chosen)
    kind = "top-1" if chosen.contract.task == "classification" else "best box"
    better = max(others, key=lambda trial: trial.right or 0.0)
    surer = max(others, key=lambda trial: trial.confidence)
    if chosen.right is not None and (better.right or 0.0) > chosen.right + VISIBLE:
        return [
            (
                f"{better.words} names {better.right:.0%} of the pictures as their file names say, the chosen one "
                f"({chosen.words}) {chosen.right:.0%}: is the preprocessing right?"
            )
        ]
    if surer.confidence > chosen.confidence + VISIBLE:
        return [
            (
                f"{surer.words} gives mean {kind} {surer.confidence:.2f}, the chosen one ({chosen.words}) "
                f"{chosen.confidence:.2f}: is the preprocessing right?"
            )
        ]
    if chosen.confidence < LOW:
        return [
            (
                f"mean {kind} is only {chosen.confidence:.2f} on these pictures: are they of what the model knows, and is its "
                "preprocessing right? Give your own with --images FOLDER"
            )
        ]
    return []


def _alarms(chosen: Trial) -> list[str]:
    called = sum(label != NORMAL for label in chosen.best)
    sentence = f"{called} of {len(chosen.best)} pictures are called anomalous"
    if called == len(chosen.best):
        return [f"{sentence}: give good ones with --images FOLDER, and if they are good, see to the preprocessing"]
    return [sentence]


def rival(tried: Sequence[Trial]) -> Trial | None:
    """Another preprocessing that is about as sure and calls some pictures otherwise: only a person can tell which is right."""
    chosen, *others = tried
    if chosen.contract.task != "classification":
        return None
    close = [
        trial
        for trial in others
        if trial.confidence > chosen.confidence - VISIBLE and _disagreement(chosen, trial) > 0.1
    ]
    return max(close, key=lambda trial: (trial.right or 0.0, trial.confidence), default=None)


def _disagreement(one: Trial, other: Trial) -> float:
    return float(np.mean([a != b for a, b in zip(one.best, other.best, strict=True)]))


def rival_note(tried: Sequence[Trial]) -> list[str]:
    """A line above the sheet's tiles, where there is a rival."""
    other = rival(tried)
    if other is None:
        return []
    count = round(_disagreement(tried[0], other) * len(other.best))
    return [
        (
            f"{other.words} calls {count} of {len(other.best)} pictures otherwise (in brackets below); the chosen one is "
            f"{tried[0].words}. Which names are right?"
        )
    ]


def sheet(
    path: Path, pictures: Mapping[str, bytes], tried: Sequence[Trial], infer: Infer, notes: Sequence[str]
) -> None:
    """Write a PNG of the pictures with their answers drawn (three labels each for classifiers), notes above in plain words."""
    other = rival(tried)
    tiles = [_tile(data, tried[0].contract, other, infer) for data in pictures.values()]
    height = max(tile.height for tile in tiles)
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    lines = [line for note in (*notes, *rival_note(tried)) for line in _wrapped(note, columns * _WIDTH)]
    top = _BAR * len(lines) + (8 if lines else 0)
    page = Image.new("RGB", (columns * _WIDTH, top + rows * height), "#101418")
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        draw.text((8, 4 + number * _BAR), line, fill="#FFD34D", font=ImageFont.load_default(15))
    for number, tile in enumerate(tiles):
        page.paste(tile, (number % columns * _WIDTH, top + number // columns * height))
    page.save(path, "PNG")


def drawable(found: ExpectedDetection) -> Detection:
    """An answer as a result has it."""
    attributes = {"mask": {"polygons": [list(each) for each in found.mask]}} if found.mask else {}
    return Detection(found.label, found.score, found.box, "", attributes)


def _tile(data: bytes, contract: ModelContract, other: Trial | None, infer: Infer) -> Image.Image:
    decoded = decode(data)
    answer = _asked(data, contract, infer)
    boxes = [box for box in answer.detections if box.score >= SHOWN]
    labels = [Classification(found.label, found.score, "") for found in answer.classifications]
    if other is not None:
        label, score = _best(_asked(data, other.contract, infer))
        if labels and label != labels[0].label:
            labels.append(Classification(f"[{label}]", score, ""))
    drawn = overlay(
        thumbnail(decoded.pixels, _WIDTH),
        [drawable(found) for found in boxes],
        labels,
        original=(decoded.width, decoded.height),
        labels=contract.labels,
    )
    return Image.fromarray(drawn)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` pixels at about eight pixels a letter; the font has no minus sign."""
    lines = [""]
    for word in text.replace("−", "-").split():
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) * 8 > width - 16 and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = joined
    return lines

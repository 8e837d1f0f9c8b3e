"""The golden check: a bundle may serve only if it still says of its own golden pictures what its maker recorded."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import InferenceError, InputError
from eyeline.core.settings import InferenceSettings
from eyeline.core.types import Mask
from eyeline.inference.answers import Infer, ask
from eyeline.inference.base import GoldenCheck
from eyeline.inference.bundles import Answer, Bundle, ExpectedClassification, ExpectedDetection, Tolerance
from eyeline.inference.runtimes import choose, open_runtimes
from eyeline.pipeline import masks


def check(bundle: Bundle, infer: Infer) -> list[str]:
    """Differences in words between the recorded answers and `infer`'s, empty where every decision is the same."""
    return list(measure(bundle, infer).differences)


def measure(bundle: Bundle, infer: Infer) -> GoldenCheck:
    """The check, and how far scores are off where it passes."""
    differences: list[str] = []
    flips: list[str] = []
    off = 0.0
    threshold, tolerance = bundle.contract.output.score_threshold, bundle.golden.tolerance
    for expected in bundle.golden.images:
        try:
            got = ask(bundle.read(f"golden/{expected.file}"), bundle.contract, infer, expected.file)
        except (InferenceError, InputError) as error:
            differences.append(f"{expected.file}: {error}")
            continue
        off = max(off, _off(expected, got, tolerance))
        flips += _flips(expected, got, tolerance)
        differences += _differences(expected, got, tolerance, threshold)
    return GoldenCheck(
        pictures=len(bundle.golden.images),
        score_difference=round(off, 6),
        tolerance=tolerance.score,
        at=isoformat(utcnow()),
        differences=(*(flips if len(flips) > tolerance.class_flips else ()), *differences),
    )


def check_golden(bundle: Bundle, settings: InferenceSettings | None = None) -> list[str]:
    """The check on the runtime that would serve the bundle here. Blocks for seconds. Raises ConfigError."""
    runtimes = open_runtimes(bundle, replace(choose(bundle, settings or InferenceSettings()), instances=1))
    try:
        return check(bundle, runtimes[0].infer)
    finally:
        for runtime in runtimes:
            runtime.close()


def compare(expected: Answer, got: Answer, tolerance: Tolerance, threshold: float = 0.0) -> list[str]:
    """Differences of one picture in words, label flips first. Scores near `threshold` may come or go."""
    return [*_flips(expected, got, tolerance), *_differences(expected, got, tolerance, threshold)]


def _off(expected: Answer, got: Answer, tolerance: Tolerance) -> float:
    """By how much a score is another one at most, of what both say."""
    pairs, _, _ = match(expected.detections, got.detections, tolerance.iou)
    labels = (_score_of(got, wanted) - wanted.score for wanted in expected.classifications if _listed(got, wanted))
    return max((abs(off) for off in (*labels, *(new.score - old.score for old, new in pairs))), default=0.0)


def _flips(expected: Answer, got: Answer, tolerance: Tolerance) -> Iterator[str]:
    """Heads whose best label is another one, and not by a hair."""
    answers = _best_of(got.classifications)
    for step, wanted in _best_of(expected.classifications).items():
        best = answers.get(step)
        if best is None:
            yield f"{expected.file}: no label{_of(step)}, recorded {wanted.label!r}"
        elif best.label != wanted.label and best.score - _score_of(got, wanted) > tolerance.score:
            yield f"{expected.file}: {best.label!r} {best.score:.3f}{_of(step)}, recorded {wanted.label!r} {wanted.score:.3f}"


def _differences(expected: Answer, got: Answer, tolerance: Tolerance, threshold: float) -> Iterator[str]:
    for wanted in expected.classifications:
        score = _score_of(got, wanted)
        if _listed(got, wanted) and abs(score - wanted.score) > tolerance.score:
            yield f"{expected.file}: {wanted.label!r} has {score:.3f}, recorded {wanted.score:.3f}"
    certain = threshold + tolerance.score
    pairs, missing, extra = match(expected.detections, got.detections, tolerance.iou)
    for old, new in pairs:
        if abs(old.score - new.score) > tolerance.score:
            yield f"{expected.file}: {old.label!r} has {new.score:.3f}, recorded {old.score:.3f}"
        if old.mask and _masks_overlap(old, new) < tolerance.iou:
            yield f"{expected.file}: the mask of {_words(new)} is another one than was recorded"
    for box in missing:
        if box.score > certain:
            yield f"{expected.file}: no {_words(box)}, which was recorded"
    for box in extra:
        if box.score > certain:
            yield f"{expected.file}: {_words(box)}, which was not recorded"


Pairs = list[tuple[ExpectedDetection, ExpectedDetection]]


def match(
    expected: Sequence[ExpectedDetection], got: Sequence[ExpectedDetection], iou: float
) -> tuple[Pairs, list[ExpectedDetection], list[ExpectedDetection]]:
    """(pairs, unmatched expected, unmatched got): same label, overlap of at least `iou`, best scores choose first."""
    left = list(got)
    pairs: Pairs = []
    missing: list[ExpectedDetection] = []
    for wanted in sorted(expected, key=lambda box: -box.score):
        candidates = [box for box in left if box.label == wanted.label]
        best = max(candidates, key=lambda box: overlap(wanted.box, box.box), default=None)
        if best is None or overlap(wanted.box, best.box) < iou:
            missing.append(wanted)
        else:
            left.remove(best)
            pairs.append((wanted, best))
    return pairs, missing, left


Box = tuple[float, float, float, float]


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes xyxy, 0..1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def _masks_overlap(old: ExpectedDetection, new: ExpectedDetection) -> float:
    first, second = (Mask([list(polygon) for polygon in each.mask], 0.0) for each in (old, new))
    return masks.overlap(first, second) if new.mask else 0.0


def _best_of(answers: Sequence[ExpectedClassification]) -> dict[str | None, ExpectedClassification]:
    best: dict[str | None, ExpectedClassification] = {}
    for answer in answers:
        if answer.step not in best or answer.score > best[answer.step].score:
            best[answer.step] = answer
    return best


def _same(a: ExpectedClassification, b: ExpectedClassification) -> bool:
    return (a.label, a.step) == (b.label, b.step)


def _listed(got: Answer, wanted: ExpectedClassification) -> bool:
    return any(_same(answer, wanted) for answer in got.classifications)


def _score_of(got: Answer, wanted: ExpectedClassification) -> float:
    return next((answer.score for answer in got.classifications if _same(answer, wanted)), 0.0)


def _of(step: str | None) -> str:
    return f" of {step!r}" if step else ""


def _words(box: ExpectedDetection) -> str:
    return f"{box.label!r} {box.score:.3f} at [{', '.join(f'{value:.0f}' for value in box.box)}]"

"""A small model first, a large one where the small one is unsure: which answers are unsure, and how one makes room."""

from collections.abc import Sequence

from eyeline.core.types import Classification, Detection


def is_of(name: str, step: str) -> bool:
    """Whether an answer's step (`damage`, or `damage.side` of a model with several heads) is that step's."""
    return name == step or name.startswith(f"{step}.")


def unsure(scores: Sequence[float], band: tuple[float, float]) -> bool:
    """Whether any score lies within the band, its lower end included: sure of nothing is not unsure."""
    return any(band[0] <= score < band[1] for score in scores)


def scores(detections: Sequence[Detection], classifications: Sequence[Classification], step: str) -> list[float]:
    """What decides for a step on the whole image: the score of each box, and the best of each head's labels."""
    boxes = [found.score for found in detections if found.step == step]
    return boxes + _best([(found.step, found.score) for found in classifications if is_of(found.step, step)])


def crop_scores(detection: Detection, step: str) -> list[float]:
    """The same for what a step said of one crop."""
    entries = detection.attributes.get("classifications", [])
    return _best([(entry["step"], entry["score"]) for entry in entries if is_of(entry["step"], step)])


def forget(detection: Detection, step: str) -> None:
    """Take what a step said of one crop away: another answers for it."""
    entries = detection.attributes.get("classifications", [])
    detection.attributes["classifications"] = [entry for entry in entries if not is_of(entry["step"], step)]


def _best(pairs: Sequence[tuple[str, float]]) -> list[float]:
    best: dict[str, float] = {}
    for head, score in pairs:
        best[head] = max(score, best.get(head, 0.0))
    return list(best.values())

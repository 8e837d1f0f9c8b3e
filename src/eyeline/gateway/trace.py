"""Everything about one thing: which results show it, how each was found, and where damage is seen for the first time. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eyeline.core.settings import ItemSettings
from eyeline.core.types import Detection, Result
from eyeline.stores.results.base import ItemRow, SightingRow


@dataclass
class Entry:
    """One result that shows the thing. `via`: ref, code, item; `boxes`: the detections that are it (None: all of the picture)."""

    result: Result
    via: list[str]
    boxes: set[int] | None = field(default_factory=set)

    def damage(self, labels: Collection[str], score: float) -> tuple[str, float] | None:
        """The surest label of damage on the thing itself, from `score` on."""
        found = [(label, value) for label, value in self._said() if label in labels and value >= score]
        return max(found, key=lambda pair: pair[1], default=None)

    def _said(self) -> Iterable[tuple[str, float]]:
        for index, detection in enumerate(self.result.detections):
            if self.boxes is None or index in self.boxes:
                yield detection.label, detection.score
                for entry in detection.attributes.get("classifications", ()):
                    yield entry["label"], entry["score"]
        if self.boxes is None:
            for found in self.result.classifications:
                yield found.label, found.score


def entries(
    key: str,
    by_ref: Sequence[Result],
    by_code: Sequence[Result],
    seen: Mapping[str, Result],
    sightings: Sequence[SightingRow],
) -> list[Entry]:
    """In the order of time. `seen`: the results of `sightings`, by id, as far as there still are any."""
    found: dict[str, Entry] = {}
    for result in by_ref:
        found[result.id] = Entry(result, ["ref"], None)
    for result in by_code:
        entry = found.setdefault(result.id, Entry(result, []))
        entry.via.append("code")
        _add(entry, _bearing(key, result))
    for sighting in sightings:
        if sighting.result_id in seen:
            entry = found.setdefault(sighting.result_id, Entry(seen[sighting.result_id], []))
            if "item" not in entry.via:
                entry.via.append("item")
            _add(entry, {sighting.detection})
    return sorted(found.values(), key=lambda entry: (entry.result.captured_at, entry.result.id))


def _add(entry: Entry, boxes: set[int] | None) -> None:
    """A picture that is the thing's as a whole stays so."""
    entry.boxes = None if entry.boxes is None or boxes is None else entry.boxes | boxes


def _bearing(key: str, result: Result) -> set[int] | None:
    """The boxes in which that code lies; the whole picture where it lies in none and there is no other thing to confuse."""
    boxes = {index for index, found in enumerate(result.detections) if key in _texts(found)}
    return boxes if boxes or len(result.detections) > 1 else None


def _texts(found: Detection) -> set[str]:
    return {code["text"] for code in found.attributes.get("codes", ())}


def told(
    key: str, found: Sequence[Entry], items: Sequence[ItemRow], settings: ItemSettings, cut: bool
) -> dict[str, Any]:
    """The answer of GET /v1/items/{key}; `cut`: there is more than was looked at."""
    damages = [entry.damage(settings.damage_labels, settings.damage_score) for entry in found]
    first = next((number for number, damage in enumerate(damages) if damage is not None), None)
    return {
        "key": key,
        "first_at": found[0].result.captured_at if found else None,
        "last_at": found[-1].result.captured_at if found else None,
        "sites": _different(entry.result.site for entry in found),
        "cameras": _different(entry.result.camera for entry in found),
        "refs": _different(entry.result.ref for entry in found),
        "codes": _different([key] * any("code" in e.via for e in found) + [code for i in items for code in i.codes]),
        "first_damage": None if first is None else _entry(found[first], damages[first]),
        "items": [item_told(item) for item in items],
        "entries": [
            _entry(entry, damage) | {"result": entry.result} for entry, damage in zip(found, damages, strict=True)
        ],
        "truncated": cut,
    }


def _entry(entry: Entry, damage: tuple[str, float] | None) -> dict[str, Any]:
    result = entry.result
    boxes = [] if entry.boxes is None else [result.detections[index].box for index in sorted(entry.boxes)]
    return {
        "id": result.id,
        "captured_at": result.captured_at,
        "site": result.site,
        "camera": result.camera,
        "via": entry.via,
        "boxes": boxes,
        "damage": None if damage is None else {"label": damage[0], "score": damage[1]},
        "image": f"/v1/results/{result.id}/image?overlay=1",
    }


def item_told(item: ItemRow) -> dict[str, Any]:
    """An item as the API tells it."""
    return {
        "id": item.id,
        "site": item.site,
        "camera": item.camera,
        "pipeline": item.pipeline,
        "label": item.label,
        "labels": dict(item.labels),
        "codes": list(item.codes),
        "first_at": item.first_at,
        "last_at": item.last_at,
        "frames": item.frames,
        "score": item.score,
        "result_id": item.result_id,
    }


def _different(values: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value is not None))

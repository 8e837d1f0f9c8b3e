"""Labels that people made elsewhere, COCO or Label Studio's JSON, as verdicts on the results of the same pictures.

A picture is found by its result's id (in the record, or in the name of the file as `eyeline export` gives it), by its
digest, or by its name (a result's `ref`, or `meta.file`, which `eyeline submit` writes). What says the same as the result
is left alone; the rest are corrections, under a key that makes a second import of the same file change nothing.
"""

import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from eyeline.core.errors import InputError
from eyeline.ops.submit import Api

Box = tuple[float, float, float, float]
Fate = Literal["corrected", "confirmed", "unchanged", "no such result", "another picture"]
#: Larger files are split by their tool, or by hand.
MOST_BYTES = 500_000_000
#: Corners that differ by less are the same: labelling tools round.
SAME = 0.75
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: Label Studio puts eight digits before the name of an uploaded file.
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One picture as a person left it. `size`: (width, height) in whose pixels the boxes are.

    `boxes` or `labels` None: nothing is said of them.
    """

    name: str
    result_id: str | None = None
    sha256: str | None = None
    size: tuple[float, float] | None = None
    boxes: tuple[tuple[str, Box], ...] | None = ()
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Matched:
    """What becomes of one record: the result that it is about, and what is said of that."""

    labelled: Labelled
    fate: Fate
    result: Mapping[str, Any] | None = None
    by: str = ""  # id, digest or name
    body: Mapping[str, Any] | None = None


def read(path: Path) -> list[Labelled]:
    """The records of a file. Raises InputError with the place of what cannot be read."""
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path} is larger than {MOST_BYTES // 1_000_000} MB; split it")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({error}); COCO or Label Studio's JSON is wanted") from error
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        return _coco(content, path)
    if isinstance(content, list) and all(isinstance(task, dict) for task in content):
        return [task for number, each in enumerate(content) if (task := _task(each, f"{path}, task {number + 1}"))]
    raise InputError(f"{path} is neither COCO (an object with images) nor Label Studio's JSON export (a list of tasks)")


def with_digests(records: Iterable[Labelled], pictures: Path) -> list[Labelled]:
    """The records with the digests of those of their pictures that lie in this folder."""
    files = {file.name: file for file in pictures.rglob("*") if file.is_file()}
    found = []
    for record in records:
        file = next((files[name] for name in _names(record.name) if name in files), None)
        known = record.sha256 or (hashlib.sha256(file.read_bytes()).hexdigest() if file else None)
        found.append(replace(record, sha256=known))
    return found


# --- COCO -------------------------------------------------------------------------------------------------------------


def _coco(content: Mapping[str, Any], path: Path) -> list[Labelled]:
    try:
        names = {each["id"]: str(each["name"]) for each in content.get("categories", ())}
        boxes: dict[Any, list[tuple[str, Box]]] = {each["id"]: [] for each in content["images"]}
        for number, each in enumerate(content.get("annotations", ())):
            where = f"{path}, annotation {number + 1}"
            left, top, width, height = (float(value) for value in each["bbox"])
            if each["category_id"] not in names or each["image_id"] not in boxes:
                raise InputError(f"{where} names a category or an image that the file does not have")
            boxes[each["image_id"]].append((names[each["category_id"]], (left, top, left + width, top + height)))
        return [
            Labelled(
                name=PurePosixPath(str(each["file_name"])).name,
                result_id=_id(each.get("result_id")) or _id(each["file_name"]),
                sha256=_text(each.get("sha256")),
                size=(float(each["width"]), float(each["height"]))
                if each.get("width") and each.get("height")
                else None,
                boxes=tuple(boxes[each["id"]]),
                labels=tuple(str(label) for label in each["labels"]) if isinstance(each.get("labels"), list) else None,
            )
            for each in content["images"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is no COCO file as its tools write it: {error!r}") from error


# --- Label Studio -----------------------------------------------------------------------------------------------------


def _task(task: Mapping[str, Any], where: str) -> Labelled | None:
    """A task with its last annotation that was not cancelled; None where nobody labelled it."""
    if "annotations" not in task:
        raise InputError(f"{where} has no annotations: export as JSON, not as JSON-MIN")
    try:
        done = [each for each in task["annotations"] if not each.get("was_cancelled")]
        if not done:
            return None
        image = _image_of(task["data"])
        boxes: list[tuple[str, Box]] = []
        labels: list[str] = []
        size = None
        for region in done[-1]["result"]:
            value, kind = region["value"], region["type"]
            if kind == "choices":
                labels += [str(label) for label in value["choices"]]
            elif kind in ("rectanglelabels", "polygonlabels"):
                size = (float(region["original_width"]), float(region["original_height"]))
                boxes += [(str(label), _region(value, size)) for label in value[kind]]
        named = any(region["type"] == "choices" for region in done[-1]["result"])
        return Labelled(
            name=image,
            result_id=_id(task["data"].get("result_id")) or _id(image),
            sha256=_text(task["data"].get("sha256")),
            size=size,
            boxes=tuple(boxes) if boxes or not named else None,  # a choice alone says nothing of boxes
            labels=tuple(labels) if named else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{where} is no task as Label Studio exports it: {error!r}") from error


def _image_of(data: Mapping[str, Any]) -> str:
    """The name of the file behind a task's picture: an address, an upload, or a local file (`?d=folder/name`)."""
    text = str(data.get("image") or next(value for value in data.values() if isinstance(value, str)))
    parts = urlsplit(text)
    local = parse_qs(parts.query).get("d", [])
    return PurePosixPath(unquote(local[0] if local else parts.path)).name


def _region(value: Mapping[str, Any], size: tuple[float, float]) -> Box:
    """Percent → pixels; a polygon or a turned rectangle by the box round it."""
    across, down = size[0] / 100, size[1] / 100
    if "points" in value:
        xs, ys = zip(*((float(x) * across, float(y) * down) for x, y in value["points"]), strict=True)
        return min(xs), min(ys), max(xs), max(ys)
    left, top = float(value["x"]) * across, float(value["y"]) * down
    width, height = float(value["width"]) * across, float(value["height"]) * down
    corners = _turned(left, top, width, height, float(value.get("rotation") or 0))
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _turned(left: float, top: float, width: float, height: float, degrees: float) -> list[tuple[float, float]]:
    """The corners of a rectangle turned clockwise round its top left one."""
    turn = complex(0, 1) ** (degrees / 90)
    corners = [complex(0, 0), complex(width, 0), complex(width, height), complex(0, height)]
    turned = [complex(left, top) + corner * turn for corner in corners]
    return [(corner.real, corner.imag) for corner in turned]


def _id(text: Any) -> str | None:
    found = _ID.search(str(text).lower()) if text else None
    return found[0] if found else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _names(name: str) -> list[str]:
    return list(dict.fromkeys([name, _UPLOADED.sub("", name)]))


# --- matching ---------------------------------------------------------------------------------------------------------


async def matched(api: Api, records: Sequence[Labelled], *, confirm: bool = False) -> AsyncIterator[Matched]:
    """Each record with the newest result that it is about, and the verdict to give.

    confirm: what says the same as the result is a confirmation; otherwise it is left alone.
    """
    rest = []
    for record in records:
        result = await _by_id(api, record.result_id) if record.result_id else None
        if result is None:
            rest.append(record)
        else:
            yield _fate(record, result, "id", confirm)
    wanted: dict[str, list[Labelled]] = {}
    for record in rest:
        for key in {record.sha256} if record.sha256 else set(_names(record.name)):
            wanted.setdefault(key, []).append(record)
    left = {id(record): record for record in rest}
    cursor: str | None = None
    while left:
        page = await api.call("GET", "/v1/results", params={"limit": "1000"} | ({"cursor": cursor} if cursor else {}))
        for result in page["results"]:
            for key in _keys(result):
                for record in wanted.get(key, ()):
                    if left.pop(id(record), None) is not None:
                        yield _fate(record, result, "digest" if key == record.sha256 else "name", confirm)
        cursor = page["next"]
        if cursor is None:
            break
    for record in left.values():
        yield Matched(record, "no such result")


async def _by_id(api: Api, result_id: str) -> Mapping[str, Any] | None:
    try:
        found: Mapping[str, Any] = await api.call("GET", f"/v1/results/{result_id}")
    except InputError as error:
        if error.code == "not_found":
            return None
        raise
    return found


def _keys(result: Mapping[str, Any]) -> list[str]:
    if result["status"] != "completed" or not result.get("image"):
        return []
    names = (result.get("ref"), result.get("meta", {}).get("file"))
    return [result["image"]["sha256"], *(name for name in names if name)]


def _fate(record: Labelled, result: Mapping[str, Any], by: str, confirm: bool) -> Matched:
    image = result.get("image")
    boxes = _scaled(record, image) if image else None
    if boxes is None:
        return Matched(record, "another picture", result, by)
    verdict = result.get("verdict") or {}
    shown = verdict.get("detections")
    named = verdict.get("classifications") if shown is not None else None
    if verdict.get("kind") == "rejected":
        shown, named = [], []
    shown = result["detections"] if shown is None else shown
    named = result["classifications"] if named is None else named
    stands: list[tuple[str, Box]] = [(each["label"], tuple(each["box"])) for each in shown]
    boxes = stands if record.boxes is None else _kept(stands, boxes)
    labels = sorted({each["label"] for each in named})
    wanted = labels if record.labels is None else sorted(set(record.labels))
    if sorted(stands) == sorted(boxes) and wanted == labels:
        if not confirm or verdict.get("kind") in ("confirmed", "corrected", "rejected"):
            return Matched(record, "unchanged", result, by)
        return Matched(record, "confirmed", result, by, {"kind": "confirmed"})
    body = {
        "kind": "corrected",
        "detections": [{"label": label, "box": list(box)} for label, box in boxes],
        "classifications": [{"label": label} for label in wanted],
    }
    return Matched(record, "corrected", result, by, body)


def _scaled(record: Labelled, image: Mapping[str, Any]) -> list[tuple[str, Box]] | None:
    """The boxes in the result's pixels, within the picture; None where the labels are of a picture of another shape."""
    width, height = record.size or (image["width"], image["height"])
    across, down = image["width"] / width, image["height"] / height
    if abs(across / down - 1) > 0.02:
        return None
    limits = (image["width"], image["height"])
    return [
        (label, _clipped((box[0] * across, box[1] * down, box[2] * across, box[3] * down), limits))
        for label, box in record.boxes or ()
    ]


def _clipped(box: Box, limits: tuple[int, int]) -> Box:
    left, top, right, bottom = (min(max(edge, 0.0), float(limits[at % 2])) for at, edge in enumerate(box))
    return left, top, right, bottom


def _kept(stands: Sequence[tuple[str, Box]], boxes: Sequence[tuple[str, Box]]) -> list[tuple[str, Box]]:
    """The boxes, those that stand there already exactly as they stand: they keep who said them, and their masks."""
    free = list(stands)
    kept = []
    for label, box in boxes:
        near = next((each for each in free if each[0] == label and _near(each[1], box)), None)
        if near is not None:
            free.remove(near)
        left, top, right, bottom = (round(edge, 2) for edge in box)
        kept.append(near or (label, (left, top, right, bottom)))
    return kept


def _near(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) < SAME for a, b in zip(one, other, strict=True))


async def give(api: Api, found: Matched, comment: str) -> None:
    """Record the verdict, under a key that makes the same one again no second one. Raises InputError."""
    if found.body is None or found.result is None:
        return
    body = {**found.body, "comment": comment}
    path = f"/v1/results/{found.result['id']}/verdicts"
    earlier = len((await api.call("GET", path))["verdicts"])  # so that what was taken back can be said again
    said = json.dumps([found.result["id"], earlier, body], sort_keys=True)
    key = f"labels-{hashlib.sha256(said.encode()).hexdigest()[:40]}"
    await api.call("POST", path, json=body, headers={"Idempotency-Key": key})

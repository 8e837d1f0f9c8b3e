"""Two pipelines, or versions of a model, asked about the same pictures: what is kept of that, and where their answers differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import NotFound
from eyeline.core.telemetry import printable
from eyeline.core.types import Detection, Result
from eyeline.inference.golden import overlap
from eyeline.stores.results.base import Action, ResultStore

#: The name under which comparisons lie in the store, and how many of them are kept.
KEPT, REMEMBERED = "models/comparisons", 20
#: An answer that did not come for so long does not come any more: its job has ended before.
PATIENCE = timedelta(minutes=20)
#: Two boxes of a label that share so much of their area are one thing.
SAME_BOX = 0.5


class Side(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is asked: a pipeline as it serves, or with this version of a model that is tried out (name@version)."""

    pipeline: str
    model: str = ""


class Asked(msgspec.Struct, frozen=True):
    """A record, and the jobs that ask both sides about its picture."""

    record: str
    a: str
    b: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides and what they were asked. The answers are results, and go where their records go."""

    id: str
    at: datetime
    by: str
    site: str
    a: Side
    b: Side
    asked: list[Asked]


@dataclass(frozen=True)
class Difference:
    """What one side alone says, and by how much the scores of what both say differ at most."""

    only_a: Sequence[str]
    only_b: Sequence[str]
    score: float | None

    @property
    def alike(self) -> bool:
        """Whether both say the same, scores aside."""
        return not self.only_a and not self.only_b


class Comparisons:
    """Keeps them, and tells what came of them."""

    def __init__(self, results: ResultStore) -> None:
        self._results = results

    async def keep(self, new: Comparison) -> None:
        """Beside the ones before, the oldest of many left out; an action of the audit. One that another gateway keeps at the
        same moment stays.
        """
        body = {"comparison": new.id, "site": new.site, "records": [one.record for one in new.asked]}
        body |= {name: msgspec.to_builtins(side) for name, side in (("a", new.a), ("b", new.b))}
        action, kept = Action(what="compare", by=new.by, body=body), False
        while not kept:
            before = await self._results.load_state(KEPT)
            value = msgspec.json.encode([new, *_decoded(before)][:REMEMBERED])
            kept = await self._results.replace_state(KEPT, before, value, action)

    async def listed(self, who: Principal) -> list[dict[str, Any]]:
        """The newest first, without their pictures."""
        kept = [one for one in await self._kept() if who.sees(one.site)]
        results = await self._answers(kept)
        return [{name: value for name, value in _told(one, results).items() if name != "pictures"} for one in kept]

    async def one(self, who: Principal, id: str) -> dict[str, Any]:  # noqa: A002
        """How far it is and where the answers differ, picture by picture. Raises NotFound."""
        found = next((one for one in await self._kept() if one.id == id and who.sees(one.site)), None)
        if found is None:
            raise NotFound(f"no comparison has the id {printable(id, 60)!r}; the newest {REMEMBERED} are kept")
        return _told(found, await self._answers([found]))

    async def _kept(self) -> list[Comparison]:
        return _decoded(await self._results.load_state(KEPT))

    async def _answers(self, comparisons: Sequence[Comparison]) -> dict[str, Result]:
        ids = [id_ for one in comparisons for each in one.asked for id_ in (each.record, each.a, each.b)]
        return await self._results.get_many(ids) if ids else {}


def _decoded(kept: bytes | None) -> list[Comparison]:
    return msgspec.json.decode(kept, type=list[Comparison]) if kept else []


def difference(a: Result, b: Result) -> Difference:
    """Boxes of a label that cover each other are one thing; of a whole picture the best label of each step counts."""
    only_a, only_b, scores = _boxes(a.detections, b.detections)
    mine, theirs = _tops(a), _tops(b)
    for step in [*mine, *(step for step in theirs if step not in mine)]:
        (label, score), (other, its) = mine.get(step, ("", 0.0)), theirs.get(step, ("", 0.0))
        if label == other:
            scores.append(abs(score - its))
        else:
            only_a += [label] if label else []
            only_b += [other] if other else []
    return Difference(only_a, only_b, round(max(scores), 4) if scores else None)


def _boxes(mine: Sequence[Detection], theirs: Sequence[Detection]) -> tuple[list[str], list[str], list[float]]:
    """(labels that one side alone has, those of the other, differences of scores)."""
    left, alone, scores = list(theirs), [], []
    for box in sorted(mine, key=lambda each: -each.score):
        label, score = _said(box)
        like = [each for each in left if _said(each)[0] == label and overlap(each.box, box.box) >= SAME_BOX]
        if not like:
            alone.append(label)
            continue
        best = max(like, key=lambda each: overlap(each.box, box.box))
        left.remove(best)
        scores.append(abs(score - _said(best)[1]))
    return alone, [_said(each)[0] for each in left], scores


def _said(found: Detection) -> tuple[str, float]:
    """What a later step says of the crop is what counts."""
    inner = (found.attributes.get("classifications") or [None])[0]
    return (inner["label"], inner["score"]) if inner else (found.label, found.score)


def _tops(result: Result) -> dict[str, tuple[str, float]]:
    best: dict[str, tuple[str, float]] = {}
    for each in result.classifications:
        if each.step not in best or each.score > best[each.step][1]:
            best[each.step] = (each.label, each.score)
    return best


def _told(one: Comparison, results: Mapping[str, Result]) -> dict[str, Any]:
    over = utcnow() - one.at > PATIENCE
    pictures = [_picture(each, results, over=over) for each in one.asked]
    compared = [each for each in pictures if each["state"] == "compared"]
    scores = [each["score_difference"] for each in compared if each["score_difference"] is not None]
    return {
        "id": one.id,
        "at": one.at,
        "by": one.by,
        "site": one.site,
        "a": _side(one.a, [results.get(each.a) for each in one.asked]),
        "b": _side(one.b, [results.get(each.b) for each in one.asked]),
        "state": "running" if any(each["state"] == "waiting" for each in pictures) else "done",
        "asked": len(pictures),
        "compared": len(compared),
        "alike": sum(each["alike"] for each in compared),
        "largest_score_difference": max(scores, default=None),
        "pictures": pictures,
    }


def _side(side: Side, answers: Sequence[Result | None]) -> dict[str, Any]:
    """With the models that answered."""
    models = {f"{model.name}@{model.version}" for answer in answers if answer for model in answer.models}
    return {"pipeline": side.pipeline, "model": side.model, "models": sorted(models)}


def _picture(asked: Asked, results: Mapping[str, Result], *, over: bool) -> dict[str, Any]:
    """`state`: waiting; gone (its record was erased, or an answer never came); failed; compared."""
    a, b = results.get(asked.a), results.get(asked.b)
    told: dict[str, Any] = {"record": asked.record, "a": asked.a, "b": asked.b}
    told |= {"alike": False, "only_a": [], "only_b": [], "score_difference": None}
    if asked.record not in results or (over and (a is None or b is None)):
        return told | {"state": "gone"}
    if a is None or b is None:
        return told | {"state": "waiting"}
    if a.status == "failed" or b.status == "failed":
        return told | {"state": "failed"}
    found = difference(a, b)
    told |= {"only_a": found.only_a, "only_b": found.only_b, "score_difference": found.score}
    return told | {"state": "compared", "alike": found.alike}

"""Where two answers to the same picture differ, and that each comparison is kept."""

import asyncio
from pathlib import Path

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.types import Classification, Detection, Result
from eyeline.gateway.comparing import Comparison, Comparisons, Difference, Side, difference
from tests.migrated import migrated

BOX = (0.0, 0.0, 10.0, 10.0)


def answer(*detections: Detection, named: list[Classification] | None = None) -> Result:
    now = utcnow()
    return Result(
        id="a", status="completed", site="north", pipeline="parcels", captured_at=now, received_at=now, completed_at=now,
        detections=list(detections), classifications=named or [],
    )  # fmt: skip


def box(label: str, score: float, place: tuple[float, float, float, float] = BOX, inner: str = "") -> Detection:
    said = {"classifications": [{"label": inner, "score": score, "step": "damage"}]} if inner else {}
    return Detection(label, score, place, "find", attributes=said)


def test_the_same_things_at_the_same_places_are_alike_and_their_scores_are_compared() -> None:
    moved = (1.0, 0.0, 11.0, 10.0)
    found = difference(
        answer(box("carton", 0.9), box("bag", 0.5)), answer(box("bag", 0.62), box("carton", 0.88, moved))
    )
    assert (found, found.alike) == (Difference([], [], 0.12), True)
    assert difference(answer(), answer()) == Difference([], [], None)


def test_what_one_alone_says_is_named() -> None:
    far = (50.0, 50.0, 60.0, 60.0)
    assert difference(answer(box("carton", 0.9)), answer(box("carton", 0.9, far))) == Difference(
        ["carton"], ["carton"], None
    )
    assert difference(answer(box("carton", 0.9, inner="damaged")), answer(box("carton", 0.9, inner="intact"))) == (
        Difference(["damaged"], ["intact"], None)
    )
    twice = difference(answer(box("bag", 0.9), box("bag", 0.8)), answer(box("bag", 0.9)))
    assert (twice.only_a, twice.only_b) == (["bag"], [])


def test_of_a_whole_picture_the_best_label_of_each_step_counts() -> None:
    mine = answer(named=[Classification("dent", 0.4, "damage"), Classification("intact", 0.6, "damage")])
    same = answer(named=[Classification("intact", 0.7, "damage"), Classification("blue", 0.9, "colour")])
    assert difference(mine, same) == Difference([], ["blue"], 0.1)
    assert difference(mine, answer()).only_a == ["intact"]


async def test_two_gateways_that_keep_one_at_the_same_moment_keep_both(tmp_path: Path) -> None:
    results = await migrated(tmp_path)
    now, sides = utcnow(), {"a": Side("parcels"), "b": Side("dents")}
    new = [Comparison(id=word, at=now, by=word, site="north", asked=[], **sides) for word in ("ana", "ben")]
    await asyncio.gather(*(Comparisons(results).keep(each) for each in new))
    listed = await Comparisons(results).listed(Principal("ana", "admin"))
    assert sorted(each["by"] for each in listed) == ["ana", "ben"]
    await results.close()

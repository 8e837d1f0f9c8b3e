"""One thing's story: which results are its own, and where damage is seen first."""

from datetime import UTC, datetime, timedelta
from typing import Any

from eyeline.core.settings import ItemSettings
from eyeline.core.types import Classification, Code, Detection, Result
from eyeline.gateway.trace import entries, told
from eyeline.stores.results.base import SightingRow

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
HERE = (0.0, 0.0, 10.0, 10.0)


def box(code: str | None = None, damage: float | None = None) -> Detection:
    attributes: dict[str, Any] = {"codes": [{"text": code, "format": "QRCode"}]} if code else {}
    if damage is not None:
        attributes["classifications"] = [{"label": "damaged", "score": damage, "step": "damage"}]
    return Detection("parcel", 0.9, HERE, "find", attributes)


def result(number: int, *boxes: Detection, **more: Any) -> Result:
    at = NOON + timedelta(minutes=number)
    codes = [Code(code["text"], "QRCode", HERE) for each in boxes for code in each.attributes.get("codes", [])]
    values = {"site": "north", "camera": "c", "codes": codes} | more
    return Result(
        id=f"r{number}", status="completed", pipeline="p", captured_at=at, received_at=at, completed_at=at,
        detections=list(boxes), **values,
    )  # fmt: skip


def story(**given: Any) -> dict[str, Any]:
    values = {"by_ref": [], "by_code": [], "seen": {}, "sightings": []} | given
    return told("A", entries("A", **values), [], ItemSettings(), cut=False)


def test_pictures_come_in_the_order_of_time_each_once_with_how_it_was_found() -> None:
    both, later = result(2, box("A"), ref="A"), result(5, box("A"), site="south", camera="d")
    answer = story(by_ref=[both, result(1, box(), ref="A")], by_code=[later, both])
    assert [(entry["id"], entry["via"]) for entry in answer["entries"]] == [
        ("r1", ["ref"]),
        ("r2", ["ref", "code"]),
        ("r5", ["code"]),
    ]
    assert (answer["sites"], answer["cameras"], answer["refs"]) == (["north", "south"], ["c", "d"], ["A"])
    assert answer["first_damage"] is None


def test_damage_of_the_parcel_beside_it_is_not_its_own() -> None:
    beside = result(1, box("A", 0.1), box("B", 0.99))
    own = result(2, box("A", 0.8), box("B", 0.1))
    answer = story(by_code=[own, beside])
    assert [entry["damage"] for entry in answer["entries"]] == [None, {"label": "damaged", "score": 0.8}]
    assert answer["first_damage"]["id"] == "r2"


def test_a_frame_in_which_the_code_was_not_read_belongs_to_the_item_all_the_same() -> None:
    unread = result(1, box(damage=0.2), box(damage=0.9))
    sightings = [
        SightingRow(item_id="i", result_id="r1", detection=1),
        SightingRow(item_id="i", result_id="gone", detection=0),
    ]
    answer = story(by_code=[result(3, box("A", 0.9))], seen={"r1": unread}, sightings=sightings)
    assert [entry["via"] for entry in answer["entries"]] == [["item"], ["code"]]
    assert answer["first_damage"]["id"] == "r1"


def test_the_whole_picture_counts_where_it_was_sent_for_the_thing() -> None:
    labelled = result(1, classifications=[Classification("damaged", 0.7, "look")], ref="A")
    assert story(by_ref=[labelled])["first_damage"]["damage"] == {"label": "damaged", "score": 0.7}
    weak = result(1, classifications=[Classification("damaged", 0.4, "look")], ref="A")
    assert story(by_ref=[weak])["first_damage"] is None


def test_a_code_that_lies_in_no_box_says_nothing_about_one_of_several() -> None:
    code = [Code("A", "QRCode", HERE)]
    assert story(by_code=[result(1, box(damage=0.9), box(), codes=code)])["first_damage"] is None
    assert story(by_code=[result(1, box(damage=0.9), codes=code)])["first_damage"]["id"] == "r1"

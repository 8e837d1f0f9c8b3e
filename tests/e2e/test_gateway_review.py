"""Verdicts and the queue of what waits for one, through the real gateway."""

from pathlib import Path
from typing import Any

from eyeline.core.types import Detection
from eyeline.stores.results.review import Doubt
from tests.gateways import Running, result_of, running

BOX = {"label": "parcel", "box": [4.0, 4.0, 40.0, 40.0]}


async def recorded(here: Running, seed: int = 1, doubt: Doubt | None = None, **changes: Any) -> str:
    await here.send(seed)
    result = result_of(await here.take(), **changes)
    await here.results.save_many([result], {result.id: doubt} if doubt else {})
    return result.id


async def test_a_correction_is_told_with_the_result_everywhere(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        id_ = await recorded(here)
        body = {
            "kind": "corrected",
            "comment": " the edge ",
            "detections": [BOX, {"label": "dent", "box": [1, 2, 30, 40]}],
        }
        answer = await here.client.post(f"/v1/results/{id_}/verdicts", json=body)
        assert answer.status_code == 201
        record = answer.json()["record"]
        assert (record["comment"], record["kind"], record["undone_by"]) == ("the edge", "corrected", None)
        kept, drawn = record["after"]["detections"]
        assert (kept["score"], kept["step"]) == (0.9, "find")  # left as it stood
        assert (drawn["score"], drawn["step"], drawn["label"]) == (1.0, "human", "dent")
        assert record["after"]["classifications"] == record["before"]["classifications"]
        for told in (
            (await here.client.get(f"/v1/results/{id_}")).json(),
            (await here.client.get("/v1/results")).json()["results"][0],
            (await here.client.get(f"/v1/jobs/{id_}")).json()["result"],
        ):
            assert told["verdict"]["kind"] == "corrected"
            assert len(told["verdict"]["detections"]) == 2
            assert len(told["detections"]) == 1
        undo = f"/v1/results/{id_}/verdicts/{record['id']}/undo"
        assert (await here.client.post(undo)).json()["verdict"] is None
        assert (await here.client.post(undo)).status_code == 200
        told = (await here.client.get(f"/v1/results/{id_}/verdicts")).json()
        assert [each["kind"] for each in told["verdicts"]] == ["corrected", "undo"]


async def test_an_outline_goes_with_its_box_and_a_box_drawn_anew_says_that_it_had_one(tmp_path: Path) -> None:
    mask = {"polygons": [[4.0, 4.0, 40.0, 4.0, 40.0, 40.0]], "area": 648.0}
    other = [10.0, 10.0, 20.0, 20.0]
    found = [
        Detection("parcel", 0.9, (4.0, 4.0, 40.0, 40.0), "find", {"mask": mask}),
        Detection("bag", 0.6, (0.0, 0.0, 30.0, 20.0), "find", {"mask": mask | {"area": 1.0}}),
    ]
    async with running(tmp_path) as here:
        id_ = await recorded(here, detections=found)

        async def corrected(*boxes: tuple[str, list[float]]) -> list[dict[str, Any]]:
            body = {"kind": "corrected", "detections": [{"label": label, "box": box} for label, box in boxes]}
            answer = await here.client.post(f"/v1/results/{id_}/verdicts", json=body)
            assert answer.status_code == 201, answer.text
            return [each.get("attributes", {}) for each in answer.json()["verdict"]["detections"]]

        named, moved = [4.0, 4.0, 40.0, 40.0], [1.0, 0.0, 31.0, 20.0]
        outlines = [{"mask": mask}, {"mask_dropped": True}, {}]
        assert await corrected(("crate", named), ("bag", moved), ("dent", other)) == outlines
        coco = (await here.client.get("/v1/results/export?format=coco")).json()
        told = [(each["segmentation"], each["area"], each.get("mask_dropped")) for each in coco["annotations"]]
        assert told == [(mask["polygons"], 648.0, None), ([], 600.0, True), ([], 100.0, None)]
        moved[2] = 32.0  # once more
        assert await corrected(("crate", named), ("sack", moved), ("dent", other)) == outlines
        first = (await here.client.get(f"/v1/results/{id_}/verdicts")).json()["verdicts"][0]
        assert [each["attributes"]["mask"]["area"] for each in first["before"]["detections"]] == [648.0, 1.0]


async def test_a_retry_under_the_same_key_is_the_same_verdict(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        path = f"/v1/results/{await recorded(here)}/verdicts"
        key = {"Idempotency-Key": "tab-1"}
        first = await here.client.post(path, json={"kind": "confirmed"}, headers=key)
        again = await here.client.post(path, json={"kind": "confirmed"}, headers=key)
        other = await here.client.post(path, json={"kind": "rejected"}, headers=key)
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json() == again.json()
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_what_does_not_fit_the_picture_is_refused_with_a_reason(tmp_path: Path) -> None:
    wrong: list[tuple[Any, str]] = [
        ({"kind": "approved"}, "approved"),
        ({"kind": "confirmed", "who": "ana"}, "who"),
        ({"kind": "confirmed", "detections": [BOX]}, "belong to `corrected`"),
        ({"kind": "corrected"}, "at least one"),
        ({"kind": "comment", "comment": "  "}, "1 to 2000"),
        ({"kind": "comment"}, "without words"),
        ({"kind": "comment", "comment": "a\x00b"}, "control characters"),
        ({"kind": "corrected", "detections": [BOX, BOX | {"box": [4, 4, 400, 40]}]}, "box 2"),
        ({"kind": "corrected", "detections": [BOX | {"box": [40, 4, 4, 40]}]}, "left, top, right, bottom"),
        ({"kind": "corrected", "detections": [BOX | {"label": ""}]}, "label of box 1"),
        ({"kind": "corrected", "detections": [BOX] * 1001}, "1000 boxes"),
    ]
    async with running(tmp_path) as here:
        path = f"/v1/results/{await recorded(here)}/verdicts"
        for body, told in wrong:
            answer = await here.client.post(path, json=body)
            assert answer.status_code == 400, body
            assert told in answer.json()["detail"]
        for content in (
            b"",
            b"[]",
            b"\xff",
            b'{"kind": "corrected", "detections": [{"label": "x", "box": [NaN,0,1,1]}]}',
        ):
            assert (await here.client.post(path, content=content)).status_code == 400
        assert (await here.client.post(path, content=b" " * 600_000)).status_code == 413
        assert (await here.client.get(path)).json() == {"verdicts": [], "verdict": None}


async def test_a_failed_job_can_only_be_commented_on(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        failed: dict[str, Any] = {"status": "failed", "reason": "cut: half of it", "image": None, "detections": []}
        path = f"/v1/results/{await recorded(here, **failed)}/verdicts"
        answer = await here.client.post(path, json={"kind": "confirmed"})
        assert (answer.status_code, "cut: half of it" in answer.json()["detail"]) == (400, True)
        assert (await here.client.post(path, json={"kind": "comment", "comment": "lens dirty"})).status_code == 201


async def test_what_waits_leaves_with_its_verdict_and_says_who_looks(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        low = await recorded(
            here, 1, Doubt(0.3, "low score"), detections=[Detection("parcel", 0.4, (1.0, 1.0, 9.0, 9.0), "find")]
        )
        new = await recorded(here, 2, Doubt(1.0, "new label"))
        told = (await here.client.get("/v1/review")).json()
        assert [(each["result"]["id"], each["reason"], each["held_by"]) for each in told["review"]] == [
            (new, "new label", None), (low, "low score", None),
        ]  # fmt: skip
        assert (told["waiting"], told["decided"]) == (2, 0)
        held = (await here.client.post(f"/v1/review/{low}/hold")).json()
        assert held["held_until"] > held["held_by"] == ""
        await here.client.post(f"/v1/results/{new}/verdicts", json={"kind": "rejected"})
        told = (await here.client.get("/v1/review?limit=5")).json()
        assert [(each["result"]["id"], each["held_by"]) for each in told["review"]] == [(low, "")]
        assert (told["waiting"], told["decided"]) == (1, 1)

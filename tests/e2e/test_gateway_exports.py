"""Data out and in: every export reads with the tools of its format, and labels corrected elsewhere come back and go out again."""

import hashlib
import io
import json
import tarfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from pycocotools.coco import COCO

from eyeline.core.types import Classification, Detection, Result
from eyeline.ops import labels
from eyeline.ops.export import export
from eyeline.ops.storage.pictures import encoded
from eyeline.ops.submit import Api
from eyeline.pipeline.decode import decode
from eyeline.stores.results.retaining import PictureRow
from tests.gateways import Running, jpeg, running

MASK = {"mask": {"polygons": [[4.0, 4.0, 40.0, 4.0, 40.0, 40.0]], "area": 648.0}}


async def recorded(here: Running, count: int = 3) -> list[Result]:
    """Results of `count` pictures: a box with a mask, and one without."""
    found = [
        Detection("parcel", 0.9, (4.0, 4.0, 40.0, 40.0), "find", MASK),
        Detection("bag", 0.6, (10.0, 8.0, 30.5, 20.25), "find"),
    ]
    made = []
    for seed in range(count):
        await here.send(seed, ref=f"box-{seed}", **{"meta.file": f"photo {seed}.jpg"})
        made.append(await here.work(detections=found, classifications=[Classification("intact", 0.8, "look")]))
    return made


def api(here: Running) -> Api:
    return Api(here.gateway.url)


def opened(path: Path, capsys: pytest.CaptureFixture[str]) -> COCO:
    coco = COCO(str(path))
    capsys.readouterr()
    return coco


def studio(result: Result, *regions: dict[str, Any], image: str | None = None) -> dict[str, Any]:
    """A task as Label Studio exports it."""
    return {
        "id": 7,
        "data": {"image": image or f"/data/upload/1/0a1b2c3d-{result.id}.jpg"},
        "annotations": [
            {"id": 1, "was_cancelled": True, "result": []},
            {"id": 2, "was_cancelled": False, "completed_by": 1, "lead_time": 3.2, "result": list(regions)},
        ],
        "predictions": [],
        "project": 1,
    }


def rectangle(label: str, x: float, y: float, width: float, height: float) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label]}
    return {
        "id": "abc", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "origin": "manual",
        "original_width": 640, "original_height": 480, "image_rotation": 0, "value": value,
    }  # fmt: skip


async def imported(here: Running, content: Any, folder: Path, **how: Any) -> list[labels.Matched]:
    path = folder / "labels.json"
    path.write_text(json.dumps(content))
    records = labels.read(path)
    async with api(here) as asked:
        found = [each async for each in labels.matched(asked, records, **how)]
        for each in found:
            await labels.give(asked, each, "imported from labels.json")
    return found


async def test_coco_goes_out_comes_back_corrected_and_goes_out_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(tmp_path / "data") as here:
        made = await recorded(here)
        async with api(here) as asked:
            await export(asked, tmp_path / "out", "coco", {}, images=True)
        path = tmp_path / "out" / "annotations.json"
        coco = opened(path, capsys)
        assert {coco.imgs[number]["file_name"] for number in coco.imgs} == {f"{result.id}.jpg" for result in made}
        assert sorted(file.name for file in (tmp_path / "out" / "images").iterdir()) == sorted(
            f"{result.id}.jpg" for result in made
        )
        first = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
        assert [each["bbox"] for each in first] == [[4, 4, 36, 36], [10, 8, 20.5, 12.25]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycocotools, of numpy 2
            assert coco.annToMask(first[0]).sum() == pytest.approx(648, rel=0.05)
        content = json.loads(path.read_bytes())
        again = await imported(here, content, tmp_path)
        assert {each.fate for each in again} == {"unchanged"}

        (bag,) = (each["id"] for each in content["categories"] if each["name"] == "bag")
        content["annotations"] = [
            each for each in content["annotations"] if (each["image_id"], each["category_id"]) != (1, bag)
        ]
        content["annotations"][0]["bbox"][0] += 0.4  # what a tool's rounding does is no other box
        fates = [(each.fate, each.by) for each in await imported(here, content, tmp_path)]
        assert sorted(fates) == [("corrected", "id"), ("unchanged", "id"), ("unchanged", "id")]
        assert {each.fate for each in await imported(here, content, tmp_path)} == {"unchanged"}
        result = await here.results.get(content["images"][0]["result_id"])
        assert result is not None
        assert result.verdict is not None
        assert result.verdict.comment == "imported from labels.json"
        assert result.verdict.detections == [result.detections[0]]  # score, step and mask are as they were
        assert len(await here.results.verdicts(result.id)) == 1
        (tmp_path / "again.json").write_bytes((await here.client.get("/v1/results/export?format=coco")).content)
        corrected = opened(tmp_path / "again.json", capsys)
        assert len(corrected.getAnnIds()) == 5
        assert len(corrected.getAnnIds(imgIds=[1])) == 1
        assert corrected.imgs[1]["verdict"] == "corrected"


async def test_label_studio_is_found_by_id_digest_and_name(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as here:
        made = await recorded(here, 4)
        for result, name in ((made[1], "by digest.jpg"),):
            picture = await here.blobs.get(_ref(result))
            (tmp_path / "pictures").mkdir()
            (tmp_path / "pictures" / name).write_bytes(picture)
        tasks = [
            studio(made[0], rectangle("crate", 10, 25, 50, 50)),
            studio(made[1], rectangle("crate", 0, 0, 50, 50), image="/data/local-files/?d=shots/by%20digest.jpg"),
            studio(made[2], image="/data/upload/1/0a1b2c3d-photo%202.jpg"),
            studio(made[0], image="https://example.com/nowhere.jpg"),
            studio(made[3]) | {"annotations": []},  # nobody labelled it
        ]
        path = tmp_path / "studio.json"
        path.write_text(json.dumps(tasks))
        records = labels.with_digests(labels.read(path), tmp_path / "pictures")
        async with api(here) as asked:
            found = [each async for each in labels.matched(asked, records)]
            for each in found:
                await labels.give(asked, each, "x")
        assert {(each.by, each.fate) for each in found} == {
            ("id", "corrected"), ("digest", "corrected"), ("name", "corrected"), ("", "no such result")
        }  # fmt: skip
        first, third = [await here.results.get(made[at].id) for at in (0, 2)]
        assert first is not None
        assert third is not None
        assert first.verdict is not None
        assert third.verdict is not None
        drawn = first.verdict.detections or []
        assert [(each.label, each.box, each.step) for each in drawn] == [("crate", (6.4, 12.0, 38.4, 36.0), "human")]
        assert first.verdict.classifications == first.classifications  # nothing was said of them
        assert third.verdict.detections == []


async def test_what_an_annotation_does_not_speak_of_stays(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as here:
        (made,) = await recorded(here, 1)
        choice = {"id": "x", "type": "choices", "from_name": "c", "to_name": "image", "value": {"choices": ["damaged"]}}
        await imported(here, [studio(made, choice)], tmp_path)
        result = await here.results.get(made.id)
        assert result is not None
        assert result.verdict is not None
        assert result.verdict.detections == result.detections
        assert [each.label for each in result.verdict.classifications or []] == ["damaged"]


def _ref(result: Result) -> Any:
    from eyeline.core.types import BlobRef

    assert result.image is not None
    return BlobRef(f"{result.site}/{result.image.sha256}", result.image.bytes, result.image.sha256)


async def test_what_was_taken_back_can_be_imported_again_and_sameness_confirms_if_asked(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as here:
        (made,) = await recorded(here, 1)
        tasks = [studio(made, rectangle("crate", 10, 25, 50, 50))]
        await imported(here, tasks, tmp_path)
        (record,) = await here.results.verdicts(made.id)
        await here.client.post(f"/v1/results/{made.id}/verdicts/{record.id}/undo")
        assert [each.fate for each in await imported(here, tasks, tmp_path)] == ["corrected"]
        result = await here.results.get(made.id)
        assert result is not None
        assert result.verdict is not None
        assert result.verdict.kind == "corrected"
        same = json.loads((await here.client.get("/v1/results/export?format=coco")).content)
        assert [each.fate for each in await imported(here, same, tmp_path, confirm=True)] == ["unchanged"]
        (other,) = await recorded(here, 1)
        await here.client.post(f"/v1/results/{other.id}/verdicts", json={"kind": "rejected"})
        out = json.loads((await here.client.get("/v1/results/export?format=coco")).content)
        assert [each["image_id"] for each in out["annotations"]] == [2]  # of the rejected one there is nothing


async def test_yolo_has_a_file_for_each_picture_and_outlines_if_asked(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as here:
        made = await recorded(here, 2)
        async with api(here) as asked:
            await export(asked, tmp_path / "out", "yolo", {})
        lines = (tmp_path / "out" / "labels" / f"{made[0].id}.txt").read_text().splitlines()
        assert lines == ["0 0.343750 0.458333 0.562500 0.750000", "1 0.316406 0.294271 0.320312 0.255208"]
        assert '0: "parcel"\n  1: "bag"' in (tmp_path / "out" / "data.yaml").read_text()
        packed = (await here.client.get("/v1/results/export?format=yolo-seg")).content
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            (member,) = (each for each in tar.getmembers() if made[1].id in each.name)
            outline = tar.extractfile(member)
            assert outline is not None
            assert outline.read().decode().splitlines()[0].split()[:3] == ["0", "0.062500", "0.083333"]


@pytest.mark.parametrize("format_", ["coco", "yolo"])
async def test_a_data_set_has_pictures_that_were_encoded_anew_and_leaves_out_those_of_which_a_thumbnail_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    async with running(tmp_path / "data") as here:
        made = await recorded(here, 4)
        for result, state, what in (
            (made[0], "reencoded", "reencoded"),
            (made[1], "evidence", "thumbnail"),
            (made[2], "gone", ""),
        ):
            assert result.image is not None
            url = f"{result.site}/{result.image.sha256}"
            await here.blobs.delete(url)
            small = encoded(jpeg(77, (64, 48) if what == "reencoded" else (32, 24)), "webp:80")
            kept = {what: await here.blobs.put(result.site, small, hashlib.sha256(small).hexdigest())} if what else {}
            row = PictureRow(url=url, state=state, at="", kept=kept)  # type: ignore[arg-type]
            assert await here.results.change_pictures([row], lambda _: True)
        told: list[Sequence[str]] = []
        async with api(here) as asked:
            await export(asked, tmp_path / "out", format_, {}, images=True, left_out=told.append)
        assert told == [[made[1].id, made[2].id]]
        there = {made[0].id, made[3].id}
        assert {path.stem for path in (tmp_path / "out" / "images").iterdir()} == there
        assert decode((tmp_path / "out" / "images" / f"{made[0].id}.jpg").read_bytes()).pixels.shape == (48, 64, 3)
        if format_ == "coco":
            coco = opened(tmp_path / "out" / "annotations.json", capsys)
            assert {image["result_id"] for image in coco.dataset["images"]} == there
            assert {note["image_id"] for note in coco.dataset["annotations"]} == {
                i["id"] for i in coco.dataset["images"]
            }
        else:
            assert {path.stem for path in (tmp_path / "out" / "labels").iterdir()} == there


async def test_parquet_has_types_and_the_same_rows(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as here:
        made = await recorded(here)
        (tmp_path / "r.parquet").write_bytes((await here.client.get("/v1/results/export?format=parquet")).content)
        table = pyarrow.parquet.read_table(tmp_path / "r.parquet")
        rows = table.to_pylist()
        assert [row["id"] for row in rows] == [result.id for result in reversed(made)]
        assert rows[0]["captured_at"] == made[2].captured_at.replace(microsecond=rows[0]["captured_at"].microsecond)
        assert rows[0]["labels"] == ["bag", "intact", "parcel"]
        assert (rows[0]["width"], rows[0]["verdict"]) == (64, None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[", "is no JSON"),
        ('{"shapes": []}', "neither COCO"),
        ('[{"image": "a.jpg", "label": []}]', "not as JSON-MIN"),
        ('{"images": [{"id": 1}], "annotations": []}', "file_name"),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"bbox": [1, 2, 3, 4], "image_id": 1, "category_id": 3}]}',
         "annotation 1 names a category"),
        ('[{"data": {"image": "a"}, "annotations": [{"result": [{"type": "rectanglelabels", "value": {}}]}]}]', "task 1"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_refused_with_the_place(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(Exception, match=reason):
        labels.read(path)


def test_turned_rectangles_and_other_sizes_are_understood(tmp_path: Path) -> None:
    turned = rectangle("a", 50, 50, 10, 20)
    turned["value"]["rotation"] = 90
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"data": {"image": "a.jpg"}, "annotations": [{"result": [turned]}]}]))
    (record,) = labels.read(path)
    assert record.boxes
    assert record.boxes[0][1] == pytest.approx((320 - 96, 240, 320, 240 + 64))

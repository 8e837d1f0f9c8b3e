"""An evidence pack: all of it there, and any change of it found by the script that lies in it."""

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyeline.core.types import Detection, ImageInfo, Result
from eyeline.ops.audit.evidence import pack
from eyeline.ops.audit.sealer import Sealer
from eyeline.ops.audit.verifier import Evidence
from eyeline.ops.storage.pictures import encoded
from eyeline.stores.blobs import open_blobs
from eyeline.stores.blobs.base import BlobStore
from eyeline.stores.results import open_results
from eyeline.stores.results.base import NewJob, ResultStore
from eyeline.stores.results.retaining import REENCODED, PictureRow
from eyeline.stores.results.review import NewVerdict, Said
from tests.contract.test_results import make_job, make_result
from tests.dashboards import made_alert
from tests.gateways import jpeg


@pytest.fixture
async def results(tmp_path: Path) -> AsyncIterator[ResultStore]:
    opened = open_results(f"sqlite:///{tmp_path}/results.db")
    await opened.upgrade()
    yield opened
    await opened.close()


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[BlobStore]:
    opened = open_blobs(f"file://{tmp_path}/blobs")
    yield opened
    await opened.close()


async def recorded(results: ResultStore, blobs: BlobStore, count: int) -> list[Result]:
    """Sealed results with pictures; the first one was corrected."""
    made = []
    for number in range(count):
        job, data = make_job(number), jpeg(number)
        sha256 = hashlib.sha256(data).hexdigest()
        await blobs.put("north", data, sha256)
        await results.keep_jobs([NewJob(job=job)])
        image, box = ImageInfo(sha256, 64, 48, "jpeg", len(data)), Detection("dent", 0.4, (1, 2, 30, 40), "find")
        made.append(make_result(job, image=image, detections=[box]))
    await results.save_many(made)
    drawn = Said([Detection("tear", 1.0, (5, 5, 25, 35), "human")])
    await results.add_verdict(NewVerdict(result_id=made[0].id, kind="corrected", by="ana", after=drawn))
    await Sealer(results).seal_all()
    return list((await results.get_many([one.id for one in made])).values())


async def unpacked(results: ResultStore, blobs: BlobStore, chosen: list[Result], folder: Path) -> Path:
    data = b"".join([part async for part in pack(results, blobs, chosen, "ben")])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        archive.extractall(folder)
    return folder


def problems(folder: Path) -> list[str]:
    check = Evidence(folder)
    check.check()
    return check.problems


async def test_a_pack_stands_for_itself(results: ResultStore, blobs: BlobStore, tmp_path: Path) -> None:
    (one,) = await recorded(results, blobs, 1)
    raised = made_alert(one, state="resolved", disposition="real")
    another = made_alert(one, result_id="another")
    await results.commit_alerts(state={}, alerts=[raised, another], deliveries=[])
    folder = await unpacked(results, blobs, [one], tmp_path / "pack")
    assert sorted(path.name for path in folder.iterdir()) == [
        "corrected.png", "inclusion.jsonl", "manifest.json", "original.jpeg", "overlay.png", "record.json", "verify.py",
        "verify.txt",
    ]  # fmt: skip
    assert (folder / "original.jpeg").read_bytes() == jpeg(0)
    told = json.loads((folder / "record.json").read_bytes())
    assert (told["result"]["id"], told["verdicts"][0]["by"]) == (one.id, "ana")
    assert [(row["id"], row["disposition"]) for row in told["alerts"]] == [(raised.id, "real")]
    assert told["chain"] == msgspec.to_builtins(one.chain)
    done = subprocess.run(
        [sys.executable, "-I", "verify.py", "."], cwd=folder, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "GOOD: 7 files, 2 records, 0 not sealed yet")
    asked = [record for record in await results.unsealed(10, bodies=True) if record.kind == "action"]
    assert json.loads(asked[-1].body or b"").items() >= {"what": "evidence", "by": "ben", "ids": [one.id]}.items()


async def test_several_have_a_folder_each_with_what_is_left_of_their_pictures(
    results: ResultStore, blobs: BlobStore, tmp_path: Path
) -> None:
    made = await recorded(results, blobs, 3)
    lost, changed = (one.image for one in made[1:])
    assert lost is not None
    assert changed is not None
    for image in (lost, changed):
        await blobs.delete(f"north/{image.sha256}")
    small = encoded(jpeg(2), "webp:80")
    kept = await blobs.put("north", small, hashlib.sha256(small).hexdigest())
    row = PictureRow(url=f"north/{changed.sha256}", state=REENCODED, at="", kept={REENCODED: kept})
    assert await results.change_pictures([row], lambda _: True)
    folder = await unpacked(results, blobs, made, tmp_path / "pack")
    assert problems(folder) == []
    assert [(folder / one.id / "original.jpeg").exists() for one in made] == [True, False, False]
    assert (folder / made[2].id / "reencoded.webp").read_bytes() == small
    assert [(folder / one.id / "overlay.png").exists() for one in made] == [True, False, True]
    assert [(folder / one.id / "record.json").exists() for one in made] == [True] * 3


def _line(change: dict[str, Any]) -> Any:
    def altered(folder: Path) -> None:
        path = folder / "inclusion.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines[0] |= change
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        _listed(folder)

    return altered


def _listed(folder: Path) -> None:
    """Make the manifest fit what is there: whoever alters a pack can do that, too."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for entry in manifest["files"]:
        entry["sha256"] = hashlib.sha256((folder / entry["path"]).read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))


def _picture(folder: Path) -> None:
    (folder / "original.jpeg").write_bytes(jpeg(9))
    _listed(folder)


def _record(folder: Path) -> None:
    told = json.loads((folder / "record.json").read_bytes())
    told["result"]["detections"] = []
    (folder / "record.json").write_text(json.dumps(told))
    _listed(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "overlay.png").write_bytes(b""), "overlay.png is not the file that was packed"),
        (lambda folder: (folder / "overlay.png").unlink(), "overlay.png is missing"),
        (_picture, "is not the one that was looked at"),
        (_record, "is not what the audit commits to"),
        (_line({"at": "2026-01-01T00:00:00.000000Z"}), "is not the one that was sealed in block 0"),
        (_line({"salt": "00"}), "the body of record"),
        (_line({"type": "checkpoint"}), "no record of the audit commits to"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "the pack cannot be read"),
    ],
)
async def test_any_change_is_found(
    results: ResultStore, blobs: BlobStore, tmp_path: Path, change: Any, told: str
) -> None:
    folder = await unpacked(results, blobs, await recorded(results, blobs, 1), tmp_path / "pack")
    change(folder)
    assert any(told in problem for problem in problems(folder)), problems(folder)

"""`eyeline erase --yes` as a process over a real data folder: what fits goes from every store, what is held stays and is told."""

import asyncio
import hashlib
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from eyeline.core.ids import derived_id, uuid7
from eyeline.core.settings import Settings, load_settings
from eyeline.core.types import ImageInfo, Job, Result
from eyeline.ops.audit import trail
from eyeline.ops.audit.sealer import Sealer
from eyeline.stores.blobs.file import FolderBlobs
from eyeline.stores.results import open_results
from eyeline.stores.results.base import NewJob, ResultQuery
from eyeline.stores.results.retaining import Hold
from tests.gateways import jpeg

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
#: The command without its minute of grace, which here nobody uploads in.
HASTY = """
from eyeline.cli import main
from eyeline.ops.storage.keeper import Keeper
Keeper.__init__.__kwdefaults__["grace"] = 0.0
main()
"""


async def erased(folder: Path, *words: str) -> list[str]:
    """The lines that the command prints."""
    argv = [sys.executable, "-c", HASTY, "erase", "--data-dir", str(folder), "--yes", *words]
    made = await asyncio.create_subprocess_exec(*argv, stdout=-1, stderr=-1)
    out, err = await made.communicate()
    assert made.returncode == 0, err.decode()
    return out.decode().splitlines()


async def recorded(settings: Settings, number: int, **words: Any) -> Result:
    """A sealed result with a picture of its own."""
    blobs, results = FolderBlobs(settings.blobs.url), open_results(settings.results.url)
    data, at = jpeg(number), NOON + timedelta(hours=number)
    ref = await blobs.put("default", data, hashlib.sha256(data).hexdigest())
    said = {"site": "default", "pipeline": "p", "captured_at": at, "received_at": at, **words}
    job = Job(id=derived_id(at, str(number)), lane="live", blob=ref, **said)
    await results.upgrade()
    await results.keep_jobs([NewJob(job=job)])
    image = ImageInfo(ref.sha256, 64, 48, "jpeg", ref.size)
    result = Result(id=job.id, status="completed", completed_at=at, image=image, **said)
    await results.save_many([result])
    for store in (blobs, results):
        await store.close()
    return result


async def test_a_ref_and_an_hour_of_a_camera_are_erased_and_what_is_held_stays(tmp_path: Path) -> None:
    settings = load_settings(None, {}, {"data_dir": str(tmp_path)})
    asked_for = [{"ref": "order-7"}, {"ref": "order-7"}, {"camera": "gate"}, {"camera": "gate"}, {"ref": "order-8"}]
    made = [await recorded(settings, number, **words) for number, words in enumerate(asked_for)]
    results, blobs = open_results(settings.results.url), FolderBlobs(settings.blobs.url)
    # what another model said of the first one's picture: it goes with the record
    aside = replace(made[0], id=derived_id(NOON, "aside"), ref=made[0].id, replay_of=made[0].id, aside=True)
    await results.save_many([aside])
    hold = Hold(id=uuid7(), placed_at=NOON, reason="claim 12", result=made[1].id)
    await results.place_hold(hold)
    await Sealer(results, lease=0.0).seal_all()
    by_ref, by_camera_and_time, by_nothing = await asyncio.gather(
        erased(tmp_path, "--ref", "order-7", "--reason", "asked to"),
        erased(tmp_path, "--camera", "gate", "--since", "2026-03-04T14:00:00Z", "--until", "2026-03-04T15:00:00Z"),
        erased(tmp_path, "--ref", "order-9"),
    )
    assert by_ref[0].startswith("erased: 2 results ((none) 2), captured 2026-03-04T12:00:00 to 2026-03-04T12:00:00 UTC")
    assert by_ref[-1] == f"stay: 1 results under the legal hold {hold.id}"
    assert by_camera_and_time[0].startswith("erased: 1 results (gate 1), captured 2026-03-04T14:00:00")
    assert by_nothing == ["nothing to erase"]
    left = [made[1], made[3], made[4]]
    assert {each.id for each in (await results.find(ResultQuery()))[0]} == {each.id for each in left}
    pictures = {f"default/{each.image.sha256}" for each in left if each.image is not None}
    assert {ref.url async for ref in blobs.list(older_than=-1e9)} == pictures
    await Sealer(results, lease=0.0).seal_all()
    report = await trail.verify(results)
    assert (report.good, report.erased) == (True, 3)
    done = await results.actions(datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC), 100)
    assert {each["reason"]: set(each["ids"]) for each in done if each["what"] == "erase" and each["reason"]} == {
        "asked to": {made[0].id, aside.id}
    }
    for store in (results, blobs):
        await store.close()

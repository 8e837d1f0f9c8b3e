"""The short form of retention's benchmark: every stage does all of its work, in few transactions. No time is asserted."""

from pathlib import Path

from eyeline.stores.blobs.file import FolderBlobs
from eyeline.stores.results import open_results
from eyeline.stores.results.base import ResultQuery
from tests.benchmark.retention import measure

RESULTS = 60


async def test_all_stages_are_gone_through_and_nothing_is_left(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/results.db"
    measured = await measure(tmp_path, url, RESULTS, (64, 48))
    results, blobs = open_results(url), FolderBlobs(f"file://{tmp_path}/blobs")
    assert (await results.find(ResultQuery()))[0] == []
    assert [ref async for ref in blobs.list(older_than=-1e9)] == []
    done = {row.what: row.count for row in await results.tallies("") if row.what not in {"reencoded", "received"}}
    assert done == {"original": RESULTS, "evidence": RESULTS, "result": RESULTS}
    assert all(len(stage.transactions) < RESULTS / 2 for stage in measured), (
        "one for each picture, and not for each step"
    )
    await results.close()
    await blobs.close()

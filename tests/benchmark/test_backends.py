"""The short form of the backends' benchmark: what went in came out, and every figure is there. No time is asserted."""

from pathlib import Path

from tests.benchmark.backends import MEASURES, run

EMBEDDED_AND_ONE = {
    "queue": ("sqlite", "redis"),
    "results": ("sqlite",),
    "blobs": ("file",),
    "cache": ("sqlite", "redis"),
}


async def test_every_room_is_measured(tmp_path: Path) -> None:
    found = await run(EMBEDDED_AND_ONE, count=17, rounds=1, folder=tmp_path)
    assert set(found) == set(MEASURES)
    for room, schemes in EMBEDDED_AND_ONE.items():
        assert tuple(found[room]) == schemes
    assert all(value > 0 for schemes in found.values() for figures in schemes.values() for value in figures.values())

"""A folder, eight pictures at a time: `python folder_at_once.py http://127.0.0.1:8080 pictures`."""

import sys
from pathlib import Path

import anyio

from eyeline_client import AsyncClient, ClientError


async def main(url: str, folder: str) -> None:
    """Send all pictures in the bulk lane; a gateway that is full is waited for."""
    at_once = anyio.CapacityLimiter(8)
    async with AsyncClient(url) as eyeline, anyio.create_task_group() as group:
        for path in sorted(map(Path, _names(folder))):
            group.start_soon(_one, eyeline, at_once, path)


async def _one(eyeline: AsyncClient, at_once: anyio.CapacityLimiter, path: Path) -> None:
    async with at_once:
        try:
            result = await eyeline.wait(await eyeline.submit(path, lane="bulk", ref=path.name))
        except ClientError as error:
            print(f"{path.name}: {error}")
            return
    labels = ", ".join(f"{found.label} {found.score:.2f}" for found in result.classifications)
    print(f"{path.name}: {result.status} {labels or result.reason}, {len(result.detections)} boxes")


def _names(folder: str) -> list[str]:
    return [str(path) for path in Path(folder).iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"}]


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])

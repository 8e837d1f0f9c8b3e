"""`eyeline export`: results of a running gateway as a file, or as a folder with the pictures beside."""

import asyncio
import json
import tarfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from eyeline.core.errors import ConfigError
from eyeline.ops.submit import Api

#: Formats that are of use with pictures beside, and in a folder.
DATASETS = ("coco", "yolo", "yolo-seg")
#: Pictures fetched at once.
AT_ONCE = 4
Progress = Callable[[int, int], object]


async def export(
    api: Api,
    target: Path,
    format: str,  # noqa: A002
    filters: Mapping[str, str],
    *,
    images: bool = False,
    progress: Progress = lambda _done, _total: None,
    left_out: Callable[[Sequence[str]], object] = lambda _ids: None,
) -> list[Path]:
    """Write the export; returns what was written. YOLO, and everything with pictures, is a folder. Raises ConfigError.

    A file appears under its name once it is whole. Boxes are of no use on a thumbnail: where no more is left of a picture, its
    result is left out of the data set too, and told to `left_out`.
    """
    if images and format not in DATASETS:
        raise ConfigError(f"pictures go with {', '.join(DATASETS)}; {format!r} is a table without them")
    if not images and not format.startswith("yolo"):
        await _file(api, target, format, filters)
        return [target]
    await asyncio.to_thread(_new_folder, target)
    written = await _dataset(api, target, format, filters)
    if images:
        names = await asyncio.to_thread(_named, written)
        gone = await _pictures(api, names, target / "images", progress)
        if gone:
            await asyncio.to_thread(_without, written, gone)
            left_out(sorted(gone))
        written.append(target / "images")
    return written


def _new_folder(target: Path) -> None:
    if target.exists() and any(target.iterdir() if target.is_dir() else [target]):
        raise ConfigError(f"{target} is not empty; name a new folder")
    target.mkdir(parents=True, exist_ok=True)


async def _file(api: Api, target: Path, format: str, filters: Mapping[str, str]) -> None:  # noqa: A002
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as file:
            async for chunk in api.stream("/v1/results/export", {**filters, "format": format}):
                file.write(chunk)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


async def _dataset(api: Api, folder: Path, format: str, filters: Mapping[str, str]) -> list[Path]:  # noqa: A002
    if format == "coco":
        await _file(api, folder / "annotations.json", format, filters)
        return [folder / "annotations.json"]
    packed = folder / ".export.tar"
    try:
        await _file(api, packed, format, filters)
        with tarfile.open(packed) as tar:
            await asyncio.to_thread(tar.extractall, folder, filter="data")
    finally:
        packed.unlink(missing_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    return [folder / "data.yaml", folder / "labels"]


def _named(written: Sequence[Path]) -> list[str]:
    """The ids of the results in a data set."""
    if written[0].suffix == ".json":
        content: dict[str, Any] = json.loads(written[0].read_bytes())
        return [str(image["result_id"]) for image in content["images"]]
    return sorted(path.stem for path in written[1].glob("*.txt"))


def _without(written: Sequence[Path], gone: Collection[str]) -> None:
    """Take those results out of the data set."""
    if written[0].suffix != ".json":
        for ident in gone:
            (written[1] / f"{ident}.txt").unlink()
        return
    content: dict[str, Any] = json.loads(written[0].read_bytes())
    numbers = {image["id"] for image in content["images"] if image["result_id"] in gone}
    content["images"] = [image for image in content["images"] if image["id"] not in numbers]
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] not in numbers]
    written[0].write_text(json.dumps(content))


async def _pictures(api: Api, ids: Sequence[str], folder: Path, progress: Progress) -> set[str]:
    """Fetch the pictures; the ids of those that are not kept any more."""
    await asyncio.to_thread(folder.mkdir)
    gate, done, gone = asyncio.Semaphore(AT_ONCE), 0, set[str]()

    async def one(ident: str) -> None:
        nonlocal done
        async with gate:
            data = await api.picture(ident)
            if data is None:
                gone.add(ident)
            else:
                await asyncio.to_thread((folder / f"{ident}.jpg").write_bytes, data)
        done += 1
        progress(done, len(ids))

    for first in range(0, len(ids), 1000):
        await asyncio.gather(*(one(ident) for ident in ids[first : first + 1000]))
    return gone

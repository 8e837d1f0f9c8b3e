"""Exports of results, streamed page by page: JSON lines, CSV that a spreadsheet may open safely, Parquet, COCO and YOLO.

A format is a class: what its file begins with, what a page of results adds, what it ends with. What has to wait for the
end lies in a file meanwhile, so that an export of millions takes no more memory than one of a thousand.
"""

import asyncio
import csv
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

import msgspec
from starlette.responses import StreamingResponse

from eyeline.core.cells import safe_cell
from eyeline.core.clock import isoformat
from eyeline.core.errors import InputError, Overloaded
from eyeline.core.types import Classification, Detection, Result
from eyeline.gateway.datasets import Coco, Yolo, YoloMasks, labels_said
from eyeline.gateway.parquet import Parquet
from eyeline.stores.results.base import Action, ResultQuery, ResultStore

COLUMNS = (
    "id", "status", "reason", "site", "camera", "pipeline", "ref", "captured_at", "received_at", "completed_at",
    "sha256", "width", "height", "format", "bytes", "labels", "top_score", "detections", "classifications", "codes",
    "models", "duplicate_of", "meta", "verdict", "said",
)  # fmt: skip


class Export(Protocol):
    """One file in the making. None of the methods is called on the event loop."""

    media_type: str
    ending: str

    def rows(self, results: Sequence[Result]) -> bytes:
        """What these results add to the file now; the first call may begin it."""
        ...

    def end(self) -> Iterator[bytes]:
        """What is left, once there are no more results."""
        ...

    def close(self) -> None:
        """Give back what was held, also where the reader went away. Idempotent."""
        ...


class JsonLines:
    """One result a line, as everywhere."""

    media_type, ending = "application/x-ndjson", "jsonl"

    def rows(self, results: Sequence[Result]) -> bytes:
        """JSON, one a line."""
        return b"".join(msgspec.json.encode(result) + b"\n" for result in results)

    def end(self) -> Iterator[bytes]:
        """Nothing."""
        return iter(())

    def close(self) -> None:
        """Nothing is held."""


class Csv:
    """One result a row; lists and meta as JSON in their cell."""

    media_type, ending = "text/csv; charset=utf-8", "csv"

    def __init__(self) -> None:
        self._begun = False

    def rows(self, results: Sequence[Result]) -> bytes:
        """The line of column names comes first."""
        text = io.StringIO()
        writer = csv.writer(text)
        if not self._begun:
            writer.writerow(COLUMNS)
            self._begun = True
        for result in results:
            writer.writerow([safe_cell(cell) for cell in _cells(result)])
        return text.getvalue().encode()

    def end(self) -> Iterator[bytes]:
        """Nothing."""
        return iter(())

    def close(self) -> None:
        """Nothing is held."""


#: Exports that one gateway writes at a time; each holds a page of results, and maybe a file.
AT_ONCE = 4

EXPORTS: dict[str, type[Export]] = {
    "jsonl": JsonLines,
    "csv": Csv,
    "parquet": Parquet,
    "coco": Coco,
    "yolo": Yolo,
    "yolo-seg": YoloMasks,
}


def made_as(format: str) -> Export:  # noqa: A002
    """A file of that format. Raises InputError where it cannot be written here."""
    if format not in EXPORTS:
        raise InputError(f"no export is called {format!r}; there are: {', '.join(EXPORTS)}")
    return EXPORTS[format]()


class Exporter:
    """Writes exports of one store, a few at a time."""

    def __init__(self, results: ResultStore) -> None:
        self._results = results
        self._places = asyncio.Semaphore(AT_ONCE)

    async def export(self, query: ResultQuery, format: str, most: int | None, asked: Action) -> StreamingResponse:  # noqa: A002
        """The results of the query, newest first (`most`: at most so many), as a download; `asked` is in the audit before
        the first of them. Raises InputError where the format cannot be written here, Overloaded.
        """
        if self._places.locked():
            raise Overloaded(f"{AT_ONCE} exports are being written already; try again in a minute", retry_after=60.0)
        made = made_as(format)
        await self._results.record_action(asked)
        headers = {
            "Content-Disposition": f'attachment; filename="results.{made.ending}"',
            "X-Content-Type-Options": "nosniff",
        }
        return StreamingResponse(self._parts(query, made, most), media_type=made.media_type, headers=headers)

    async def _parts(self, query: ResultQuery, made: Export, most: int | None) -> AsyncIterator[bytes]:
        async with self._places, aclosing(written(self._results, query, made, most)) as parts:
            async for part in parts:
                yield part


async def written(
    results: ResultStore,
    query: ResultQuery,
    made: Export,
    most: int | None,
    seen: Callable[[Sequence[Result]], None] = lambda _: None,
) -> AsyncGenerator[bytes, None]:
    """The file of these results, newest first, part by part; each page of them is `seen` before its part comes."""
    cursor, left = query.cursor, most
    try:
        while True:
            limit = query.limit if left is None else min(query.limit, left)
            page, cursor = await results.find(replace(query, cursor=cursor, limit=limit))
            seen(page)
            yield await asyncio.to_thread(made.rows, page)
            left = None if left is None else left - len(page)
            if cursor is None or left == 0:
                break
        rest = made.end()
        while chunk := await asyncio.to_thread(next, rest, b""):
            yield chunk
    finally:
        made.close()


def _cells(result: Result) -> list[object]:
    found: list[Detection | Classification] = [*result.detections, *result.classifications]
    image = result.image
    picture = (image.sha256, image.width, image.height, image.format, image.bytes) if image else (None,) * 5
    return [
        result.id,
        result.status,
        result.reason,
        result.site,
        result.camera,
        result.pipeline,
        result.ref,
        isoformat(result.captured_at),
        isoformat(result.received_at),
        isoformat(result.completed_at),
        *picture,
        " ".join(sorted({each.label for each in found})),
        max((each.score for each in found), default=None),
        _json(result.detections),
        _json(result.classifications),
        _json(result.codes),
        " ".join(f"{model.name}@{model.version}" for model in result.models),
        result.duplicate_of,
        _json(result.meta),
        result.verdict and result.verdict.kind,
        _json(labels_said(result)),
    ]


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode() if value else ""

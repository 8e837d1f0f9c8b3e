"""CSV files for a system that takes files: written beside, forced to the disk, then renamed. Who sees one sees all of it.

A file's name begins with the time at which its first result came and ends with its id: written again after a crash it takes
its own place.
"""

import asyncio
import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from eyeline.core.cells import safe_cell
from eyeline.core.clock import isoformat
from eyeline.core.errors import ChannelError, ConfigError
from eyeline.core.settings import OutputSettings
from eyeline.core.types import Classification, Detection, Result
from eyeline.stores.results.base import DeliveryRow

if TYPE_CHECKING:
    from eyeline.alerts.outputs import Pick

COLUMNS = (
    "delivery", "id", "status", "reason", "site", "camera", "pipeline", "ref", "captured_at", "completed_at",
    "labels", "top_score", "codes", "detections", "meta", "duplicate_of",
)  # fmt: skip


class CsvDrop:
    """Files in the folder of `file:///folder`; see `outputs.Target`."""

    def __init__(self, settings: OutputSettings, clock: Callable[[], datetime]) -> None:
        parts = urlsplit(settings.url)
        self._folder = Path(unquote(parts.path))
        if parts.netloc or not parts.path or parts.query:
            raise ConfigError(f"outputs {settings.name!r}: {settings.url!r} is no folder; write file:///path/to/folder")
        self.most, self.patience = settings.rows, settings.seconds
        self._name = settings.name
        self._clock = clock

    async def put(self, rows: Sequence[DeliveryRow], picks: Sequence["Pick"]) -> list[DeliveryRow]:
        """See `outputs.Target.put`."""
        results = [pick.result for pick in picks]
        stamp = isoformat(results[0].received_at).replace("-", "").replace(":", "")[:15]
        name = f"{self._name}-{stamp}Z-{rows[0].id}.csv"
        try:
            await asyncio.to_thread(self._write, name, _table([row.id for row in rows], results))
        except OSError as error:
            raise ChannelError(
                f"{self._folder} cannot be written ({error.strerror}); see to its room and its rights"
            ) from error
        now = self._clock()
        return [replace(row, state="delivered", attempts=1, delivered_at=now, answer=name, payload=b"") for row in rows]

    def _write(self, name: str, data: bytes) -> None:
        """In a thread."""
        self._folder.mkdir(parents=True, exist_ok=True)
        beside = self._folder / f".{name}.part"
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._folder / name)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # the name, too
        finally:
            os.close(folder)

    async def close(self) -> None:
        """See `outputs.Target.close`."""


def _table(ids: Sequence[str], results: Sequence[Result]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for ident, result in zip(ids, results, strict=True):
        writer.writerow([safe_cell(cell) for cell in (ident, *_cells(result))])
    return text.getvalue().encode()


def _cells(result: Result) -> list[object]:
    found: list[Detection | Classification] = [*result.detections, *result.classifications]
    return [
        result.id,
        result.status,
        result.reason,
        result.site,
        result.camera,
        result.pipeline,
        result.ref,
        isoformat(result.captured_at),
        isoformat(result.completed_at),
        " ".join(sorted({each.label for each in found})),
        max((each.score for each in found), default=None),
        " ".join(code.text for code in result.codes),
        msgspec.json.encode(result.detections).decode(),
        msgspec.json.encode(result.meta).decode() if result.meta else "",
        result.duplicate_of,
    ]

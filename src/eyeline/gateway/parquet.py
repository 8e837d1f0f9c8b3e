"""Results as Parquet: times, numbers and lists with their types, in row groups that are written as they fill."""

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from eyeline.core.errors import InputError
from eyeline.core.types import Result
from eyeline.gateway.datasets import labels_said

#: Results in one row group.
ROWS = 5000
_TEXTS = ("status", "reason", "site", "camera", "pipeline", "ref")
_TIMES = ("captured_at", "received_at", "completed_at")


class _Sink:
    """A file that is only written to, from which what was written is taken."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written = 0

    def write(self, data: Any) -> int:
        """Keep it until it is taken."""
        part = bytes(data)
        self._parts.append(part)
        self._written += len(part)
        return len(part)

    def tell(self) -> int:
        """How much was written in all."""
        return self._written

    def flush(self) -> None:
        """Nothing waits."""

    def take(self) -> bytes:
        """What was written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)

    def readable(self) -> bool:
        """Only written to."""
        return False

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Only forwards."""
        return False

    def close(self) -> None:
        """Nothing is held."""


class Parquet:
    """One result a row. Boxes, labels of the picture, codes and meta are JSON; `labels` and `models` are lists."""

    media_type, ending = "application/vnd.apache.parquet", "parquet"

    def __init__(self) -> None:
        try:
            self._arrow: Any = importlib.import_module("pyarrow")
            parquet: Any = importlib.import_module("pyarrow.parquet")
        except ModuleNotFoundError as error:
            raise InputError(
                "Parquet needs pyarrow, which is not installed here: pip install 'eyeline[parquet]', or take jsonl or csv"
            ) from error
        self._sink = _Sink()
        self._schema = _schema(self._arrow)
        self._writer: Any = parquet.ParquetWriter(self._sink, self._schema, compression="zstd")
        self._waiting: list[dict[str, Any]] = []

    def rows(self, results: Sequence[Result]) -> bytes:
        """A row group as soon as there are enough."""
        self._waiting += [_row(result) for result in results]
        if len(self._waiting) >= ROWS:
            self._group()
        return self._sink.take()

    def end(self) -> Iterator[bytes]:
        """The last rows, and where everything lies."""
        self._group()
        self._writer.close()
        yield self._sink.take()

    def close(self) -> None:
        """The writer, where the reader went away."""
        self._writer.close()

    def _group(self) -> None:
        if self._waiting:
            self._writer.write_table(self._arrow.Table.from_pylist(self._waiting, schema=self._schema))
            self._waiting = []


def _schema(arrow: Any) -> Any:
    text, moment = arrow.string(), arrow.timestamp("us", tz="UTC")
    return arrow.schema(
        [("id", text)]
        + [(name, text) for name in _TEXTS]
        + [(name, moment) for name in _TIMES]
        + [("sha256", text), ("width", arrow.int32()), ("height", arrow.int32()), ("format", text)]
        + [("bytes", arrow.int64()), ("labels", arrow.list_(text)), ("top_score", arrow.float64())]
        + [(name, text) for name in ("detections", "classifications", "codes")]
        + [("models", arrow.list_(text)), ("duplicate_of", text), ("meta", text)]
        + [("verdict", text), ("said", arrow.list_(text))]
    )


def _row(result: Result) -> dict[str, Any]:
    found = [(each.label, each.score) for each in result.detections]
    found += [(each.label, each.score) for each in result.classifications]
    image = result.image
    return {
        "id": result.id,
        **{name: getattr(result, name) for name in (*_TEXTS, *_TIMES)},
        **({} if image is None else {n: getattr(image, n) for n in ("sha256", "width", "height", "format", "bytes")}),
        "labels": sorted({label for label, _ in found}),
        "top_score": max((score for _, score in found), default=None),
        **{name: _json(getattr(result, name)) for name in ("detections", "classifications", "codes", "meta")},
        "models": [f"{model.name}@{model.version}" for model in result.models],
        "duplicate_of": result.duplicate_of,
        "verdict": result.verdict and result.verdict.kind,
        "said": labels_said(result),
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()

"""An evidence pack: results with their pictures, what people said of them, and what proves that nobody changed them since."""

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from typing import Any

import msgspec

from eyeline import __version__
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import InputError
from eyeline.core.types import Detection, Result
from eyeline.ops.audit import verifier
from eyeline.ops.audit.trail import block_line, checkpoint_line, record_line
from eyeline.pipeline.decode import decode
from eyeline.pipeline.drawing import encode_png, overlay
from eyeline.pipeline.headers import sniff
from eyeline.stores.blobs.base import BlobStore
from eyeline.stores.pictures import ORIGINAL, kept_picture, original_of
from eyeline.stores.results.base import Action, AlertQuery, ResultStore

#: Alerts that one result's record tells at most; as many rules would have to be about it.
MOST = 200
HOW = """This pack holds {count} and what shows that nobody changed them since they were recorded.

1. Every file is the one that was packed, and every record the one that was sealed:

       python3 verify.py .

   verify.py needs nothing but Python 3.9. Read it before you trust it.

2. That the block is one of the chain: where Eyeline runs,

       eyeline audit verify --checkpoint YOUR-CHECKPOINT.json

   checks the whole chain against a checkpoint that you keep elsewhere; `eyeline audit export` writes all of it. The hash of
   each block named in inclusion.jsonl must be the one that is in that export.

Packed by {by} on {at} with Eyeline {version}. The packing itself is recorded in the audit.
"""


async def pack(results: ResultStore, blobs: BlobStore, chosen: Sequence[Result], by: str) -> AsyncIterator[bytes]:
    """The pack's bytes as they are made, one result after the other. Whoever asks is in the audit before the first of them."""
    await results.record_action(Action(what="evidence", by=by, body={"ids": [result.id for result in chosen]}))
    out = _Out()
    made = _Pack(zipfile.ZipFile(out, "w"))
    for result in chosen:
        folder = result.id if len(chosen) > 1 else ""
        said = await results.verdicts(result.id)
        lines = await _lines(results, [result.id, *(record.id for record in said)])
        picture = await _picture(results, blobs, result)
        alerts, _ = await results.find_alerts(AlertQuery(result_id=result.id, limit=MOST))
        said_of = {"verdicts": msgspec.to_builtins(said), "alerts": msgspec.to_builtins(alerts)}
        await asyncio.to_thread(made.add, result, folder, picture, lines, said_of)
        yield out.taken()
    await asyncio.to_thread(made.finish, [checkpoint_line(body) for body in await results.checkpoints()], by)
    yield out.taken()


async def _picture(results: ResultStore, blobs: BlobStore, result: Result) -> tuple[bytes, str] | None:
    """What is kept of it, and whether that is the original."""
    if result.image is None:
        return None
    return await kept_picture(blobs, results, original_of(result.site, result.image))


async def _lines(results: ResultStore, ids: Sequence[str]) -> list[dict[str, Any]]:
    """What the audit has of them, each with the block that it is sealed in."""
    lines = []
    for record in await results.records(ids):
        line = record_line(record)
        if record.block is not None:
            line["proof"] = block_line((await results.blocks(record.block - 1, 1))[0])
        lines.append(line)
    return lines


async def prove(results: ResultStore, ident: str) -> dict[str, Any] | None:
    """What the audit says of a record now: where it is sealed, and whether that block still holds it. None where none is."""
    records = await results.records([ident])
    if not records:
        return None
    record, [line] = records[0], await _lines(results, [ident])
    told = {"seq": record.seq, "at": record.at, "body_sha256": record.body_sha256, "block": record.block}
    if record.block is None:
        return told | {"sealed_at": None, "hash": None, "position": None, "good": None}
    problems = verifier.proof_problems(line, line["proof"])
    proof = line["proof"]
    return told | {
        "position": record.position, "sealed_at": proof["sealed_at"], "hash": proof["hash"], "good": not problems
    }  # fmt: skip


class _Out(io.RawIOBase):
    """What a ZIP is written to: it cannot be sought in, and gives up its bytes as they come."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """What was written since."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


class _Pack:
    """The files of a pack, and the list of them."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._files: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []
        self._lines: list[dict[str, Any]] = []

    def add(
        self,
        result: Result,
        folder: str,
        picture: tuple[bytes, str] | None,
        lines: Sequence[dict[str, Any]],
        said_of: dict[str, Any],
    ) -> None:
        """In a thread: pictures are decoded and drawn on. The record is told as the audit commits to it; so is the original's
        digest, which what stands for it does not have: that is packed under a name that says what it is.
        """
        place = f"{folder}/" if folder else ""
        entry: dict[str, Any] = {"id": result.id, "folder": folder, "image": None}
        record = next((json.loads(line["body"]) for line in lines if line["id"] == result.id), None)
        told = {"result": record, "chain": msgspec.to_builtins(result.chain), **said_of}
        self._add(f"{place}record.json", json.dumps(told, indent=1).encode(), squeeze=True)
        self._lines += lines
        if picture is not None and result.image is not None:
            data, kept = picture
            if kept == ORIGINAL:
                entry["image"] = f"{place}original.{result.image.format}"
                self._add(entry["image"], data)
            else:
                self._add(f"{place}{kept}.{sniff(data)}", data)
            self._draw(f"{place}overlay.png", data, result, result.detections)
            if result.verdict is not None and result.verdict.detections is not None:
                self._draw(f"{place}corrected.png", data, result, result.verdict.detections)
        self._results.append(entry)

    def _draw(self, path: str, data: bytes, result: Result, boxes: Sequence[Detection]) -> None:
        try:
            pixels = decode(data).pixels
        except InputError:
            return  # what could not be decoded has no overlay; the bytes are there
        found = (boxes, result.classifications, result.codes)
        original = None if result.image is None else (result.image.width, result.image.height)
        self._add(path, encode_png(overlay(pixels, *found, original=original)))

    def finish(self, checkpoints: Sequence[dict[str, Any]], by: str) -> None:
        """What is about all of it."""
        at = isoformat(utcnow())
        count = f"{len(self._results)} result{'s' if len(self._results) != 1 else ''}"
        lines = b"".join(json.dumps(line).encode() + b"\n" for line in [*self._lines, *checkpoints])
        self._add("inclusion.jsonl", lines, squeeze=True)
        told = HOW.format(count=count, by=by or "somebody at this machine", at=at, version=__version__)
        self._add("verify.txt", told.encode())
        self._add("verify.py", files("eyeline.ops.audit").joinpath("verifier.py").read_bytes(), squeeze=True)
        manifest = {"eyeline": __version__, "at": at, "by": by, "results": self._results, "files": self._files}
        self._archive.writestr("manifest.json", json.dumps(manifest, indent=1))
        self._archive.close()

    def _add(self, path: str, data: bytes, *, squeeze: bool = False) -> None:
        self._archive.writestr(path, data, zipfile.ZIP_DEFLATED if squeeze else zipfile.ZIP_STORED)
        self._files.append({"path": path, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)})

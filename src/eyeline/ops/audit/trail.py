"""The audit read from the store, in the lines that an export has: what is checked here and what is checked outside is one."""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eyeline import __version__
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import ConfigError
from eyeline.ops.audit import verifier
from eyeline.ops.audit.sealer import Sealer
from eyeline.ops.audit.signing import load_key, signed_checkpoint
from eyeline.ops.audit.verifier import Report, Verifier
from eyeline.stores.results.base import AuditBlock, AuditRecord, ResultStore

#: Blocks asked for at a time, and about how many records.
BLOCKS, RECORDS = 200, 2000
#: Records that are not sealed yet: what a busy minute brings.
WAITING = 100_000
#: Results without a record that are named.
NAMED = 20

Line = dict[str, Any]


async def lines(results: ResultStore) -> AsyncIterator[list[Line]]:
    """All lines of an export, a few thousand at a time, while others go on recording.

    What is read as erased was erased by an action that is committed: it is among the records that are read after it.
    """
    yield [{"type": "export", "eyeline": __version__, "at": isoformat(utcnow())}]
    count, last = 0, -1
    while True:
        async for blocks, part in _sealed(results, last):
            yield part
            count, last = count + len(blocks), blocks[-1].number
        waiting = await results.unsealed(WAITING, bodies=True)
        homeless = await results.sealed(last + 1, last + 1)
        if not await results.blocks(last, 1):  # otherwise these records may be in that block
            break
    yield [record_line(record) for record in homeless]
    yield [record_line(record) for record in waiting]
    yield [checkpoint_line(body) for body in await results.checkpoints()]
    what = "no record commits to result {}: it was put in by hand"
    yield [{"type": "problem", "what": what.format(ident)} for ident in await results.unaudited(NAMED)]
    yield [{"type": "end", "blocks": count}]


async def _sealed(results: ResultStore, last: int) -> AsyncIterator[tuple[list[AuditBlock], list[Line]]]:
    """The blocks behind `last`, each followed by its records."""
    while blocks := await results.blocks(last, BLOCKS):
        for part in _parts(blocks):
            records = await results.sealed(part[0].number, part[-1].number)
            yield part, _woven(part, records)
        last = blocks[-1].number


def _parts(blocks: Iterable[AuditBlock]) -> list[list[AuditBlock]]:
    """Together as many as make a good page of records."""
    parts: list[list[AuditBlock]] = [[]]
    held = 0
    for block in blocks:
        if parts[-1] and held + block.count > RECORDS:
            parts.append([])
            held = 0
        parts[-1].append(block)
        held += block.count
    return parts


def _woven(blocks: Sequence[AuditBlock], records: Sequence[AuditRecord]) -> list[Line]:
    """Records that say they are of a block that is not there come where it should be."""
    made: list[Line] = []
    at = 0
    for block in blocks:
        made.append(block_line(block))
        while at < len(records) and (records[at].block or 0) <= block.number:
            made.append(record_line(records[at]))
            at += 1
    return made


def block_line(block: AuditBlock) -> Line:
    """A block as an export tells it."""
    return {"type": "block", **asdict(block), "leaves": block.leaves.hex()}


def record_line(record: AuditRecord) -> Line:
    """A record as an export tells it."""
    return {
        "type": "record",
        "block": record.block,
        "position": record.position,
        "seq": record.seq,
        "id": record.id,
        "kind": record.kind,
        "at": record.at,
        "salt": _hex(record.salt),
        "body_sha256": record.body_sha256,
        "body": None if record.body is None else record.body.decode(errors="replace"),
    }


def _hex(salt: Any) -> str | None:
    """SQLite keeps whatever somebody puts into a column."""
    return salt.hex() if isinstance(salt, bytes) else None


def checkpoint_line(body: bytes) -> Line:
    """A checkpoint that is kept in the database, as an export tells it."""
    try:
        line = json.loads(body)
    except ValueError:
        line = None
    return (
        line if isinstance(line, dict) else {"type": "problem", "what": "a checkpoint in the database cannot be read"}
    )


async def verify(results: ResultStore, checkpoints: Iterable[Line] = (), key: str | None = None) -> Report:
    """Check everything that is recorded, against checkpoints kept outside."""
    check = Verifier(checkpoints, key)
    async for part in lines(results):
        for line in part:
            check.take(line)
    return check.finish()


def verify_file(path: Path, checkpoints: Iterable[Line] = (), key: str | None = None) -> Report:
    """The same of an export. Blocks."""
    check = Verifier(checkpoints, key)
    for line in verifier.lines_of(str(path)):
        check.take(line)
    return check.finish()


async def export(results: ResultStore, path: Path) -> int:
    """Write an export; returns how many lines. The file is there whole or not at all. Raises ConfigError."""
    part = path.with_name(f".{path.name}.part")
    count = 0
    try:
        with part.open("w", encoding="utf-8") as file:
            async for some in lines(results):
                file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in some)
                count += len(some)
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; name another file") from error
    finally:
        part.unlink(missing_ok=True)
    return count


async def checkpoint(results: ResultStore, key: Path) -> Line:
    """Seal what waits, sign the newest block, keep a copy in the database. Raises ConfigError where nothing is sealed."""
    seed = load_key(key)
    await Sealer(results, lease=0.0).seal_all()  # or whoever has the lease does
    last = await results.last_block()
    if last is None:
        raise ConfigError("nothing is recorded yet; make a checkpoint after the first result")
    at = isoformat(utcnow())
    made = signed_checkpoint(seed, last.number, last.size, last.hash, at)
    await results.add_checkpoint(last.number, at, json.dumps(made).encode())
    return made


def outside(paths: Iterable[Path]) -> list[Line]:
    """The checkpoints in these files. Raises ConfigError."""
    try:
        return [line for path in paths for line in verifier.lines_of(str(path))]
    except OSError as error:
        raise ConfigError(f"the checkpoint {error.filename} cannot be read: {error.strerror}") from error

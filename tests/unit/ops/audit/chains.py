"""A small chain, as an export has it, and ways to change it."""

import json
import random
from collections.abc import Sequence
from typing import Any

from eyeline.ops.audit.sealer import next_block
from eyeline.ops.audit.signing import signed_checkpoint
from eyeline.ops.audit.verifier import Report, Verifier, body_hash
from eyeline.stores.results.base import AuditBlock, AuditRecord

Line = dict[str, Any]
SEED = bytes(range(32))
#: Blocks, and records in each.
BLOCKS, EACH = 4, 10


def record(seq: int, rng: random.Random) -> AuditRecord:
    salt = rng.randbytes(16)
    body = json.dumps({"id": f"r{seq:04d}", "label": rng.choice(["damaged", "intact"]), "score": rng.random()}).encode()
    at = f"2026-03-04T12:00:{seq % 60:02d}.000000Z"
    return AuditRecord(
        seq=seq, id=f"r{seq:04d}", kind="result", at=at, salt=salt, body_sha256=body_hash(salt, body), body=body
    )


def chain(seed: int = 1, blocks: int = BLOCKS, each: int = EACH) -> list[Line]:
    """An export of `blocks` blocks."""
    rng = random.Random(seed)
    last: AuditBlock | None = None
    made: list[Line] = [{"type": "export"}]
    for number in range(blocks):
        records = [record(number * each + index + 1, rng) for index in range(each)]
        last = next_block(last, records, f"2026-03-04T12:01:{number:02d}.000000Z")
        made.append(block_line(last))
        made += [record_line(one, number, index) for index, one in enumerate(records)]
    return [*made, {"type": "end", "blocks": blocks}]


def block_line(block: AuditBlock) -> Line:
    return {
        "type": "block",
        "number": block.number,
        "previous": block.previous,
        "count": block.count,
        "size": block.size,
        "sealed_at": block.sealed_at,
        "root": block.root,
        "hash": block.hash,
        "leaves": block.leaves.hex(),
    }


def record_line(one: AuditRecord, block: int | None, position: int | None) -> Line:
    return {
        "type": "record",
        "block": block,
        "position": position,
        "seq": one.seq,
        "id": one.id,
        "kind": one.kind,
        "at": one.at,
        "salt": one.salt.hex(),
        "body_sha256": one.body_sha256,
        "body": None if one.body is None else one.body.decode(),
    }


def checkpoint_of(lines: Sequence[Line]) -> Line:
    """What a person keeps outside of the newest block."""
    last = [line for line in lines if line["type"] == "block"][-1]
    return signed_checkpoint(SEED, last["number"], last["size"], last["hash"], "2026-03-04T12:02:00.000000Z")


def checked(lines: Sequence[Line], *checkpoints: Line, key: str | None = None) -> Report:
    verifier = Verifier(checkpoints, key)
    for line in lines:
        verifier.take(line)
    return verifier.finish()


def flipped(value: Any, rng: random.Random) -> Any:
    """The value with one bit the other way."""
    if isinstance(value, int):
        return value ^ (1 << rng.randrange(20))
    if isinstance(value, bytes):
        return flipped_bytes(value, rng)
    return flipped_bytes(value.encode("latin-1"), rng).decode("latin-1")


def flipped_bytes(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]

"""Checks an export of Eyeline's audit. One file, any Python from 3.9 on, nothing but its standard library.

    python3 verify.py export.jsonl [checkpoint.json ...] [--key PUBLIC-KEY]
    python3 verify.py evidence-folder

Read it before you trust it; it is meant to be read. A record is committed to by its leaf, a block by the Merkle root of
its leaves, the chain by each block's hash of the one before. What is written after the last checkpoint that you keep
outside can be cut off or written anew by whoever holds the database: nothing inside can show that.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

NOWHERE = "0" * 64  # what the first block follows on
#: Problems that are told one by one; the others are counted.
TOLD = 100

# ---------------------------------------------------------------- hashes (RFC 6962: 0x00 before a leaf, 0x01 before a node)


def leaf_hash(seq: int, ident: str, kind: str, at: str, body_sha256: str) -> bytes:
    """The commitment to a record: each field with its length before it, so that no two records read alike."""
    fields = (str(seq).encode(), ident.encode(), kind.encode(), at.encode(), body_sha256.encode())
    return hashlib.sha256(b"\0" + b"".join([len(field).to_bytes(4, "big") + field for field in fields])).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962's tree hash. Pairs level by level, the odd one out goes up as it is: the same tree as its recursive form."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = list(leaves)
    while len(level) > 1:
        pairs = [hashlib.sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) - len(level) % 2 :]
    return level[0]


def block_hash(number: int, previous: str, count: int, size: int, sealed_at: str, root: str) -> str:
    """What the next block, and every checkpoint, holds on to."""
    lines = ("eyeline audit block v1", number, previous, count, size, sealed_at, root, "")
    return hashlib.sha256(b"\2" + "\n".join(map(str, lines)).encode()).hexdigest()


def body_hash(salt: bytes, body: bytes) -> str:
    """What a record says of its body. Without the salt nobody can try bodies until one fits."""
    return hashlib.sha256(salt + body).hexdigest()


def checkpoint_text(block: int, size: int, block_hash: str, at: str) -> bytes:
    """What is signed."""
    return "\n".join(map(str, ("eyeline audit checkpoint v1", block, size, block_hash, at, ""))).encode()


# ---------------------------------------------------------------- ed25519 (RFC 8032, section 5.1; not in constant time)
_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493  # the order of the base point
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)  # a square root of -1


def add(p: Any, q: Any) -> Any:
    """The sum of two points, in extended homogeneous coordinates."""
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def multiply(number: int, point: Any) -> Any:
    """The point so many times."""
    total = (0, 1, 1, 0)
    while number:
        if number & 1:
            total = add(total, point)
        point = add(point, point)
        number >>= 1
    return total


def compress(point: Any) -> bytes:
    """A point's 32 bytes."""
    inverse = pow(point[2], _P - 2, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    packed: int = y | (x & 1) << 255
    return packed.to_bytes(32, "little")


def decompress(data: bytes) -> Any:
    """The point behind 32 bytes, or None where there is none."""
    y = int.from_bytes(data, "little")
    odd, y = y >> 255, y & ((1 << 255) - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (x == 0 and odd):
        return None
    x = _P - x if (x & 1) != odd else x
    return x, y, 1, x * y % _P


def number_of(*parts: bytes) -> int:
    """SHA-512 as a number below the order of the base point."""
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % _L


BASE = decompress((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))


def signature_is_good(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the owner of the key signed the message."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, nonce = decompress(public), decompress(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if key is None or nonce is None or s >= _L:
        return False
    left = multiply(s, BASE)
    right = add(nonce, multiply(number_of(signature[:32], public, message), key))
    crossed = ((left[0] * right[2] - right[0] * left[2]) % _P, (left[1] * right[2] - right[1] * left[2]) % _P)
    return crossed == (0, 0)


# ---------------------------------------------------------------- the check


class Problem(NamedTuple):
    """What is wrong, and where: block and position are None where it is not about one."""

    block: int | None
    position: int | None
    what: str

    def __str__(self) -> str:
        place = "" if self.block is None else f"block {self.block}"
        place += "" if self.position is None else f", position {self.position}"
        return f"{place}: {self.what}" if place else self.what


class Report(NamedTuple):
    """What was found. `good` says that everything that can be checked holds."""

    records: int
    blocks: int
    erased: int
    unsealed: int
    checkpoints: int  # that came from outside
    last_hash: str
    problems: list[Problem]
    more: int  # problems beyond those told

    @property
    def good(self) -> bool:
        return not self.problems


class Verifier:
    """Takes the lines of an export in their order. `checkpoints` are those kept outside; `key` is the public key (hex) that must
    have signed them.
    """

    def __init__(self, checkpoints: Iterable[dict[str, Any]] = (), key: str | None = None) -> None:
        self._outside = list(checkpoints)
        self._inside: list[dict[str, Any]] = []
        self._key = key
        self._hashes: dict[int, tuple[str, int]] = {}  # block → its hash, and how many records end there
        self._problems: list[Problem] = []
        self._more = 0
        self._blocks = self._records = self._unsealed = 0
        self._size = 0  # as the block before says
        self._last = NOWHERE
        self._last_number = -1
        self._block: dict[str, Any] | None = None
        self._held: list[dict[str, Any]] = []
        self._erased: dict[str, Problem] = {}
        self._erasures: set[str] = set()
        self._ended = False

    def take(self, line: dict[str, Any]) -> None:
        """One line of the export."""
        kind = line.get("type")
        if kind == "record" and line.get("block") is not None:
            self._held.append(line)
        elif kind == "record":
            self._close()
            self._unsealed += 1
            self._check_body(line)
        elif kind == "block":
            self._close()
            self._block = line
        elif kind == "checkpoint":
            self._inside.append(line)
        elif kind == "problem":  # what whoever made the lines saw already
            self._tell(None, None, str(line.get("what")))
        elif kind == "end":
            self._close()
            self._ended = True
            if line.get("blocks") != self._blocks:
                self._tell(None, None, f"the export had {line.get('blocks')} blocks, and {self._blocks} are in it")
        elif kind != "export":
            self._tell(None, None, f"a line of type {kind!r} is none of an export")

    def finish(self) -> Report:
        """After the last line."""
        self._close()
        if not self._ended:
            self._tell(None, None, "the export has no end: it was cut off")
        for ident, problem in self._erased.items():
            if ident not in self._erasures:
                self._tell(*problem)
        for item in self._inside:
            self._check_checkpoint(item, inside=True)
        for item in self._outside:
            self._check_checkpoint(item, inside=False)
        return Report(
            records=self._records,
            blocks=self._blocks,
            erased=len(self._erased),
            unsealed=self._unsealed,
            checkpoints=len(self._outside),
            last_hash=self._last,
            problems=sorted(self._problems, key=_place),
            more=self._more,
        )

    def _tell(self, block: Any, position: Any, what: str) -> None:
        if len(self._problems) < TOLD:
            self._problems.append(Problem(block, position, what))
        else:
            self._more += 1

    # blocks
    def _close(self) -> None:
        """All records of the block that is open have come."""
        block, held = self._block, self._held
        self._block, self._held = None, []
        if block is None:
            for record in held:
                self._tell(record.get("block"), record.get("position"), f"record {record.get('id')!r} is of no block")
            return
        try:
            self._check_header(block)
            self._check_records(block, held)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._tell(block.get("number"), None, f"cannot be read: {type(error).__name__}: {error}")
        self._blocks += 1
        self._records += len(held)
        number, size = block.get("number"), block.get("size")
        self._last = str(block.get("hash"))
        self._last_number = number if isinstance(number, int) else self._last_number + 1
        self._size = size if isinstance(size, int) else self._size + len(held)
        self._hashes[self._last_number] = (self._last, self._size)

    def _check_header(self, block: dict[str, Any]) -> None:
        number = block["number"]
        names = ("number", "previous", "count", "size", "sealed_at", "root")
        if block_hash(*[block[name] for name in names]) != block["hash"]:
            self._tell(number, None, "its header is not what its hash says: one of them was altered")
        if number != self._last_number + 1:
            self._tell(number, None, f"does not follow: block {self._last_number + 1} is missing or out of place")
        elif block["previous"] != self._last:
            self._tell(number, None, "does not hold the hash of the block before it: one of the two was altered")
        if block["size"] != self._size + block["count"]:
            self._tell(number, None, f"says that {block['size']} records end there; {self._size} came before it")

    def _check_records(self, block: dict[str, Any], held: list[dict[str, Any]]) -> None:
        number, root = block["number"], block["root"]
        found = [self._check_record(record, number) for record in held]
        data = unhex(block["leaves"])
        leaves = [data[start : start + 32] for start in range(0, len(data), 32)]
        in_order = [record.get("position") for record in held] == list(range(len(held)))
        if found == leaves and in_order and merkle_root(leaves).hex() == root and block["count"] == len(leaves):
            return
        if merkle_root(leaves).hex() == root and len(leaves) == block["count"]:
            if not self._name(number, held, found, leaves):
                self._tell(number, None, "its records are not in their order")
        elif merkle_root([leaf or b"" for leaf in found]).hex() == root and in_order:
            self._tell(
                number, None, "the list of its leaves or its count was altered; its records are as they were sealed"
            )
        else:
            self._tell(
                number, None, "neither its records nor its list of leaves give its root: more than one was altered"
            )

    def _name(self, number: int, held: list[Any], found: list[bytes | None], leaves: list[bytes]) -> bool:
        """The leaves are those that were sealed: tell each record that is missing, altered, or too many. Whether any is."""
        there: dict[Any, int] = {}
        before = len(self._problems) + self._more
        for index, record in enumerate(held):
            place = record.get("position")
            if not isinstance(place, int) or not 0 <= place < len(leaves) or place in there:
                self._tell(
                    number, place, f"record {record.get('id')!r} was put in: there is no such place, or it is taken"
                )
            else:
                there[place] = index
        for place, leaf in enumerate(leaves):
            if place not in there:
                self._tell(number, place, "the record that was sealed here is missing")
            elif found[there[place]] != leaf:
                ident = held[there[place]].get("id")
                self._tell(number, place, f"record {ident!r} is not the one that was sealed here")
        return len(self._problems) + self._more > before

    # records
    def _check_record(self, record: dict[str, Any], block: int) -> bytes | None:
        """Its leaf; None where it has none."""
        self._check_body(record)
        try:
            if record["block"] != block:
                self._tell(
                    block, record.get("position"), f"record {record['id']!r} says it is of block {record['block']}"
                )
            return leaf_hash(record["seq"], record["id"], record["kind"], record["at"], record["body_sha256"])
        except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
            return None

    def _check_body(self, record: dict[str, Any]) -> None:
        """The body is what the record commits to, or was erased."""
        block, position, ident = record.get("block"), record.get("position"), record.get("id")
        try:
            salt, body = unhex(record["salt"]), record["body"]
            if not salt and body is None:
                what = f"the body of record {ident!r} is gone, and no recorded action erased it"
                self._erased[record["id"]] = Problem(block, position, what)
            elif not salt:
                self._tell(block, position, f"record {ident!r} has a body and no salt")
            elif body is None:
                self._tell(block, position, f"the body of record {ident!r} is missing; it was not erased")
            elif body_hash(salt, body.encode()) != record["body_sha256"]:
                self._tell(block, position, f"the body, salt or digest of record {ident!r} was altered")
            elif record["kind"] == "action":
                self._note(json.loads(body))
        except (KeyError, TypeError, ValueError, AttributeError):
            self._tell(block, position, f"record {ident!r} cannot be read")

    def _note(self, action: Any) -> None:
        if isinstance(action, dict) and action.get("what") == "erase":
            self._erasures.update(action["ids"])

    # checkpoints
    def _check_checkpoint(self, item: dict[str, Any], *, inside: bool) -> None:
        name = f"the checkpoint of block {item.get('block')}{' in the export' if inside else ''}"
        try:
            block, size, sealed = item["block"], item["size"], item["hash"]
            text = checkpoint_text(block, size, sealed, item["at"])
            good = signature_is_good(unhex(item["key"]), text, unhex(item["signature"]))
        except (KeyError, TypeError, ValueError) as error:
            self._tell(None, None, f"{name} cannot be read: {type(error).__name__}: {error}")
            return
        if not good:
            self._tell(block, None, f"{name} was altered: its signature does not fit")
        elif self._key is not None and item["key"] != self._key:
            self._tell(block, None, f"{name} was signed by another key ({item['key']})")
        elif block not in self._hashes:
            end = f"the chain ends at block {self._last_number}"
            self._tell(block, None, f"{name} is ahead of the chain: {end}, its end was cut off")
        elif self._hashes[block] != (sealed, size):
            self._tell(block, None, f"{name} names another block: the chain was written anew, up to there at least")


def _place(problem: Problem) -> tuple[int, int]:
    """Problems in the order of the chain, those of no place last."""
    block, position = problem.block, problem.position
    return block if isinstance(block, int) else 1 << 62, position if isinstance(position, int) else -1


def unhex(text: str) -> bytes:
    """The bytes; there is one way to write them, so that no letter can be changed unseen. Raises ValueError."""
    data = bytes.fromhex(text)
    if data.hex() != text:
        raise ValueError(f"{text[:20]!r} is not hexadecimal in small letters")
    return data


# ---------------------------------------------------------------- an evidence pack: some records, each with its block


def proof_problems(record: dict[str, Any], proof: dict[str, Any] | None) -> list[str]:
    """What is wrong with a record and the block that it brings along (None: it is not sealed yet)."""
    ident, problems = record["id"], []
    if body_hash(unhex(record["salt"]), record["body"].encode()) != record["body_sha256"]:
        problems.append(f"the body of record {ident} was altered")
    if proof is None:
        return problems
    leaf = leaf_hash(*[record[name] for name in ("seq", "id", "kind", "at", "body_sha256")])
    data = unhex(proof["leaves"])
    leaves = [data[start : start + 32] for start in range(0, len(data), 32)]
    header = [proof[name] for name in ("number", "previous", "count", "size", "sealed_at", "root")]
    if leaves[record["position"]] != leaf or merkle_root(leaves).hex() != proof["root"]:
        problems.append(f"record {ident} is not the one that was sealed in block {proof['number']}")
    if block_hash(*header) != proof["hash"]:
        problems.append(f"the header of block {proof['number']} was altered")
    return problems


class Evidence:
    """Checks an unpacked pack: its files are those of its manifest, and its records those of the blocks that it brings along."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bodies: dict[str, str] = {}
        self.problems: list[str] = []
        self.files = self.records = self.unsealed = 0

    def check(self) -> None:
        """Everything, into `problems`."""
        try:
            manifest = json.loads((self._folder / "manifest.json").read_bytes())
            for entry in manifest["files"]:
                self._check_file(entry)
            for line in lines_of(str(self._folder / "inclusion.jsonl")):
                self._check_line(line)
            for entry in manifest["results"]:
                self._check_result(entry)
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            self.problems.append(f"the pack cannot be read: {type(error).__name__}: {error}")

    def _check_file(self, entry: dict[str, Any]) -> None:
        path = self._folder / entry["path"]
        if ".." in path.parts or not path.is_file():
            self.problems.append(f"{entry['path']} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            self.problems.append(f"{entry['path']} is not the file that was packed")
        self.files += 1

    def _check_line(self, line: dict[str, Any]) -> None:
        if line.get("type") == "record":
            self._check_record(line, line.get("proof"))
        elif line.get("type") != "checkpoint":
            self.problems.append(f"a line of type {line.get('type')!r} is none of a pack")

    def _check_record(self, record: dict[str, Any], proof: dict[str, Any] | None) -> None:
        """Its body is what it commits to; where it is sealed, its leaf is the block's, and the root and hash follow."""
        self.records += 1
        self._bodies[record["id"]] = record["body"]
        self.unsealed += proof is None
        self.problems += proof_problems(record, proof)

    def _check_result(self, entry: dict[str, Any]) -> None:
        """The picture and the record beside it are those that the audit commits to."""
        folder, ident = self._folder / entry["folder"], entry["id"]
        if ident not in self._bodies:
            self.problems.append(f"no record of the audit commits to result {ident}")
        elif json.loads((folder / "record.json").read_bytes())["result"] != json.loads(self._bodies[ident]):
            self.problems.append(f"record.json of result {ident} is not what the audit commits to")
        elif entry.get("image"):
            told = json.loads(self._bodies[ident])["image"]["sha256"]
            if hashlib.sha256((self._folder / entry["image"]).read_bytes()).hexdigest() != told:
                self.problems.append(f"the picture of result {ident} is not the one that was looked at")

    def told(self) -> str:
        """In words."""
        word = "BAD" if self.problems else "GOOD"
        end = f"{word}: {self.files} files, {self.records} records, {self.unsealed} not sealed yet"
        note = "That a block is one of the chain shows the hash that a checkpoint, or `eyeline audit verify`, names for it."
        return "\n".join([*self.problems, end, note]) + "\n"


# ---------------------------------------------------------------- the command


def lines_of(path: str) -> Iterator[dict[str, Any]]:
    """An export's lines; one that cannot be read comes as a problem."""
    with Path(path).open("rb") as file:
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            yield line if isinstance(line, dict) else {"type": "problem", "what": f"line {number} cannot be read"}


def told(report: Report) -> str:
    """The report in words."""
    lines = [str(problem) for problem in report.problems]
    lines += [f"and {report.more} problems more"] if report.more else []
    lines.append(
        f"{'GOOD' if report.good else 'BAD'}: {report.records} records in {report.blocks} blocks, {report.erased} erased, "
        f"{report.unsealed} not sealed yet; {report.checkpoints} checkpoints from outside"
    )
    if not report.checkpoints:
        lines.append("Without a checkpoint kept outside, an end cut off and a chain written anew cannot be seen.")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """0: good; 1: something was altered; 2: cannot be checked."""
    parser = argparse.ArgumentParser(description="Checks an export of Eyeline's audit.")
    parser.add_argument("export", help="an export, or the folder of an evidence pack")
    parser.add_argument("checkpoints", nargs="*", help="files with checkpoints that were kept outside")
    parser.add_argument("--key", help="the public key, in hex, that must have signed them")
    asked = parser.parse_args(arguments)
    if Path(asked.export).is_dir():
        evidence = Evidence(Path(asked.export))
        evidence.check()
        sys.stdout.write(evidence.told())
        return 1 if evidence.problems else 0
    try:
        checkpoints = [line for path in asked.checkpoints for line in lines_of(path)]
        verifier = Verifier(checkpoints, asked.key)
        for line in lines_of(asked.export):
            verifier.take(line)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    report = verifier.finish()
    sys.stdout.write(told(report))
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())

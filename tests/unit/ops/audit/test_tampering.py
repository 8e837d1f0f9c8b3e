"""The tamper table: 1,000 random records, each of them changed in every way there is; each change found, and where it is.

What only a checkpoint kept outside can show (an end cut off, a chain written anew) is asserted both ways: seen with it, not
seen without.
"""

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from eyeline.ops.audit.sealer import next_block
from eyeline.ops.audit.signing import public_key
from eyeline.ops.audit.verifier import Report, body_hash
from eyeline.stores.results.base import AuditBlock
from tests.unit.ops.audit.chains import (
    EACH,
    SEED,
    Line,
    block_line,
    chain,
    checked,
    checkpoint_of,
    flipped,
    record,
    record_line,
)

TRIALS = 1000
FIELDS = ("block", "position", "seq", "id", "kind", "at", "salt", "body_sha256", "body")

Change = Callable[[list[Line], int, random.Random], None]


def _flip(field: str) -> Change:
    def change(lines: list[Line], index: int, rng: random.Random) -> None:
        lines[index] = {**lines[index], field: flipped(lines[index][field], rng)}

    return change


def _delete(lines: list[Line], index: int, rng: random.Random) -> None:
    del lines[index]


def _swap_lines(lines: list[Line], index: int, rng: random.Random) -> None:
    other = _other(lines, index, rng)
    lines[index], lines[other] = lines[other], lines[index]


def _swap_places(lines: list[Line], index: int, rng: random.Random) -> None:
    """Each says that it is where the other was."""
    other = _other(lines, index, rng)
    places = [{name: lines[each][name] for name in ("block", "position")} for each in (index, other)]
    lines[index], lines[other] = {**lines[other], **places[0]}, {**lines[index], **places[1]}


def _insert(lines: list[Line], index: int, rng: random.Random) -> None:
    place = lines[index]
    lines.insert(index, record_line(record(7777, rng), place["block"], place["position"]))


def _double(lines: list[Line], index: int, rng: random.Random) -> None:
    lines.insert(index, lines[index])


def _replace(lines: list[Line], index: int, rng: random.Random) -> None:
    """Another body, with salt and digest to match."""
    place = lines[index]
    lines[index] = record_line(record(place["seq"], rng), place["block"], place["position"])


def _wipe(lines: list[Line], index: int, rng: random.Random) -> None:
    """Made to look erased."""
    lines[index] = {**lines[index], "salt": "", "body": None}


def _lose_body(lines: list[Line], index: int, rng: random.Random) -> None:
    lines[index] = {**lines[index], "body": None}


CHANGES: dict[str, Change] = {
    **{f"flip {field}": _flip(field) for field in FIELDS},
    "delete": _delete,
    "swap lines": _swap_lines,
    "swap places": _swap_places,
    "insert": _insert,
    "double": _double,
    "replace": _replace,
    "wipe": _wipe,
    "lose body": _lose_body,
}


def _other(lines: list[Line], index: int, rng: random.Random) -> int:
    others = [at for at, line in enumerate(lines) if line["type"] == "record" and at != index]
    return rng.choice(others)


def places(report: Report) -> set[tuple[int | None, int | None]]:
    return {(problem.block, problem.position) for problem in report.problems}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_one_record_is_found_and_located(change: str) -> None:
    rng, whole = random.Random(change), chain()
    indices = [index for index, line in enumerate(whole) if line["type"] == "record"]
    missed = []
    for _ in range(TRIALS):
        lines, index = list(whole), rng.choice(indices)
        at = whole[index]["block"], whole[index]["position"]
        CHANGES[change](lines, index, rng)
        report = checked(lines)
        located = at in places(report) or (change == "swap lines" and at[0] in {block for block, _ in places(report)})
        if report.good or not located:
            missed.append((at, report.problems))
    assert missed == []


def test_an_untouched_chain_is_good() -> None:
    report = checked(chain(), checkpoint_of(chain()))
    assert (report.good, report.records, report.blocks, report.checkpoints) == (True, 40, 4, 1)


@pytest.mark.parametrize("field", ["number", "previous", "count", "size", "sealed_at", "root", "hash", "leaves"])
def test_a_flipped_bit_of_a_block_is_found_and_located(field: str) -> None:
    rng, whole = random.Random(field), chain()
    indices = [index for index, line in enumerate(whole) if line["type"] == "block"]
    for _ in range(100):
        lines, index = list(whole), rng.choice(indices)
        lines[index] = {**lines[index], field: flipped(lines[index][field], rng)}
        report = checked(lines)
        assert {lines[index]["number"], whole[index]["number"]} & {problem.block for problem in report.problems}


@pytest.mark.parametrize("number", range(3))
def test_a_missing_block_is_found_with_its_records_and_without(number: int) -> None:
    whole = chain()
    without = [line for line in whole if number not in (line.get("number"), line.get("block"))]
    assert not checked(without).good
    alone = [line for line in whole if line.get("number") != number]
    assert not checked(alone).good


@pytest.mark.parametrize("number", range(3))
def test_a_block_made_anew_whole_does_not_fit_the_next_one(number: int) -> None:
    whole, rng = chain(), random.Random(number)
    start, end = 1 + number * (EACH + 1), 1 + (number + 1) * (EACH + 1)
    records = [record(number * EACH + index + 1, rng) for index in range(EACH)]
    before = None
    if number:
        told = {name: value for name, value in whole[start - EACH - 1].items() if name != "type"}
        before = AuditBlock(**{**told, "leaves": b""})
    forged = next_block(before, records, whole[start]["sealed_at"])
    lines = [block_line(forged), *(record_line(each, number, place) for place, each in enumerate(records))]
    report = checked([*whole[:start], *lines, *whole[end:]])
    assert places(report) == {(number + 1, None)}


@pytest.mark.parametrize("field", ["block", "size", "hash", "at", "key", "signature"])
def test_a_flipped_bit_of_a_checkpoint_is_found(field: str) -> None:
    whole, rng = chain(), random.Random(field)
    kept = checkpoint_of(whole)
    for _ in range(10):
        assert not checked(whole, {**kept, field: flipped(kept[field], rng)}).good


def test_a_checkpoint_signed_by_another_key_is_refused_where_the_key_is_known() -> None:
    whole = chain()
    assert checked(whole, checkpoint_of(whole), key=public_key(SEED).hex()).good
    assert "another key" in str(checked(whole, checkpoint_of(whole), key=public_key(bytes(32)).hex()).problems[0])


@pytest.mark.parametrize("left", [1, 2, 3])
def test_an_end_cut_off_is_seen_only_with_a_checkpoint_from_outside(left: int) -> None:
    whole = chain()
    cut = [*whole[: 1 + left * (EACH + 1)], {"type": "end", "blocks": left}]
    assert checked(cut).good
    report = checked(cut, checkpoint_of(whole))
    assert f"the chain ends at block {left - 1}" in str(report.problems[0])


def test_a_chain_written_anew_is_seen_only_with_a_checkpoint_from_outside() -> None:
    whole, forged = chain(), chain(seed=2)
    assert checked(forged).good
    assert "written anew" in str(checked(forged, checkpoint_of(whole)).problems[0])


def test_what_is_sealed_after_the_checkpoint_may_grow() -> None:
    assert checked(chain(blocks=5), checkpoint_of(chain(blocks=4))).good


def test_an_export_that_was_cut_off_says_so() -> None:
    assert "no end" in str(checked(chain()[:-1]).problems[-1])


def test_problems_are_told_from_the_first_bad_record_on() -> None:
    lines = chain()
    for index in (40, 25, 3):
        lines[index] = {**lines[index], "body": "{}"}
    assert [problem.block for problem in checked(lines).problems] == [0, 2, 3]


def erased_chain(*actions: str) -> list[Line]:
    """Records 1 and 2 without salt and body, and an action that names those of `actions`."""
    rng = random.Random(5)
    records = [record(seq, rng) for seq in range(1, 4)]
    body = json.dumps({"what": "erase", "ids": actions}).encode()
    action = record(4, rng)
    action = replace(action, id="a1", kind="action", body=body, body_sha256=body_hash(action.salt, body))
    block = next_block(None, [*records, action], "2026-03-04T12:01:00.000000Z")
    lines = [block_line(block), *(record_line(each, 0, place) for place, each in enumerate([*records, action]))]
    for index in (1, 2):
        lines[index].update(salt="", body=None)
    return [*lines, {"type": "end", "blocks": 1}]


def test_what_an_action_erased_is_accepted_and_counted() -> None:
    report = checked(erased_chain("r0001", "r0002"))
    assert (report.good, report.erased) == (True, 2)


def test_what_no_action_erased_is_named() -> None:
    report = checked(erased_chain("r0001"))
    assert places(report) == {(0, 1)}

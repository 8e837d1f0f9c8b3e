"""A commit never passes what is unfinished, whatever the order in which work ends."""

from hypothesis import given
from hypothesis import strategies as st

from eyeline.queues.offsets import Offsets


def test_a_gap_holds_the_commit_back() -> None:
    offsets = Offsets()
    for offset in (5, 6, 9):  # offsets of Kafka have holes
        offsets.read(offset)
    assert offsets.finish(9) is None
    assert offsets.finish(6) is None
    assert offsets.finished == 2
    assert offsets.finish(5) == 10
    assert offsets.finished == 0


def test_finishing_twice_is_finishing_once() -> None:
    offsets = Offsets()
    offsets.read(1)
    offsets.read(2)
    assert offsets.finish(1) == 2
    assert offsets.finish(1) is None
    assert offsets.finished == 0


@given(st.permutations(range(12)))
def test_the_position_is_that_of_the_first_unfinished_one(order: list[int]) -> None:
    offsets = Offsets()
    for offset in range(12):
        offsets.read(offset)
    done: set[int] = set()
    committed = 0
    for offset in order:
        position = offsets.finish(offset)
        done.add(offset)
        committed = position if position is not None else committed
        assert committed == next(number for number in range(13) if number not in done)

"""Whose turn it is."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from eyeline.queues.turns import Turns, in_turn, lane_of, next_turn


def test_the_lane_stands_at_the_end_of_the_topic() -> None:
    assert lane_of("parcels.v2.bulk") == "bulk"
    assert lane_of("bulk.live") == "live"
    assert lane_of("whatever") == "live"


def test_live_and_bulk_share_four_to_one_whatever_the_limit() -> None:
    turns: Turns[str] = Turns()
    picked: list[str] = []
    for limit in (1, 2, 3, 4, 5, 10):
        picked += turns.pick({"p.live": ["L"] * 20, "p.bulk": ["B"] * 20}, limit)
    assert Counter(picked) == {"L": 20, "B": 5}


def test_a_bulk_message_is_not_starved_by_single_picks() -> None:
    turns: Turns[str] = Turns()
    picked = [turns.pick({"p.live": ["L"], "p.bulk": ["B"]}, 1)[0] for _ in range(5)]
    assert picked.count("B") == 1


def test_topics_of_a_lane_take_turns_over_single_picks() -> None:
    turns: Turns[str] = Turns()
    picked = [turns.pick({"a.live": ["a"], "b.live": ["b"], "c.live": ["c"]}, 1)[0] for _ in range(6)]
    assert Counter(picked) == {"a": 2, "b": 2, "c": 2}


def test_a_new_site_starts_with_those_being_served_and_not_before() -> None:
    assert next_turn(last_of_group=0, served=500) == 501
    assert next_turn(last_of_group=900, served=500) == 901


@given(
    st.dictionaries(st.sampled_from(["a.live", "b.live", "a.bulk", "b.bulk"]), st.lists(st.integers(), max_size=9)),
    st.integers(0, 40),
)
def test_as_much_is_picked_as_there_is_and_each_line_in_its_order(waiting: dict[str, list[int]], limit: int) -> None:
    named = {topic: [(topic, n) for n in range(len(line))] for topic, line in waiting.items()}
    turns: Turns[tuple[str, int]] = Turns()
    picked = turns.pick(named, limit)
    assert len(picked) == min(limit, sum(map(len, named.values())))
    for topic, line in named.items():
        mine = [entry for entry in picked if entry[0] == topic]
        assert mine == line[: len(mine)]


def test_what_was_taken_comes_in_the_order_of_the_picks_and_what_is_missing_is_passed_over() -> None:
    assert in_turn(["a", "b", "a", "a"], {"a": [1, 2], "b": [3]}) == [1, 3, 2]

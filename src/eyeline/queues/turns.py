"""Whose turn it is: lanes weighted, pipelines and sites one after the other. Pure; every queue that chooses uses it.

Lanes: of five picks four are live and one is bulk; an idle lane's picks go to the other. Sites: a message gets a
number, its `turn`, when it is put: one more than the last of its site, but never before those being served
(start-time fair queueing), so a site with ten thousand waiting and a site with one alternate.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from eyeline.core.types import LANES, Lane

T = TypeVar("T")

#: Which lane each pick prefers.
PATTERN: tuple[Lane, ...] = ("live", "live", "live", "live", "bulk")


def lane_of(topic: str) -> Lane:
    """The lane at the end of a topic's name; a topic without one is live."""
    return "bulk" if topic.endswith(".bulk") else "live"


def next_turn(last_of_group: int, served: int) -> int:
    """The turn of a group's next message: after its own last one, and not before what is being served."""
    return max(last_of_group, served) + 1


def in_turn(picked: Iterable[str], taken: Mapping[str, Iterable[T]]) -> list[T]:
    """What was taken of each topic, in the order in which the topics were picked; one that gave less is passed over."""
    lines = {topic: deque(items) for topic, items in taken.items()}
    return [lines[topic].popleft() for topic in picked if lines.get(topic)]


class Turns(Generic[T]):
    """One receiver's memory of who came last."""

    def __init__(self) -> None:
        self._picks = 0
        self._lines: dict[Lane, deque[str]] = {lane: deque() for lane in LANES}

    def pick(self, waiting: Mapping[str, Iterable[T]], limit: int) -> list[T]:
        """Up to `limit` of what waits, by topic, each topic's own in order of their turn."""
        lines = {topic: deque(items) for topic, items in waiting.items()}
        self._seat(topic for topic, line in lines.items() if line)
        picked: list[T] = []
        while len(picked) < limit and (topic := self._next_topic(lines)) is not None:
            picked.append(lines[topic].popleft())
        return picked

    def _seat(self, topics: Iterable[str]) -> None:
        """Topics that have not waited before line up behind those that have; of several at once, by name."""
        for topic in sorted(topics):
            line = self._lines[lane_of(topic)]
            if topic not in line:
                line.append(topic)

    def _next_topic(self, lines: Mapping[str, deque[T]]) -> str | None:
        preferred = PATTERN[self._picks % len(PATTERN)]
        self._picks += 1
        for lane in (preferred, "bulk" if preferred == "live" else "live"):
            line = self._lines[lane]
            for topic in list(line):
                if lines.get(topic):
                    line.remove(topic)
                    line.append(topic)
                    return topic
        return None

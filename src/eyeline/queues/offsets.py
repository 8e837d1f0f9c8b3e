"""What a Kafka commit may say: a position, under which everything is finished. Pure."""

from collections import deque


class Offsets:
    """The offsets of one partition that were read, in order, and which of them are finished."""

    def __init__(self) -> None:
        self._read: deque[int] = deque()
        self._finished: set[int] = set()

    @property
    def finished(self) -> int:
        """How many are finished, though an earlier one is not: no commit can say so yet."""
        return len(self._finished)

    def read(self, offset: int) -> None:
        """The next one has come."""
        self._read.append(offset)

    def finish(self, offset: int) -> int | None:
        """This one is done. The position to commit, where it has moved. Idempotent."""
        if not self._read or offset < self._read[0]:
            return None
        self._finished.add(offset)
        position = None
        while self._read and self._read[0] in self._finished:
            self._finished.remove(self._read[0])
            position = self._read.popleft() + 1
        return position

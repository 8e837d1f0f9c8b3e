"""The promise of every queue: at least once, leased, in best-effort order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, runtime_checkable

from eyeline.core.types import Delivery, Message, QueueStats

#: What some broker cannot promise, by the word under which `Abilities` gives the reason and the contract suite asks.
Promise = Literal[
    "leases",  # a message whose lease ran out goes to another receiver
    "lost leases",  # ack_many and extend know whose lease was lost; a late nack changes nothing
    "ids",  # the same id put twice is kept once
    "order",  # a site's messages come in the order they were put
    "sites",  # sites of a topic take turns
    "one holder",  # while receivers come and go, no message is held by two of them
]


@dataclass(frozen=True)
class Abilities:
    """What a backend's broker can and cannot do. The contract suite reads it: what is in `cannot` is not asked for.

    grain: leases and delays are rounded up to whole multiples of so many seconds.
    look_every: seconds between two looks at `stats` by who looks all the time; more where each look is paid for.
    cannot: the reason, for each promise that is not kept.
    """

    grain: float = 0.0
    look_every: float = 1.0
    cannot: Mapping[Promise, str] = field(default_factory=dict)


class Queue(Protocol):
    """Messages wait in topics (`<pipeline>.<lane>`); a receiver holds a lease on what it took.

    A backend is built as `Class(url, topics=…)`: the topics that `receive` looks at (None: all).
    All methods raise QueueError; `transient` says whether another try may help. A server that is away is reported
    within three seconds.
    """

    abilities: ClassVar[Abilities]

    async def put_many(self, messages: Sequence[Message]) -> None:
        """Keep the messages durably; returns once they are. The same id put twice is kept once where the backend can."""
        ...

    async def receive(self, limit: int, wait: float, lease: float) -> list[Delivery]:
        """Up to `limit` messages, leased for `lease` seconds; waits up to `wait` seconds for the first one.

        Lanes are weighted (live 4 : bulk 1, an idle lane's share goes to the other) and groups (sites) take turns.
        A message whose lease ran out, or whose holder belongs to an earlier boot, is received again with attempt + 1.
        """
        ...

    async def ack_many(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Forget the messages for good. Returns those whose lease had been lost (they are not forgotten). Idempotent."""
        ...

    async def nack(self, delivery: Delivery, *, delay: float) -> None:
        """Hand the message back, to be seen again after `delay` seconds. A lost lease is ignored."""
        ...

    async def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """Hold on for `lease` more seconds from now. Returns those whose lease had been lost."""
        ...

    async def stats(self) -> QueueStats:
        """Depth (visible and delayed), leased ones, age of the oldest waiting one."""
        ...

    async def close(self) -> None:
        """Give back connections and threads. Idempotent."""
        ...


@runtime_checkable
class Leaving(Protocol):
    """A queue that keeps a part of what waits for a receiver, as long as that is there."""

    async def leave(self) -> None:
        """Let other receivers have this one's part, until it receives again. Call with nothing in hand. Raises QueueError."""
        ...


@runtime_checkable
class Advising(Protocol):
    """A queue whose server can be set up wrongly."""

    async def advice(self) -> list[str]:
        """One sentence for each setting of the server that breaks a promise: what it is, and what it should be."""
        ...

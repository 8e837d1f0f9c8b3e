"""Receives that outlive their caller: what was on its way to a receiver that was cancelled is handed back at once."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from eyeline.core.errors import QueueError
from eyeline.core.types import Delivery

GiveBack = Callable[[list[Delivery]], Awaitable[None]]


class Claims:
    """Runs claims so that none is cut off half-way: a broker that has leased a message will not know that nobody listens."""

    def __init__(self, give_back: GiveBack) -> None:
        self._give_back = give_back
        self._returning: set[asyncio.Task[None]] = set()

    async def of(self, claim: Coroutine[Any, Any, list[Delivery]]) -> list[Delivery]:
        """What `claim` gives. If the caller is cancelled meanwhile, the claim goes on and its messages are handed back."""
        task = asyncio.ensure_future(claim)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            returning = asyncio.ensure_future(self._return(task))
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
            raise

    async def close(self) -> None:
        """Wait until all that is to be handed back is."""
        while self._returning:
            await asyncio.wait(self._returning)

    async def _return(self, task: "asyncio.Task[list[Delivery]]") -> None:
        with contextlib.suppress(QueueError):  # the broker is away: it gives them to another when their lease ends
            if deliveries := await task:
                await self._give_back(deliveries)

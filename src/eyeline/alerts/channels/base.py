"""The promise of every channel: one attempt to tell someone."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from eyeline.stores.results.base import DeliveryRow

#: The picture of a result (as notifications tell it) with its boxes drawn, as JPEG; None where there is none.
Pictures = Callable[[Mapping[str, Any]], Awaitable[bytes | None]]


async def no_picture(_: Mapping[str, Any]) -> None:
    """Where pictures cannot be had."""


class Channel(Protocol):
    """Where alerts go. Built as `Class(settings: ChannelSettings, pictures: Pictures)`; raises ConfigError where it cannot
    work at all.
    """

    async def send(self, delivery: DeliveryRow) -> str:
        """Tell it once, within 30 s; returns what the other side said when it accepted it.

        `delivery.payload` is the notification as JSON, `delivery.id` the same in every attempt. Raises ChannelError;
        `transient` says whether another try may help.
        """
        ...

    async def close(self) -> None:
        """Give back connections. Idempotent."""
        ...

"""The log channel: a line in the log of this process. There without being defined, as `notify = ["log"]`."""

from typing import Any

import msgspec

from eyeline.alerts.channels.base import Pictures, no_picture
from eyeline.core.settings import ChannelSettings
from eyeline.core.telemetry import logger
from eyeline.stores.results.base import DeliveryRow

log = logger("alerts")


class LogChannel:
    """Writes each notification as a warning with the alert's fields."""

    def __init__(self, settings: ChannelSettings, _pictures: Pictures = no_picture) -> None:
        self.name = settings.name

    async def send(self, delivery: DeliveryRow) -> str:
        """See `Channel.send`; it always succeeds."""
        told: dict[str, Any] = msgspec.json.decode(delivery.payload)
        alert = told["data"].get("alert", {})
        said = {name: alert[name] for name in ("id", "rule", "cause", "last_at") if name in alert}
        log.warning(told["text"], channel=self.name, kind=delivery.kind, **said)
        return "logged"

    async def close(self) -> None:
        """See `Channel.close`."""

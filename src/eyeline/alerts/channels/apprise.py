"""The Apprise channel (the extra `apprise`): a hundred chat and paging services, each by its Apprise URL behind `apprise:`.

Apprise is synchronous and brings its own HTTP, so it runs in threads of this channel's own, and its answer is waited for no
longer than a channel's time. Where an address is written in the URL, it is judged before each attempt as others are.
"""

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apprise
import msgspec

from eyeline.alerts.channels.base import Pictures, no_picture
from eyeline.core.errors import ChannelError, ConfigError
from eyeline.core.netguard import is_allowed, networks
from eyeline.core.settings import ChannelSettings, mask
from eyeline.core.telemetry import printable
from eyeline.stores.results.base import DeliveryRow

#: Seconds for a whole attempt, and attempts at once: those that hang hold a thread each until their sockets give up.
TOTAL = 30.0
THREADS = 4
#: Services that do something on this very machine, and would need no address.
_LOCAL = {"dbus", "qt", "kde", "gnome", "macosx", "windows", "syslog", "glib", "rsyslog"}
_KINDS = {"critical": apprise.NotifyType.FAILURE, "warning": apprise.NotifyType.WARNING}

logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it writes URLs, and with them tokens


class AppriseChannel:
    """Tells the service of `settings.url`, `apprise:ntfy://host/topic`."""

    def __init__(self, settings: ChannelSettings, _pictures: Pictures = no_picture) -> None:
        networks(settings.allow)
        self._settings = settings
        url = settings.url.removeprefix("apprise:")
        asset = apprise.AppriseAsset(async_mode=False, storage_mode=apprise.PersistentStoreMode.MEMORY)
        with contextlib.suppress(Exception):  # whatever is wrong with the URL, it is said below, without its tokens
            self._service: Any = apprise.Apprise.instantiate(url, asset=asset)
        if getattr(self, "_service", None) is None or url.partition(":")[0].lower() in _LOCAL:
            raise ConfigError(f"{mask(settings.url)!r} is no URL that Apprise can send to; its wiki lists them")
        self._service.redirects = False
        self._service.request_rate_per_sec = (
            0  # it would sleep before each; who is asked too often says so, and is asked later
        )
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"apprise-{settings.name}")

    async def send(self, delivery: DeliveryRow) -> str:
        """See `Channel.send`."""
        told = msgspec.json.decode(delivery.payload)
        await self._judge()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(TOTAL):
                done = await loop.run_in_executor(self._threads, self._notify, told)
        except TimeoutError as error:
            raise ChannelError(f"no answer within {TOTAL:.0f} s") from error
        if not done:
            raise ChannelError(f"{self._service.service_name} did not take it; look at its URL and tokens")
        return f"taken by {self._service.service_name}"

    def _notify(self, told: dict[str, Any]) -> bool:
        """In a thread."""
        severity = told["data"].get("alert", {}).get("severity", "info")
        kind = _KINDS.get(severity, apprise.NotifyType.INFO)
        text = printable(told["text"], 1000)
        return bool(self._service.notify(title=f"Eyeline: {severity}", body=text, notify_type=kind))

    async def _judge(self) -> None:
        """Services by address are judged by all their addresses; those by token live at their vendor's. Raises ChannelError."""
        host = getattr(self._service, "host", None)
        if not host or not any("{host}" in template for template in self._service.templates):
            return
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, getattr(self._service, "port", None) or 443)
        except OSError as error:
            raise ChannelError(f"not reached: {printable(str(error), 200)}") from error
        if not all(is_allowed(str(entry[4][0]), self._settings.allow) for entry in found):
            raise ChannelError("not reached: private addresses have to be listed as CIDR ranges in `allow`")

    async def close(self) -> None:
        """See `Channel.close`; what hangs in a socket is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

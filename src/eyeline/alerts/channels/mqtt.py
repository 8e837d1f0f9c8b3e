"""The MQTT channel: each notification as one message of QoS 1 on the topic in the URL's path.

With `?state=TOPIC` the newest one is also kept there by the broker (retained), for those who come later. A connection lasts for
as long as there is something to send, and a little longer.
"""

import asyncio
import contextlib
import ssl
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import aiomqtt

from eyeline.alerts.channels.base import Pictures, no_picture
from eyeline.core.errors import ChannelError, ConfigError
from eyeline.core.netguard import judged_addresses
from eyeline.core.settings import ChannelSettings, mask
from eyeline.core.telemetry import printable
from eyeline.stores.results.base import DeliveryRow

#: Seconds for a whole attempt.
TOTAL = 30.0
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_WILD = ("+", "#", "\0")


class MqttChannel:
    """Publishes to `mqtt://user@host:1883/topic`; `secret` is the password."""

    def __init__(self, settings: ChannelSettings, _pictures: Pictures = no_picture) -> None:
        parts = urlsplit(settings.url)
        self._topic = unquote(parts.path.lstrip("/"))
        query = dict(parse_qsl(parts.query))
        self._state = query.pop("state", None)
        named = bool(parts.hostname) and bool(self._topic) and not query
        if not named or any(sign in topic for topic in (self._topic, self._state or "") for sign in _WILD):
            raise ConfigError(f"{mask(settings.url)!r} names no topic; write mqtt://user@host:1883/eyeline/alerts")
        self._settings = settings
        self._host, self._scheme = str(parts.hostname), parts.scheme
        self._port = parts.port or _PORTS[parts.scheme]
        self._user = unquote(parts.username) if parts.username else None
        secret = settings.secret.get_secret_value() if settings.secret is not None else None
        self._password = secret or (unquote(parts.password) if parts.password else None)
        self._client: aiomqtt.Client | None = None
        self._turn = asyncio.Lock()

    async def send(self, delivery: DeliveryRow) -> str:
        """See `Channel.send`."""
        try:
            async with asyncio.timeout(TOTAL), self._turn:
                client = self._client or await self._connected()
                await client.publish(self._topic, delivery.payload, qos=1)
                if self._state is not None:
                    await client.publish(self._state, delivery.payload, qos=1, retain=True)
        except TimeoutError as error:
            await self.close()
            raise ChannelError(f"the broker did not confirm it within {TOTAL:.0f} s") from error
        except (aiomqtt.MqttError, OSError) as error:
            await self.close()
            raise ChannelError(f"the broker was not reached: {printable(str(error), 200)}") from error
        return f"confirmed on {self._topic}"

    async def close(self) -> None:
        """See `Channel.close`."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(aiomqtt.MqttError, OSError, TimeoutError):
                await client.__aexit__(None, None, None)

    async def _connected(self) -> aiomqtt.Client:
        """A client that is connected to a judged address; with TLS by name, for whose host the certificate then vouches."""
        addresses = await judged_addresses(self._host, self._port, self._scheme, self._settings.allow)
        secure: dict[str, Any] = {}
        if self._scheme == "mqtts":
            secure["tls_context"] = ssl.create_default_context()
        client = aiomqtt.Client(
            self._host if secure else addresses[0],
            self._port,
            username=self._user,
            password=self._password,
            timeout=10.0,
            **secure,
        )
        await client.__aenter__()
        self._client = client
        return client

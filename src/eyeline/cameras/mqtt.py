"""Triggers over MQTT (the extra `mqtt`): a message on the camera's topic takes the next frame; its payload is the ref.

The job is told on `<topic>/job` as {"ref", "job"}. Sessions are clean: a trigger that was sent while nobody listened is
gone, for a frame taken later would show another thing.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import aiomqtt
import msgspec

from eyeline.cameras.base import Asked
from eyeline.core.errors import ConfigError
from eyeline.core.ids import uuid7
from eyeline.core.retry import backoff
from eyeline.core.settings import mask
from eyeline.core.telemetry import logger, printable

log = logger("cameras")

LONGEST_REF = 200
#: Seconds for which a frame answers a trigger.
EXPIRES = 10.0
_PORTS = {"mqtt": 1883, "mqtts": 8883}


class Trigger:
    """The connection of one camera to the broker."""

    def __init__(self, url: str, topic: str, asked: Callable[[Asked], None]) -> None:
        self._where = _described(url)
        self._shown = mask(url)
        self._topic = topic
        self._asked = asked
        self._mine: set[str] = set()
        self._client: aiomqtt.Client | None = None

    async def listen(self) -> None:
        """Hear triggers for ever; connect again whenever the broker goes away."""
        failures = 0
        while True:
            try:
                async with aiomqtt.Client(**self._where) as client:
                    await client.subscribe(self._topic, qos=1)
                    self._client, failures = client, 0
                    log.info("triggers are heard", broker=self._shown, topic=self._topic)
                    async for message in client.messages:
                        self._hear(message.payload)
            except aiomqtt.MqttError as error:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise asyncio.CancelledError from error  # a farewell that fails must not swallow the stop
                failures += 1
                log.warning("the MQTT broker is away", broker=self._shown, reason=str(error))
            finally:
                self._client = None
            await asyncio.sleep(backoff(max(1, failures), base=0.5, cap=10.0))

    async def tell(self, capture: str, ref: str | None, job: str) -> None:
        """Say which job a trigger of this broker became; where the broker is away it is not said."""
        if capture not in self._mine or self._client is None:
            return
        self._mine.discard(capture)
        try:
            await self._client.publish(f"{self._topic}/job", msgspec.json.encode({"ref": ref, "job": job}), qos=1)
        except aiomqtt.MqttError as error:
            log.warning("a job could not be told", broker=self._shown, job=job, reason=str(error))

    def _hear(self, payload: Any) -> None:
        text = payload.decode("utf-8", "replace") if isinstance(payload, bytes | bytearray) else ""
        ref = printable(text, LONGEST_REF).strip() or None
        asked = Asked(id=uuid7(), ref=ref, expires_in=EXPIRES)
        if len(self._mine) > 1000:  # triggers that never became a frame
            self._mine.clear()
        self._mine.add(asked.id)
        self._asked(asked)


def _described(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ConfigError(f"mqtt.url {mask(url)!r} is no broker; write mqtt://user:password@host:1883, or mqtts://")
    return {
        "hostname": parts.hostname,
        "port": parts.port or _PORTS[parts.scheme],
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "tls_context": ssl.create_default_context() if parts.scheme == "mqtts" else None,
        "timeout": 5.0,
    }

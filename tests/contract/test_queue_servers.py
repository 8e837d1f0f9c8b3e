"""What only a queue behind a server can get wrong: the server is away, silent, dies, or wants a password."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from eyeline.core.errors import QueueError
from eyeline.core.types import Message
from eyeline.queues import open_queue
from eyeline.queues.base import Queue
from tests.contract.proxy import Proxy
from tests.contract.servers import GUARDED, Tansu, elsewhere, free_port, guarded, password, postgres

#: Seconds within which an outage is told, and what a busy machine adds to it.
TOLD, SLACK = 3.0, 1.5


def a_message() -> Message:
    return Message(id="one", topic="parcels.live", group="north", body=b"one")


@pytest.fixture(params=["refuses", "says nothing"])
async def dead_port(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    """Where nobody listens, or somebody who takes the connection and never answers."""
    if request.param == "refuses":
        yield free_port()
        return
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _reader, writer: held.append(writer), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for writer in held:
        writer.close()


async def test_a_server_that_is_away_is_told_within_seconds_as_transient(server_url: str, dead_port: int) -> None:
    async def told(call: Callable[[Queue], Awaitable[object]]) -> None:
        queue = open_queue(elsewhere(server_url, dead_port), ["parcels.live"])
        started = time.monotonic()
        with pytest.raises(QueueError) as caught:
            await call(queue)
        assert time.monotonic() - started < TOLD + SLACK
        assert caught.value.transient
        await queue.close()

    await asyncio.gather(
        told(lambda queue: queue.put_many([a_message()])),
        told(lambda queue: queue.receive(1, 30.0, 30.0)),
        told(lambda queue: queue.stats()),
    )


@pytest.fixture
async def proxied(server_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the server, and the queue's URL by it. Kafka's clients go where the broker says: to the proxy."""
    port = re.search(r"127\.0\.0\.1:(\d+)", server_url)
    assert port is not None
    broker = Tansu() if server_url.startswith("kafka") else None
    proxy = Proxy(broker.port if broker else int(port[1]))
    before = await proxy.start()
    if broker:
        broker.advertised = before
        broker.start()
    yield proxy, elsewhere(server_url, before)
    proxy.close()
    if broker:
        broker.stop()


async def test_a_server_that_falls_silent_is_told_within_seconds_and_used_again_afterwards(
    proxied: tuple[Proxy, str],
) -> None:
    proxy, url = proxied
    queue = open_queue(url, ["parcels.live"])
    await queue.put_many([a_message()])
    proxy.fall_silent()
    for call in (lambda: queue.put_many([a_message()]), queue.stats):
        started = time.monotonic()
        with pytest.raises(QueueError) as caught:
            await call()
        assert time.monotonic() - started < TOLD + SLACK
        assert caught.value.transient
    proxy.speak()
    stats = None
    for _ in range(20):
        with contextlib.suppress(QueueError):
            stats = await queue.stats()
            break
    assert stats is not None
    assert stats.depth >= 1
    await queue.close()


async def test_a_secret_in_the_url_is_in_no_error(server_url: str) -> None:
    url = elsewhere(server_url, free_port()).replace("://", "://somebody:CANARY@", 1)
    url = url.replace("somebody:CANARY@postgres@", "somebody:CANARY@").replace("CANARY@test:test@", "CANARY@")
    queue = open_queue(url, ["parcels.live"])
    with pytest.raises(QueueError) as caught:
        await queue.put_many([a_message()])
    assert "CANARY" not in str(caught.value)
    await queue.close()


async def test_postgresql_is_shown_its_password_and_a_wrong_one_is_told_without_it() -> None:
    url = f"{postgres()}/postgres?schema={GUARDED}"
    queue = open_queue(guarded(url, password()), ["parcels.live"])
    await queue.put_many([a_message()])
    assert [delivery.body for delivery in await queue.receive(1, 5.0, 30.0)] == [b"one"]
    await queue.close()
    stranger = open_queue(guarded(url, "CANARY-guess"), ["parcels.live"])
    with pytest.raises(QueueError, match=f"password.*{GUARDED}") as caught:
        await stranger.put_many([a_message()])
    assert not caught.value.transient
    assert "CANARY" not in str(caught.value)
    await stranger.close()


async def test_opening_a_queue_needs_no_server(server_url: str, tmp_path: Path) -> None:
    queue = open_queue(elsewhere(server_url, free_port()))
    await queue.close()

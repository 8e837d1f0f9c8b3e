"""What only the Redis queue can get wrong: TLS, what survives a kill, what its server must be told."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from eyeline.core.errors import ConfigError, QueueError
from eyeline.core.types import Message
from eyeline.ops.doctor import checks
from eyeline.queues import open_queue
from tests.contract.servers import Valkey, missing, valkey

LONG = 60.0


def a_message(id: str = "one", **more: object) -> Message:  # noqa: A002
    fields: dict[str, object] = {"topic": "parcels.live", "group": "north", "body": b"x", **more}
    return Message(id=id, **fields)  # type: ignore[arg-type]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Valkey]:
    """A server that may be killed."""
    server = Valkey(tmp_path / "valkey")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a key and a certificate for 127.0.0.1 that nobody has signed but itself."""
    if shutil.which("openssl") is None:
        missing("no certificate for the TLS cases: install openssl")
    folder = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    subprocess.run(["openssl", *words.split(), *more], check=True, capture_output=True)
    return folder


@pytest.fixture
async def tls_port(certificate: Path) -> AsyncIterator[int]:
    """The shared server behind TLS: this build of it has none, so a terminator stands in front of it."""
    behind = urlsplit(valkey()).port

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", behind)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_rediss_is_tls_with_a_certificate_that_is_known(tls_port: int, certificate: Path) -> None:
    queue = open_queue(f"rediss://127.0.0.1:{tls_port}/0?prefix=tls&ssl_ca_certs={certificate}/cert.pem")
    await queue.put_many([a_message()])
    [taken] = await queue.receive(1, 1, LONG)
    assert await queue.ack_many([taken]) == []
    await queue.close()


async def test_rediss_refuses_a_certificate_that_is_not_known(tls_port: int) -> None:
    queue = open_queue(f"rediss://127.0.0.1:{tls_port}/0?prefix=tls")
    with pytest.raises(QueueError, match="certificate"):
        await queue.put_many([a_message()])
    await queue.close()


async def test_a_wrong_password_is_permanent_and_in_no_error(own: Valkey) -> None:
    own.start("--requirepass", "right")
    queue = open_queue(f"redis://:CANARY@127.0.0.1:{own.port}/0")
    with pytest.raises(QueueError, match="password") as caught:
        await queue.put_many([a_message()])
    assert not caught.value.transient
    assert "CANARY" not in str(caught.value)
    await queue.close()
    well = open_queue(f"redis://:right@127.0.0.1:{own.port}/0")
    await well.put_many([a_message()])
    await well.close()


async def test_what_was_put_and_who_holds_it_survive_a_kill_of_the_server(own: Valkey) -> None:
    own.start("--appendfsync", "always")
    queue = open_queue(own.url)
    await queue.put_many([a_message(str(number)) for number in range(100)])
    held = await queue.receive(10, 1, LONG)
    await queue.ack_many(held[:5])
    await queue.nack(held[9], delay=0)
    own.kill()
    with pytest.raises(QueueError) as caught:
        await queue.stats()
    assert caught.value.transient
    own.start("--appendfsync", "always")
    stats = await queue.stats()
    assert (stats.depth, stats.in_flight) == (91, 4)
    assert await queue.ack_many(held[5:9]) == []
    assert await queue.ack_many(held[9:]) == held[9:]
    [again] = await queue.receive(1, 1, LONG)
    assert (again.id, again.attempt) == (held[9].id, 2)
    await queue.close()


async def test_check_warns_of_what_a_power_cut_would_lose(own: Valkey) -> None:
    from eyeline.core.settings import QueueSettings, Settings

    settings = Settings(queue=QueueSettings(url=own.url)).rooted()
    own.start("--maxmemory-policy", "allkeys-lru")
    told = await checks(settings)[1]()
    assert [well for _, well, _ in told] == [True, True, True]
    assert "appendfsync always" in told[1][2]
    assert "noeviction" in told[2][2]
    own.kill()
    own.start("--appendfsync", "always")
    assert len(await checks(settings)[1]()) == 1


async def test_a_full_server_says_so_and_puts_nothing(own: Valkey) -> None:
    own.start("--maxmemory", "3mb")
    queue = open_queue(own.url)
    with pytest.raises(QueueError, match="memory") as caught:
        await queue.put_many([a_message(str(number), body=bytes(4000)) for number in range(2000)])
    assert caught.value.transient
    await queue.close()


def test_an_address_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="no address"):
        open_queue("redis://127.0.0.1:99/zero?socket_timeout=soon")

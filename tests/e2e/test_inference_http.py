"""The small HTTP client against servers that answer well, badly, late, twice, or not at all."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from eyeline.inference.http import Answer, HttpClient, HttpFailure

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


@asynccontextmanager
async def serving(handle: Handler) -> AsyncIterator[HttpClient]:
    """A real server; `handle` gets the connection's number, from 0."""
    count = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            await handle(reader, writer, count - 1)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    client = HttpClient("127.0.0.1", server.sockets[0].getsockname()[1])
    yield client
    client.close()
    server.close()


async def request(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def post(client: HttpClient, seconds: float = 5.0) -> Answer:
    return await client.send("POST", "/x", {"a": "b"}, b"", seconds)


def saying(answer: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        while True:
            await request(reader)
            writer.write(answer)

    return handle


async def test_requests_share_one_kept_connection() -> None:
    numbers: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            head = await request(reader)
            assert head.startswith(b"POST /x HTTP/1.1\r\nhost: 127.0.0.1:")
            numbers.append(number)
            writer.write(OK)

    async with serving(handle) as client:
        for _ in range(3):
            assert (await post(client)).body == b"ok"
    assert numbers == [0, 0, 0]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    ],
    ids=["chunked", "after 100 Continue", "then closed"],
)
async def test_other_forms_of_the_same_answer(answer: bytes) -> None:
    async with serving(saying(answer)) as client:
        for _ in range(2):
            got = await post(client)
            assert (got.status, got.body) == (200, b"ok")


async def test_a_kept_connection_that_was_closed_is_replaced() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        await request(reader)
        writer.write(OK)
        await request(reader)  # and closes without an answer, as a server does that goes away

    async with serving(handle) as client:
        for _ in range(3):
            assert (await post(client)).body == b"ok"


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nok", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"],
    ids=["half an answer", "another protocol"],
)
async def test_what_is_no_whole_answer_is_a_failure_and_not_asked_again(answer: bytes) -> None:
    asked = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        nonlocal asked
        await request(reader)
        asked += 1
        writer.write(answer)
        await writer.drain()

    async with serving(handle) as client:
        with pytest.raises(HttpFailure):
            await post(client)
    assert asked == 1


async def test_a_late_answer_is_a_timeout_and_never_the_next_requests_answer() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            await request(reader)
            if number == 0:
                await asyncio.sleep(0.2)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + str(number).encode())

    async with serving(handle) as client:
        with pytest.raises(TimeoutError):
            await post(client, seconds=0.05)
        await asyncio.sleep(0.25)
        assert (await post(client)).body == b"1"


async def test_a_header_cannot_smuggle_another() -> None:
    async with serving(saying(OK)) as client:
        with pytest.raises(HttpFailure, match="line break"):
            await client.send("POST", "/", {"a": "b\r\nevil: yes"}, b"", 1.0)

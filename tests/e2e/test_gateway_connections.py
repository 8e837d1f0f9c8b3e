"""What comes over raw sockets: smuggling, endless heads, trickling bodies, refusals that keep nobody hanging."""

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from eyeline.gateway import connections
from eyeline.gateway.state import BODIES
from tests.gateways import Running, jpeg, running

OK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/images HTTP/1.1\r\nHost: localhost\r\n"
HOSTILE = {
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "two equal lengths": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a negative length": POST + b"Content-Length: -5\r\n\r\nhello",
    "a length with a plus": POST + b"Content-Length: +5\r\n\r\nhello",
    "a hexadecimal length": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "an endless length": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "chunks in 1.0": b"POST /v1/images HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
    "a folded header": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n X: y\r\nA\r\n\r\n",
    "a null in a header": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    "no such version": b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "no such method": b"GE T /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a line of nothing": b"\x00\x01\x02\x03\r\n\r\n",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "too many headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    "a head over 16 kB": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 17_000 + b"\r\n\r\n",
    "a head that never ends": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 40_000,
}


async def connect(here: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A raw connection."""
    parts = urlsplit(here.gateway.url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def exchange(here: Running, sent: bytes) -> bytes:
    """Everything that comes back until the other side closes."""
    reader, writer = await connect(here)
    writer.write(sent)
    async with asyncio.timeout(15):
        answer = await reader.read()
    writer.close()
    return answer


async def test_ambiguous_requests_are_answered_400_and_closed(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        for name, sent in HOSTILE.items():
            answer = await exchange(here, sent + b"GET /v1/system HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 4"), (name, answer[:80])
            assert answer.count(b"HTTP/1.1 ") == 1, (name, answer)  # nothing smuggled in behind it
        assert (await here.results.unfinished()).count == 0
        assert (await here.client.get("/healthz")).status_code == 200


async def test_control_characters_reach_no_header_and_no_answer_line(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        sent = b"GET /v1/jobs/%0d%0aSet-Cookie:%20a=b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer = await exchange(here, sent)
        assert b"\r\nSet-Cookie" not in answer


async def test_slow_heads_and_silent_connections_are_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    async with running(tmp_path) as here:
        silent, trickling = await connect(here), await connect(here)
        trickling[1].write(b"GET /healthz HT")
        async with asyncio.timeout(10):
            assert await silent[0].read() == b""
            assert (await trickling[0].read()).startswith(b"HTTP/1.1 408")
        for _, writer in (silent, trickling):
            writer.close()


async def test_a_trickling_body_is_hung_up_on_and_leaves_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_WINDOW", 0.5)
    async with running(tmp_path, gateway={"max_unfinished": 1}) as here:
        reader, writer = await connect(here)
        writer.write(POST + b"Content-Length: 100000\r\n\r\n" + jpeg()[:100])
        await asyncio.sleep(0.2)
        assert (await here.send()).status_code == 429  # its place is taken
        async with asyncio.timeout(10):
            head, _, problem = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 Request Timeout")
        assert b"connection: close" in head
        assert json.loads(problem)["code"] == "slow_body"
        writer.close()
        assert (await here.send()).status_code == 202
        assert 'eyeline_refused_total{reason="slow_body"}' in (await here.client.get("/metrics")).text


async def test_bodies_that_trickle_fast_enough_to_stay_keep_nobody_out(tmp_path: Path) -> None:
    """They took every place; a second later these are anyone's, and who is done at last takes one of those that are left."""
    head = POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(jpeg())
    async with running(tmp_path, gateway={"max_unfinished": 4}) as here:
        slow = [await connect(here) for _ in range(4)]
        for reader, writer in slow:
            writer.write(head)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        assert (await here.send()).status_code == 429
        for byte in jpeg()[:12]:
            await asyncio.sleep(0.1)
            for _, writer in slow:
                writer.write(bytes([byte]))
        async with asyncio.timeout(20):
            for seed in range(1, 5):
                # one that comes while the line is counted may be counted twice for a moment
                while (await here.send(seed)).status_code == 429:
                    await asyncio.sleep(0.02)
        assert (await here.send(5)).status_code == 429
        for reader, writer in slow:
            writer.write(jpeg()[12:])
            assert (await reader.readline()).startswith(
                (b"HTTP/1.1 429", b"HTTP/1.1 408")
            )  # a busy machine was too slow
            writer.close()


async def test_a_chunked_body_that_is_refused_once_it_is_read_leaves_the_connection_open(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        reader, writer = await connect(here)
        for _ in range(2):
            writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n7\r\nno JPEG\r\n0\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 422")
            assert b"connection: close" not in head.lower()
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        writer.close()


async def test_many_slow_clients_do_not_keep_a_good_one_out(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        slow = [await connect(here) for _ in range(300)]
        for _, writer in slow:
            writer.write(POST)
        answers = [await here.send(seed) for seed in range(20)]
        assert {answer.status_code for answer in answers} == {202}
        for _, writer in slow:
            writer.close()


async def test_what_slow_senders_only_announce_keeps_nobody_out(tmp_path: Path) -> None:
    """Together they say that just as much will come as may be in memory at once."""
    async with running(tmp_path) as here:
        sizes = [20_000_000] * 12 + [1_000_000] * 16
        assert sum(sizes) == BODIES
        slow = [await connect(here) for _ in sizes]
        for (_, writer), size in zip(slow, sizes, strict=True):
            writer.write(POST + b"Content-Length: %d\r\n\r\n" % size + jpeg()[:100])
        await asyncio.sleep(0.2)
        assert {(await here.send(seed)).status_code for seed in range(5)} == {202}
        for _, writer in slow:
            writer.close()


async def test_a_refusal_comes_before_the_body_is_sent(tmp_path: Path) -> None:
    """The client announces 20 MB and sends nothing: the answer is there all the same."""
    async with running(tmp_path, gateway={"max_unfinished": 1}) as here:
        assert (await here.send()).status_code == 202
        answer = await exchange(here, POST + b"Content-Length: 20000000\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"retry-after: 1" in answer.lower()
        assert b"connection: close" in answer.lower()


async def test_100_continue_is_said_only_to_those_who_are_let_in(tmp_path: Path) -> None:
    async with running(tmp_path, gateway={"max_unfinished": 1}) as here:
        head = POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(jpeg())
        reader, writer = await connect(here)
        writer.write(head)
        assert (await reader.readline()).startswith(b"HTTP/1.1 100")
        writer.write(jpeg())
        await reader.readline()
        assert (await reader.readline()).startswith(b"HTTP/1.1 202")
        writer.close()
        assert (await exchange(here, head)).startswith(b"HTTP/1.1 429")


async def test_a_refused_upload_does_not_cost_the_connection(tmp_path: Path) -> None:
    """Small bodies run out by themselves: the next request on the same connection is answered."""
    async with running(tmp_path, gateway={"max_unfinished": 1}) as here:
        assert (await here.send()).status_code == 202
        reader, writer = await connect(here)
        writer.write(POST + b"Content-Length: %d\r\n\r\n" % len(jpeg()) + jpeg() + OK)
        async with asyncio.timeout(10):
            answer = b""
            while answer.count(b"HTTP/1.1 ") < 2 or b"alive" not in answer:
                answer += await reader.read(65_536)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"HTTP/1.1 200" in answer


async def test_a_large_refused_upload_is_read_out_so_that_the_answer_arrives(tmp_path: Path) -> None:
    async with running(tmp_path, gateway={"max_bytes": 1000}) as here:
        for _ in range(5):
            answer = await here.client.post("/v1/images", content=b"x" * 3_000_000)
            assert answer.status_code == 413


async def test_too_many_connections_from_one_address_are_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_PER_ADDRESS", 3)
    async with running(tmp_path) as here:
        held = [await connect(here) for _ in range(3)]
        assert (await exchange(here, b"")).startswith(b"HTTP/1.1 503")
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.1)
        assert (await here.client.get("/healthz")).status_code == 200

"""No URL given by others reaches the inside, however it is written and whatever its name resolves to."""

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from eyeline.core.errors import ConfigError, InputError
from eyeline.core.netguard import REFUSED, check_url, guarded_session, is_allowed, is_public

INSIDE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "::8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "100::1",
    "2001::1",
    "2001:0:53aa:64c:0:0:80ff:fffe",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "5f00::1",
    "2a00:1450::5efe:7f00:1",
    "2a00:1450::200:5efe:a00:1",
]
OUTSIDE = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.15.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "223.255.255.255",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450:4001:800::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2a00:1450::5efe:808:808",
]


@pytest.mark.parametrize("ip", INSIDE)
def test_an_inside_address_is_not_public(ip: str) -> None:
    assert not is_public(ip)


@pytest.mark.parametrize("ip", OUTSIDE)
def test_an_outside_address_is_public(ip: str) -> None:
    assert is_public(ip)


@pytest.mark.parametrize("text", ["127.1", "2130706433", "0x7f.1", "017700000001", "08.8.8.8", "", "example.com"])
def test_what_is_no_canonical_address_is_not_public(text: str) -> None:
    assert not is_public(text)


def test_a_listed_range_opens_its_addresses_and_no_other() -> None:
    assert is_allowed("10.1.2.3", ["10.1.0.0/16"])
    assert is_allowed("::ffff:10.1.2.3", ["10.1.0.0/16"])
    assert is_allowed("fd00::5", ["10.1.0.0/16", "fd00::/64"])
    assert not is_allowed("10.2.2.3", ["10.1.0.0/16"])
    assert not is_allowed("127.0.0.1", ["10.1.0.0/16"])


def test_a_range_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match=r"10\.0\.0\.1/8"):
        is_allowed("10.0.0.1", ["10.0.0.1/8"])


REFUSED_URLS = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://0x7f000001/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://127.0.0.01/",
    "http://0.0.0.0/",
    "http://0/",
    "http://[::]/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1%25eth0]/",
    "http://[2a00:1450::1%25eth0]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/",
    "http://100.100.100.200/",
    "http://\uff11\uff12\uff17.0.0.1/",  # full-width digits
    "http://127\u30020.0.1/",  # ideographic full stop
    "http://good@127.0.0.1/",
    "http://good@example.com/",
    "http://user:word@example.com/",
    "http://@example.com/",
    "http://127.0.0.1#@example.com/",
    "http://example.com\\@127.0.0.1/",
    "http://127.0.0.1\\.example.com/",
    "http://%31%32%37.0.0.1/",
    "http://exam%70le.com/",
    "http://example.com:22/",
    "http://example.com:8080/",
    "http://8.8.8.8:6379/",
    "http://example.com:/",
    "http://example.com:99999/",
    "http:///etc/passwd",
    "http:/example.com/",
    "//example.com/",
    "example.com",
    "",
    "file:///etc/passwd",
    "gopher://example.com/",
    "data:text/plain,x",
    "ftp://example.com/",
    "rtsp://example.com/",
    "javascript:alert(1)",
    "http://example.com/\r\nHost: inside",
    "http://example.com/ x",
    "\thttp://example.com/",
    "http://example..com/",
    "http://-example.com/",
    "http://" + "a" * 3000 + ".com/",
]


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_an_odd_or_inside_url_is_refused_with_the_one_text(url: str) -> None:
    with pytest.raises(InputError) as caught:
        check_url(url)
    assert str(caught.value) == REFUSED
    assert caught.value.code == "url_refused"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.jpg",
        "https://example.com:443/a.jpg?x=1#top",
        "https://sub_domain.example.com./",
        "https://xn--bcher-kva.example/",
        "http://8.8.8.8/",
        "https://[2606:4700::1111]/",
    ],
)
def test_an_ordinary_url_passes(url: str) -> None:
    check_url(url)


def test_odd_ports_are_open_towards_listed_ranges_alone() -> None:
    check_url("http://10.0.0.5:9000/hook", allow=["10.0.0.0/8"])
    check_url("http://hooks.inside:9000/", allow=["10.0.0.0/8"])  # judged by its address when it connects
    with pytest.raises(InputError):
        check_url("http://8.8.8.8:9000/", allow=["10.0.0.0/8"])
    check_url("rtsp://93.184.216.34/stream", schemes=("rtsp",))


class Names(AbstractResolver):
    """A name server in memory: each look-up of a name gives its next answer; the last one stays."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): lists for name, lists in answers.items()}
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        lists = self.answers[host]
        addresses = lists.pop(0) if len(lists) > 1 else lists[0]
        return [
            ResolveResult(
                hostname=host,
                host=ip,
                port=port,
                family=socket.AF_INET6 if ":" in ip else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for ip in addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""


class Canary:
    """A listener inside that must never be reached."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        await writer.drain()
        writer.close()


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    bird = Canary()
    server = await asyncio.start_server(bird.answer, "127.0.0.1", 0)
    bird.port = server.sockets[0].getsockname()[1]
    yield bird
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "LOCALHOST", "localhost.", "[::ffff:127.0.0.1]"]
)
async def test_the_session_itself_never_connects_inside(canary: Canary, host: str) -> None:
    async with guarded_session(total=5.0) as session:
        with pytest.raises((aiohttp.ClientConnectorError, aiohttp.InvalidURL)):
            await session.get(f"http://{host}:{canary.port}/")
    assert canary.connections == 0


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"]])
async def test_a_name_with_any_inside_address_is_refused(canary: Canary, answer: list[str]) -> None:
    names = Names(evil_example=[answer])
    async with guarded_session(resolver=names, total=5.0) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("http://evil.example/")
    assert names.asked == 1
    assert canary.connections == 0


async def test_a_name_that_is_bound_again_is_judged_again(canary: Canary) -> None:
    names = Names(evil_example=[["127.0.0.2"], ["127.0.0.1"]])
    async with guarded_session(["127.0.0.2/32"], resolver=names, total=5.0) as session:
        for _ in range(2):
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"http://evil.example:{canary.port}/")
    assert names.asked == 2
    assert canary.connections == 0


async def test_a_redirect_to_the_inside_is_not_followed_into_it(canary: Canary) -> None:
    async def redirect(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{canary.port}/\r\nContent-Length: 0\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.2", 0)
    port = server.sockets[0].getsockname()[1]
    async with guarded_session(["127.0.0.2/32"], total=5.0) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://127.0.0.2:{port}/")
    server.close()
    assert canary.connections == 0


async def test_a_listed_address_is_reached_by_number_and_by_name(canary: Canary) -> None:
    names = Names(hooks_inside=[["127.0.0.1"]])
    async with guarded_session(["127.0.0.1/32"], resolver=names, total=5.0) as session:
        for host in ("127.0.0.1", "hooks.inside"):
            async with session.get(f"http://{host}:{canary.port}/") as response:
                assert await response.read() == b"hi"
    assert canary.connections == 2


async def test_proxies_of_the_environment_are_not_used(canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{canary.port}")
    names = Names(evil_example=[["127.0.0.3"]])
    async with guarded_session(resolver=names, total=5.0) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("http://evil.example/")
    assert canary.connections == 0

"""Which addresses a URL given by others may reach: pictures fetched by URL, webhooks, cameras.

The name is resolved once, every address is judged, and the connection goes to a judged address: the same judgement is
repeated on the very socket address at connect time, so neither a literal (`127.1`) nor a DNS answer that changes
in between (rebinding) slips past. All refusals read the same, so that they tell nothing about the inside.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Collection, Sequence
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from eyeline.core.errors import ConfigError, InputError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

REFUSED = (
    "this URL may not be used: it must name a public host, without user name, on the usual port of its scheme; "
    "private addresses have to be listed as CIDR ranges in `allow` (channels, cameras) or `gateway.fetch_allow`"
)

#: Ports that need no permission, by scheme.
PORTS = {
    "http": (80, 443),
    "https": (80, 443),
    "rtsp": (554,),
    "rtsps": (322, 554),
    "smtp": (25, 587),
    "smtps": (465,),
    "mqtt": (1883,),
    "mqtts": (8883,),
}
LONGEST_URL = 2048

#: Everything IANA lists as special-purpose, and multicast and reserved space.
_CLOSED_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
#: Global unicast is 2000::/3; within it these are special: Teredo and other protocol assignments, 6to4, documentation.
_OPEN_V6 = ipaddress.IPv6Network("2000::/3")
_CLOSED_V6 = tuple(ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?", re.IGNORECASE)
_NUMERIC_LABEL = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)


def is_public(ip: str | Address) -> bool:
    """Whether the address belongs to the public internet.

    An IPv4 address inside an IPv4-mapped, NAT64 (64:ff9b::/96) or ISATAP address is judged itself; IPv4-compatible, 6to4,
    Teredo and local NAT64 addresses are never public. What is no address in canonical form is not public.
    """
    address = _address(ip)
    if address is None:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    return _is_public_v6(address)


def is_allowed(ip: str | Address, allow: Sequence[str] = ()) -> bool:
    """Whether a connection may go there: public, or inside one of the CIDR ranges."""
    return is_public(ip) or _inside(ip, networks(allow))


def networks(allow: Sequence[str]) -> tuple[Network, ...]:
    """The CIDR ranges, parsed. Raises ConfigError naming the one that is none."""
    try:
        return tuple(ipaddress.ip_network(text) for text in allow)
    except ValueError as error:
        raise ConfigError(f"allow: {error}; write CIDR ranges such as '10.1.0.0/16' or '192.168.1.7/32'") from error


def refusal() -> InputError:
    """The one error for every refused URL."""
    return InputError(REFUSED, code="url_refused")


def check_url(url: str, schemes: Collection[str] = ("http", "https"), allow: Sequence[str] = ()) -> None:
    """Judge what can be judged before any look-up: scheme, user information, port, host.

    Raises InputError, with the same text whatever was wrong. A name that passes is still judged by its addresses when
    `guarded_session` connects.
    """
    ranges = networks(allow)
    parsed = _parse(url)
    if parsed is None or parsed.scheme not in schemes or not _host_is_fine(parsed, ranges):
        raise refusal()


class GuardedResolver(AbstractResolver):
    """Resolves a name and refuses it (OSError) unless every one of its addresses may be reached on that port."""

    def __init__(self, allow: Sequence[str] = (), inner: AbstractResolver | None = None) -> None:
        self._ranges = networks(allow)
        self._inner = inner or aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of `host`. Raises OSError if there is none, or one that may not be reached."""
        found = await self._inner.resolve(host, port, family)
        if not found or not all(_may_connect(entry["host"], port, self._ranges) for entry in found):
            raise OSError(REFUSED)
        return found

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


def guarded_session(
    allow: Sequence[str] = (),
    *,
    total: float = 30.0,
    resolver: AbstractResolver | None = None,
    limit_per_host: int = 0,
) -> aiohttp.ClientSession:
    """An HTTP client for URLs given by others: no proxies, no cookies, no netrc, no decompression, judged addresses only.

    `total` is the time-out in seconds of a whole request. A refused address is an aiohttp.ClientConnectorError, as a
    dead one is; callers answer both with `refusal()`. Redirects are the caller's: pass `allow_redirects=False` and judge
    each step by `check_url`. `resolver` looks names up (the system's where none is given).
    """
    ranges = networks(allow)

    def judged_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        if not _may_connect(str(address[0]), int(address[1]), ranges):
            raise OSError(REFUSED)
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(
        resolver=GuardedResolver(allow, resolver),
        use_dns_cache=False,
        socket_factory=judged_socket,
        limit_per_host=limit_per_host,
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=total, sock_connect=min(10.0, total)),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        headers={"Accept-Encoding": "identity", "User-Agent": "eyeline"},
        max_line_size=8190,
        max_field_size=8190,
    )


async def judged_addresses(host: str, port: int, scheme: str, allow: Sequence[str] = ()) -> list[str]:
    """The addresses of `host` that a connection on `port` may go to, for protocols that are not HTTP. A caller connects to
    one of them and to nothing else.

    Raises OSError where the name is not known or one of its addresses may not be reached.
    """
    ranges = networks(allow)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    usual = port in PORTS[scheme]
    if not addresses or not all(_inside(ip, ranges) or (is_public(ip) and usual) for ip in addresses):
        raise OSError(REFUSED)
    return addresses


def _address(ip: str | Address) -> Address | None:
    """The parsed address, an IPv4-mapped one as IPv4; None for anything but the canonical notations."""
    try:
        address = ipaddress.ip_address(ip.split("%", 1)[0] if isinstance(ip, str) else ip)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_public_v6(address: ipaddress.IPv6Address) -> bool:
    low = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in _NAT64:
        return is_public(low)
    if address not in _OPEN_V6 or any(address in network for network in _CLOSED_V6):
        return False
    isatap = (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP
    return is_public(low) if isatap else True


def _inside(ip: str | Address, ranges: Sequence[Network]) -> bool:
    address = _address(ip)
    return address is not None and any(address in network for network in ranges if network.version == address.version)


def _may_connect(ip: str, port: int, ranges: Sequence[Network]) -> bool:
    """Odd ports are open only towards addresses that were allowed by name of their range."""
    return _inside(ip, ranges) or (is_public(ip) and port in PORTS["http"])


def _parse(url: str) -> URL | None:
    """The URL as aiohttp will read it, or None where other readers could read it differently."""
    plain = url.isascii() and url.isprintable() and len(url) <= LONGEST_URL
    authority = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]
    if not plain or any(char in url for char in ' \\"<>^`{|}') or "@" in authority or authority.endswith(":"):
        return None
    try:
        parsed = URL(url)
        _ = parsed.port  # raises for a port out of range
    except ValueError:
        return None
    return parsed


def _host_is_fine(url: URL, ranges: Sequence[Network]) -> bool:
    host = url.raw_host
    if not host or "%" in host:
        return False
    usual = url.port is None or url.port in PORTS.get(url.scheme, ())
    if _address(host) is not None:
        return _inside(host, ranges) or (is_public(host) and usual)
    if ":" in host or _NUMERIC_LABEL.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return False  # 127.1, 0x7f.1, 2130706433, 017700000001: inet_aton would read them as addresses
    return _NAME.fullmatch(host) is not None and (usual or bool(ranges))

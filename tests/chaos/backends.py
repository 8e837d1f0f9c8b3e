"""What a system may stand on, each server behind a proxy that misbehaves on demand, and killed where it survives that.

The embedded backend has no server. The others have results in PostgreSQL, pictures in S3 and the cache in Valkey; what they
differ in is the queue. ministack keeps everything in memory: it is cut off, never killed, and has no disk to fill.
"""

import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from tests.chaos.proxy import FaultProxy
from tests.contract.servers import TANSU, Postgres, Tansu, Valkey, elsewhere, ministack, s3_url, sqs

#: The embedded queue, and every queue that is a server.
BACKENDS = ("sqlite", "redis", "postgresql", "sqs", "kafka")


@dataclass
class Part:
    """One server: its proxy, and how to kill and start it where that can be. `disk`: the folder of all that it keeps, where
    that is a small disk of its own.
    """

    proxy: FaultProxy
    kill: Callable[[], None] | None = None
    start: Callable[[], None] | None = None
    died: Callable[[], bool] = lambda: False
    disk: Path | None = None

    def killed(self, away: float) -> None:
        """kill -9, and back after so many seconds."""
        assert self.kill is not None
        assert self.start is not None
        self.kill()
        time.sleep(away)
        self.start()


@dataclass
class Backend:
    """Servers by what they are for, the settings that name them, and the results past the proxy (None: the embedded ones).

    `heavy`: thousands of images go through it. `small`: servers get small disks of their own.
    """

    scheme: str
    heavy: bool = False
    small: bool = False
    parts: dict[str, Part] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    results_url: str | None = None


@contextmanager
def opened(scheme: str, folder: Path, *, heavy: bool = False, small: bool = False) -> Iterator[Backend]:
    """The backend with all its servers, which end with the block."""
    with ExitStack() as stack:
        backend = Backend(scheme, heavy, small and may_mount())
        if scheme != "sqlite":
            _stores(backend, folder, stack)
            QUEUES[scheme](backend, folder, stack)
        yield backend


def may_mount() -> bool:
    """Whether a small disk can be had."""
    return os.getuid() == 0


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """The folder, empty or yet to be made, as a disk of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _started(backend: Backend, server: Postgres | Valkey, stack: ExitStack, *more: str) -> Part:
    """The server behind its proxy. PostgreSQL's folder holds its programs as well."""
    if backend.small:
        stack.enter_context(small_disk(server.folder, 768 if isinstance(server, Postgres) else 64))
    server.start(*more)
    stack.callback(server.stop)
    disk = server.folder if backend.small else None
    return Part(_proxy(stack, server.port), server.kill, lambda: server.start(*more), lambda: server.died, disk)


def _stores(backend: Backend, folder: Path, stack: ExitStack) -> None:
    postgres, cache = Postgres(), Valkey(folder / "cache")
    parts = {
        "results": _started(backend, postgres, stack),
        "cache": _started(backend, cache, stack),
        "blobs": Part(_proxy(stack, urlsplit(ministack()).port)),
    }
    backend.parts.update(parts)
    backend.results_url = f"{postgres.url}/postgres"
    backend.settings.update(
        results={"url": elsewhere(backend.results_url, parts["results"].proxy.port)},
        cache={"url": elsewhere(cache.url, parts["cache"].proxy.port)},
        blobs={"url": elsewhere(s3_url(), parts["blobs"].proxy.port)},
    )


def _redis(backend: Backend, folder: Path, stack: ExitStack) -> None:
    server = Valkey(folder / "queue")
    part = _started(backend, server, stack, "--appendfsync", "always")
    backend.parts["queue"] = part
    backend.settings["queue"] = {"url": elsewhere(server.url, part.proxy.port)}


def _postgresql(backend: Backend, _folder: Path, _stack: ExitStack) -> None:
    """One server for queue and results, as where there is only one."""
    backend.settings["queue"] = {"url": f"{backend.settings['results']['url']}?schema=queue"}


def _sqs(backend: Backend, _folder: Path, stack: ExitStack) -> None:
    part = Part(_proxy(stack, urlsplit(sqs()).port))
    url = f"sqs://test:test@q{uuid4().hex}?region=us-east-1&endpoint={sqs()}"
    backend.parts["queue"] = part
    backend.settings["queue"] = {"url": elsewhere(url, part.proxy.port)}


def _kafka(backend: Backend, _folder: Path, stack: ExitStack) -> None:
    """A broker tells its clients where it is: the proxy's port. Its log lies in S3, so that it survives a kill: an object for
    each message, of which ministack lists thousands in seconds. A heavy one has it in memory and is not killed.
    """
    server = Tansu() if backend.heavy else Tansu(_log_in_s3())
    proxy = _proxy(stack, server.port)
    server.advertised = proxy.port
    server.start()
    stack.callback(server.stop)
    backend.parts["queue"] = Part(proxy) if backend.heavy else Part(proxy, server.kill, server.start)
    url = f"kafka://127.0.0.1:{proxy.port}/q{uuid4().hex}?delays=1,2&partitions=2&{TANSU}"
    backend.settings["queue"] = {"url": url}


def _log_in_s3() -> str:
    bucket = f"k{uuid4().hex}"
    urllib.request.urlopen(urllib.request.Request(f"{ministack()}/{bucket}", method="PUT"), timeout=30).close()
    return f"s3://{bucket}/"


QUEUES: Mapping[str, Callable[[Backend, Path, ExitStack], None]] = {
    "redis": _redis,
    "postgresql": _postgresql,
    "sqs": _sqs,
    "kafka": _kafka,
}


def _proxy(stack: ExitStack, port: int | None) -> FaultProxy:
    assert port is not None
    proxy = FaultProxy(port)
    stack.callback(proxy.close)
    return proxy

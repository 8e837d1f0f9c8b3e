"""What a system may stand on, each server behind a proxy that misbehaves on demand, and killed where it survives that.

The embedded backend has no server. The others have results in PostgreSQL, pictures in S3 and the cache in Valkey; what they
differ in is the queue. ministack keeps everything in memory: it is cut off, never killed, and has no disk to fill. As S3, the
long forms have SeaweedFS in its place.
"""

import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

from tests.chaos.proxy import FaultProxy
from tests.contract.servers import TANSU, Postgres, SeaweedFS, Tansu, Valkey, elsewhere, ministack, s3_url, sqs

#: The embedded queue, and every queue that is a server.
BACKENDS = ("sqlite", "redis", "postgresql", "sqs", "kafka")


@dataclass
class Part:
    """One server: its proxy, and how to kill and start it where that can be. `disk`: the folder of all that it keeps, where
    that is a small disk of its own. `given_up`: whether it has to be started again after that was full.
    """

    proxy: FaultProxy
    kill: Callable[[], None] | None = None
    start: Callable[[], None] | None = None
    given_up: Callable[[], bool] = lambda: False
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

    `long`: S3 is a server that survives a kill. `small`: servers get small disks of their own.
    """

    scheme: str
    long: bool = False
    small: bool = False
    parts: dict[str, Part] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    results_url: str | None = None


@contextmanager
def opened(scheme: str, folder: Path, *, long: bool = False, small: bool = False) -> Iterator[Backend]:
    """The backend with all its servers, which end with the block."""
    with ExitStack() as stack:
        backend = Backend(scheme, long, small and may_mount())
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


class Server(Protocol):
    """What is started here."""

    port: int
    folder: Path

    @property
    def died(self) -> bool: ...
    def start(self, *more: str) -> None: ...
    def kill(self) -> None: ...
    def stop(self) -> None: ...


#: Megabytes of a small disk. PostgreSQL's holds its programs as well.
SIZES: Mapping[type, int] = {Postgres: 768, Valkey: 64, SeaweedFS: 512}


def _started(backend: Backend, server: Server, stack: ExitStack, *more: str) -> Part:
    """The server behind its proxy."""
    if backend.small:
        stack.enter_context(small_disk(server.folder, SIZES[type(server)]))
    server.start(*more)
    stack.callback(server.stop)
    disk = server.folder if backend.small else None
    # SeaweedFS's index writes nothing any more once a write has failed, and answers with errors until it is started again
    given_up = (lambda: True) if isinstance(server, SeaweedFS) else (lambda: server.died)
    return Part(_proxy(stack, server.port), server.kill, lambda: server.start(*more), given_up, disk)


def _stores(backend: Backend, folder: Path, stack: ExitStack) -> None:
    postgres, cache = Postgres(), Valkey(folder / "cache")
    blobs, pictures = _s3(backend, folder / "pictures", stack)
    parts = {"results": _started(backend, postgres, stack), "cache": _started(backend, cache, stack), "blobs": blobs}
    backend.parts.update(parts)
    backend.results_url = f"{postgres.url}/postgres"
    backend.settings.update(
        results={"url": elsewhere(backend.results_url, parts["results"].proxy.port)},
        cache={"url": elsewhere(cache.url, parts["cache"].proxy.port)},
        blobs={"url": elsewhere(pictures, parts["blobs"].proxy.port)},
    )


def _s3(backend: Backend, folder: Path, stack: ExitStack) -> tuple[Part, str]:
    """A place for pictures, and its URL past the proxy."""
    if not backend.long:
        return Part(_proxy(stack, urlsplit(ministack()).port)), s3_url()
    server = SeaweedFS(folder)
    return _started(backend, server, stack), server.url("pictures")


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


def _kafka(backend: Backend, folder: Path, stack: ExitStack) -> None:
    """A broker tells its clients where it is: the proxy's port. Its log lies in S3, so that it survives a kill."""
    if backend.long:
        s3 = SeaweedFS(folder / "broker")
        s3.start()
        stack.callback(s3.stop)
        server = Tansu("s3://log/", _aws(f"http://127.0.0.1:{s3.port}", s3.KEY, s3.SECRET))
    else:
        server = Tansu(_bucket_for_a_log(), _aws(ministack(), "test", "test"))
    proxy = _proxy(stack, server.port)
    server.advertised = proxy.port
    server.start()
    stack.callback(server.stop)
    backend.parts["queue"] = Part(proxy, server.kill, server.start)
    url = f"kafka://127.0.0.1:{proxy.port}/q{uuid4().hex}?delays=1,2&partitions=2&{TANSU}"
    backend.settings["queue"] = {"url": url}


def _aws(endpoint: str, key: str, secret: str) -> dict[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    return {"AWS_ENDPOINT": endpoint, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1", **keys}


def _bucket_for_a_log() -> str:
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

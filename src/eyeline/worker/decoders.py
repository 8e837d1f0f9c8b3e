"""The pool of decoder children: started before any image comes, watched, killed when late, replaced at once when dead."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from eyeline.core.errors import BadImage, ConfigError, TooLarge
from eyeline.core.retry import backoff
from eyeline.core.telemetry import RESTARTS, logger
from eyeline.worker.memory import Memory
from eyeline.worker.orders import LENGTH, Broken, Order, Prepared, Ready, Refused, Reply, framed
from eyeline.worker.outcome import DecoderDied

log = logger("worker")

#: Seconds that one image may take in a child; CPU time is bounded by the child's own limit.
WALL_SECONDS = 10.0
START_SECONDS = 60.0
#: Images after which a child is replaced by a fresh one; starting costs about 0.4 s of CPU.
RECYCLE = 5_000
_SOURCE = Path(__file__).resolve().parents[2]
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


class _Child(asyncio.Protocol):
    """One decoder process and the line to it; one question at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.images = 0
        self.busy = True  # from its start until it waits in the idle line, and while it has an image
        self.closed = asyncio.get_running_loop().create_future()
        self._answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    async def ask(self, order: Order, seconds: float) -> Reply:
        """The child's answer. Raises DecoderDied where it hangs up instead, or takes longer than `seconds`."""
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        if self._transport is None or self.closed.done():
            raise DecoderDied("the decoder process had ended")
        self.images += 1
        self.busy = True
        self._transport.write(framed(order))
        alarm = loop.call_later(seconds, self._late, seconds)
        try:
            return await self._answer
        finally:
            alarm.cancel()

    async def ready(self) -> Ready:
        """Its first word."""
        return cast(Ready, await self._answer)

    def hang_up(self) -> None:
        """The child ends by itself once it reads the end."""
        if self._transport is not None:
            self._transport.close()

    async def end(self) -> str:
        """Kill it, wait until it is gone, and say how it ended."""
        self.hang_up()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        return _how(await asyncio.to_thread(self.process.wait))

    def _late(self, seconds: float) -> None:
        if not self._answer.done():
            self._answer.set_exception(DecoderDied(f"decoding took longer than {seconds:g} s"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < LENGTH.size:
            return
        end = LENGTH.size + LENGTH.unpack_from(self._received)[0]
        if len(self._received) < end:
            return
        body = bytes(self._received[LENGTH.size : end])
        self._received.clear()
        if self._answer.done():
            return
        try:
            self._answer.set_result(_replies.decode(body))
        except msgspec.MsgspecError as error:  # a child that was taken over may say anything
            self._answer.set_exception(DecoderDied(f"the decoder process answered nonsense: {error}"))

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(DecoderDied("the decoder process ended while it had this image"))
            self._answer.exception()  # seen here, also where nobody waits any more
        if not self.closed.done():
            self.closed.set_result(None)


@dataclass
class _Fleet:
    """The children of one piece of memory."""

    memory: Memory
    idle: asyncio.LifoQueue[_Child]
    all: set[_Child]


class DecoderPool:
    """`count` children that decode into `memory`. `open` starts them, `decode` uses one, `close` ends them."""

    def __init__(self, count: int, *, wall_seconds: float = WALL_SECONDS, recycle: int = RECYCLE) -> None:
        self._count = count
        self._wall = wall_seconds
        self._recycle = recycle
        self._fleet: _Fleet | None = None
        self._hiring: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> list[int]:
        """The processes of the children that live."""
        return [child.process.pid for child in self._fleet.all if not child.closed.done()] if self._fleet else []

    async def open(self, memory: Memory) -> None:
        """Start all children on `memory` and wait until they are ready. Raises ConfigError where they cannot start."""
        await self.close()
        fleet = _Fleet(memory, asyncio.LifoQueue(), set())
        self._fleet = fleet
        try:
            await asyncio.gather(*(self._hire(fleet) for _ in range(self._count)))
        except (DecoderDied, TimeoutError, OSError) as error:
            await self.close()
            raise ConfigError(f"decoder processes do not start ({error}); run `eyeline check`") from error

    async def decode(self, order: Order) -> Prepared:
        """Have one image decoded and placed. Raises BadImage, TooLarge, DecoderDied (crash, too late, nonsense)."""
        fleet = self._open_fleet()
        child = await fleet.idle.get()
        while child.closed.done():  # it died while idle; its successor is on the way
            child = await fleet.idle.get()
        try:
            reply = await child.ask(order, self._wall)
        except DecoderDied as error:
            how = await self._replace(fleet, child)
            raise DecoderDied(f"{error} ({how})") from None
        except asyncio.CancelledError:
            await asyncio.shield(self._replace(fleet, child))
            raise
        self._put_back(fleet, child)
        return _prepared(reply)

    async def close(self) -> None:
        """End all children. Idempotent."""
        for task in self._hiring:
            task.cancel()
        await asyncio.gather(*self._hiring, return_exceptions=True)
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            await asyncio.gather(*(child.end() for child in fleet.all))

    def _open_fleet(self) -> _Fleet:
        if self._fleet is None:
            raise DecoderDied("the decoder processes are not started")
        return self._fleet

    def _put_back(self, fleet: _Fleet, child: _Child) -> None:
        if child.images < self._recycle:
            child.busy = False
            fleet.idle.put_nowait(child)
            return
        self._later(self._succeed(fleet, child))

    async def _succeed(self, fleet: _Fleet, child: _Child) -> None:
        """A fresh child in the place of one that served its time."""
        await self._retire(fleet, child)
        await self._hire_until_it_works(fleet)

    async def _replace(self, fleet: _Fleet, child: _Child) -> str:
        """How the child ended, once its successor is on the way and it can write into no slot any more."""
        RESTARTS.labels(role="decoder").inc()
        how = await self._retire(fleet, child)
        log.warning("decoder process replaced", ended=how)
        if self._fleet is fleet:
            self._later(self._hire_until_it_works(fleet))
        return how

    async def _retire(self, fleet: _Fleet, child: _Child) -> str:
        fleet.all.discard(child)
        return await child.end()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._hiring.add(task)
        task.add_done_callback(self._hiring.discard)

    async def _hire_until_it_works(self, fleet: _Fleet) -> None:
        failures = 0
        while self._fleet is fleet:
            try:
                await self._hire(fleet)
            except (DecoderDied, TimeoutError, OSError) as error:
                failures += 1
                log.warning("a decoder process does not start", error=str(error))
                await asyncio.sleep(backoff(failures, base=0.2, cap=5.0))
            else:
                return

    async def _hire(self, fleet: _Fleet) -> None:
        child = await _start(fleet.memory)
        fleet.all.add(child)
        try:
            async with asyncio.timeout(START_SECONDS):
                said = await child.ready()
        except BaseException:
            await self._retire(fleet, child)
            raise
        log.debug("decoder process ready", pid=child.process.pid, confined=",".join(said.confined))
        child.busy = False
        fleet.idle.put_nowait(child)
        self._later(self._watch(fleet, child))

    async def _watch(self, fleet: _Fleet, child: _Child) -> None:
        """Replace a child that dies while it is idle; one that dies at work is replaced by who gave it the work."""
        await child.closed
        if not child.busy and self._fleet is fleet:
            await self._replace(fleet, child)


async def _start(memory: Memory) -> _Child:
    """A new process with a scrubbed environment and nothing open but its line and the memory."""
    ours, theirs = socket.socketpair()
    with theirs:
        inherited = (theirs.fileno(), memory.scratch.descriptor, memory.tensors.descriptor)
        sizes = {inherited[1]: memory.scratch.size, inherited[2]: memory.tensors.size}
        words = [str(theirs.fileno()), *(str(word) for pair in sizes.items() for word in pair)]
        # from the main thread: a child dies with the thread that started it
        process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own module; forking takes a millisecond or two
            [sys.executable, "-m", "eyeline.worker.decoder", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment(),
            pass_fds=inherited,
        )
    ours.setblocking(False)
    _, child = await asyncio.get_running_loop().create_unix_connection(lambda: _Child(process), sock=ours)
    return child


def environment() -> dict[str, str]:
    """All that a child may know of this process's environment: where programs and Python's modules lie."""
    paths = [str(_SOURCE), os.environ.get("PYTHONPATH", "")]
    known = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    if "EYELINE_FAULT" in os.environ:  # fault points, for tests only
        known["EYELINE_FAULT"] = os.environ["EYELINE_FAULT"]
    return known


def _prepared(reply: Reply) -> Prepared:
    match reply:
        case Prepared():
            return reply
        case Refused(kind="too_large"):
            raise TooLarge(reply.message, code=reply.code)
        case Refused():
            raise BadImage(reply.message, code=reply.code)
        case Broken():
            raise DecoderDied(reply.message)
    raise DecoderDied("the decoder process answered nonsense")


def _how(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    if -code == signal.SIGXCPU:
        return "it used more CPU time than an image may"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"

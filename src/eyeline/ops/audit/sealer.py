"""The sealer: takes what was recorded since the last block, and makes the next block of it.

One of all sealers holds a lease in the database; should two believe they do, the number of a block is a key there, and one
of them is refused. A sealer that dies leaves a whole block or none.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence

from eyeline.core.clock import isoformat, utcnow
from eyeline.core.errors import BackendError
from eyeline.core.ids import uuid7
from eyeline.core.retry import backoff
from eyeline.core.telemetry import AUDIT_SEALED, logger
from eyeline.ops.audit.verifier import NOWHERE, block_hash, leaf_hash, merkle_root
from eyeline.stores.results.base import AuditBlock, AuditRecord, ResultStore

log = logger("audit")

#: Records in a block at most, and seconds between two looks: what is younger than these is not sealed yet.
ROWS, EVERY = 1000, 1.0
#: Seconds for which a sealer that says nothing keeps its turn.
LEASE = 10.0


def next_block(last: AuditBlock | None, records: Sequence[AuditRecord], sealed_at: str) -> AuditBlock:
    """The block of these records behind `last`."""
    leaves = [leaf_hash(each.seq, each.id, each.kind, each.at, each.body_sha256) for each in records]
    number, previous = (0, NOWHERE) if last is None else (last.number + 1, last.hash)
    size = len(records) + (0 if last is None else last.size)
    root = merkle_root(leaves).hex()
    return AuditBlock(
        number=number,
        previous=previous,
        count=len(records),
        size=size,
        sealed_at=sealed_at,
        root=root,
        hash=block_hash(number, previous, len(records), size, sealed_at, root),
        leaves=b"".join(leaves),
    )


class Sealer:
    """Seals what waits in `results`, as one holder of the lease; with `lease=0.0` it is nobody's turn afterwards."""

    def __init__(self, results: ResultStore, lease: float = LEASE) -> None:
        self._results = results
        self._lease = lease
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{uuid7()}"
        self._last: AuditBlock | None = None
        self._known = False

    async def step(self) -> int:
        """Seal one block; returns how many records went into it: 0 where none waited or it is another sealer's turn.

        Raises StoreError; the next step begins anew then.
        """
        if not self._known:  # before the records: what another seals meanwhile is refused, not sealed twice
            self._last = await self._results.last_block()
        self._known = False
        records = await self._results.unsealed(ROWS)
        if not records:
            self._known = True
            return 0
        block = await asyncio.to_thread(next_block, self._last, records, isoformat(utcnow()))
        seqs = [record.seq for record in records]
        if not await self._results.seal(block, seqs, holder=self._holder, lease=self._lease):
            return 0
        self._last, self._known = block, True
        AUDIT_SEALED.inc(len(records))
        return len(records)

    async def seal_all(self) -> int:
        """Seal until nothing waits; returns how many records were sealed."""
        total = 0
        while count := await self.step():
            total += count
        return total


class SealerService:
    """The sealer as a service. It owns `results` and closes it."""

    def __init__(self, results: ResultStore) -> None:
        self._results = results
        self._sealer = Sealer(results)

    async def run(self, stop: asyncio.Event) -> None:
        """See `Service.run`. What was recorded before the stop is sealed before it ends."""
        try:
            await self._results.upgrade()
            await self._seal_on(stop)
            with contextlib.suppress(BackendError):  # the next start seals it
                await self._sealer.seal_all()
        finally:
            await self._results.close()

    async def _seal_on(self, stop: asyncio.Event) -> None:
        failures = 0
        while not stop.is_set():
            pause = EVERY
            try:
                count = await self._sealer.step()
                pause = 0.0 if count == ROWS else EVERY
                failures = 0
            except BackendError as error:
                failures += 1
                pause = max(EVERY, backoff(failures, cap=10.0))
                log.warning("records wait to be sealed", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)

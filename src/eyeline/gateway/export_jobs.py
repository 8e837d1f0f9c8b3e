"""Exports that are written in the background, to files in the data folder that can be fetched for a day.

What became of a job stands in two files: `<id>.json` says what was asked and how far it is; `<id>.part` is locked by whoever
writes it, and the lock ends with that process, so that everybody else knows whether anybody still writes. Gateways with one
data folder know each other's jobs; those with several do not.
"""

import asyncio
import fcntl
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import EyelineError, NotFound, Overloaded
from eyeline.core.ids import is_uuid, moment_of, uuid7
from eyeline.core.telemetry import logger, printable
from eyeline.core.types import Result
from eyeline.gateway.export import EXPORTS, Export, made_as, written
from eyeline.stores.results.base import Action, ResultQuery, ResultStore

log = logger("gateway")

#: For how long a file can be fetched, and of how many jobs of one person the files stay.
KEPT, EACH = timedelta(days=1), 3
#: Jobs that one gateway writes at a time; one of each person.
AT_ONCE = 2
#: Seconds between looks for what is over, and between two words about how far a job is.
SWEEP, WORD = 600.0, 1.0
#: Seconds for which nothing is swept: a file of a job that begins has no lock yet, one that ends has none any more.
YOUNG = 60.0


class ExportJob(msgspec.Struct, kw_only=True):
    """A job as it is kept. `about`: how many results it will have, judged by the time that its results span so far."""

    id: str
    by: str
    sites: list[str] | None
    asked: dict[str, Any]
    created_at: datetime
    expires_at: datetime
    state: Literal["running", "done", "failed", "broken"] = "running"
    results: int = 0
    about: int | None = None
    bytes: int | None = None
    error: str | None = None

    def seen_by(self, who: Principal) -> bool:
        """Whoever asked for it may see it, while nobody took a site of it away from them."""
        within = who.sites is None or (self.sites is not None and set(self.sites) <= set(who.sites))
        return self.by == who.name and within


class ExportJobs:
    """The jobs of one data folder, some of them written here."""

    def __init__(self, data_dir: Path, results: ResultStore) -> None:
        self._folder = data_dir / "exports"
        self._results = results
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._busy: set[str] = set()

    async def begin(self, query: ResultQuery, most: int | None, who: Principal, asked: Action) -> ExportJob:
        """A job that is being written from now on; `asked` is in the audit before the first result is read. Raises InputError
        where the format cannot be written here, Overloaded, also where the folder cannot be written to.
        """
        if who.name in self._busy:
            raise Overloaded("your export before this one is still being written; stop it, or wait", retry_after=60.0)
        if len(self._busy) >= AT_ONCE:
            raise Overloaded(f"{AT_ONCE} exports are being written already; try again in a minute", retry_after=60.0)
        made = made_as(asked.body["format"])
        now = utcnow()
        sites = None if who.sites is None else list(who.sites)
        job = ExportJob(
            id=uuid7(), by=who.name, sites=sites, asked=dict(asked.body), created_at=now, expires_at=now + KEPT
        )
        self._busy.add(who.name)
        try:
            part = await self._opened(job, asked)
        except BaseException:
            self._busy.discard(who.name)
            made.close()
            raise
        task = asyncio.create_task(self._run(job, part, query, made, most))
        self._writing[job.id] = task
        task.add_done_callback(lambda _: self._writing.pop(job.id, None) and None)
        return job

    async def of(self, who: Principal) -> list[ExportJob]:
        """Those of this person, the newest first."""
        return [job for job in await asyncio.to_thread(self._all) if job.seen_by(who)]

    async def get(self, id: str, who: Principal) -> ExportJob:  # noqa: A002
        """The job. Raises NotFound."""
        job = await asyncio.to_thread(self._read, id) if is_uuid(id) else None
        if job is None or not job.seen_by(who):
            raise NotFound(
                f"no export has the id {printable(id, 60)!r} at this gateway, or it is not yours; they are kept for a day"
            )
        return job

    def file(self, job: ExportJob) -> Path:
        """Where the whole file lies."""
        return self._folder / f"{job.id}.{EXPORTS[job.asked['format']].ending}"

    async def remove(self, job: ExportJob) -> None:
        """Stop it, and forget its file."""
        if task := self._writing.get(job.id):
            task.cancel()
            await asyncio.wait({task})
        await asyncio.to_thread(self._forget, [job])

    async def run(self) -> None:
        """Forget what is over, for ever; what is being written when this ends is broken off."""
        try:
            while True:
                await asyncio.to_thread(self._sweep)
                await asyncio.sleep(SWEEP)
        finally:
            tasks = list(self._writing.values())
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    # ---- writing
    async def _opened(self, job: ExportJob, asked: Action) -> IO[bytes]:
        try:
            part = await asyncio.to_thread(self._begun, job)
        except OSError as error:
            log.warning("no export can be written", folder=str(self._folder), error=str(error))
            why = f"no export can be written in the data_dir of this gateway: {error.strerror}; tell whoever runs it"
            raise Overloaded(why, retry_after=600.0, status=507) from error
        try:
            await self._results.record_action(replace(asked, body={**asked.body, "job": job.id}))
        except BaseException:
            part.close()
            self._forget([job])
            raise
        return part

    async def _run(self, job: ExportJob, part: IO[bytes], query: ResultQuery, made: Export, most: int | None) -> None:
        try:
            try:
                await self._write(job, part, query, made, most)
            finally:
                self._busy.discard(job.by)  # whoever reads that it is over may ask for the next one
            await asyncio.to_thread(self._ended, job, part)
        except Exception as error:
            told = isinstance(error, EyelineError | OSError)
            log.log(30 if told else 40, "an export failed", job=job.id, error=str(error), exc_info=not told)
            job.state, job.error = "failed", str(error) if told else "a fault of ours; the log says more"
            await asyncio.to_thread(self._keep, job)
        finally:
            part.close()
            self._part(job.id).unlink(missing_ok=True)

    async def _write(self, job: ExportJob, part: IO[bytes], query: ResultQuery, made: Export, most: int | None) -> None:
        """Half of the time is left to whoever waits for an answer."""
        loop = asyncio.get_running_loop()
        span = _Span(await self._last(query), most)
        began = kept = loop.time()

        def seen(page: Sequence[Result]) -> None:
            job.results += len(page)
            job.about = span.judged(page, job.results)

        async with aclosing(written(self._results, query, made, most, seen)) as parts:
            async for data in parts:
                await asyncio.to_thread(part.write, data)
                if loop.time() > kept + WORD:
                    kept = loop.time()
                    await asyncio.to_thread(self._keep, job)
                await asyncio.sleep(loop.time() - began)
                began = loop.time()

    async def _last(self, query: ResultQuery) -> datetime | None:
        """When the last result came that the export will reach."""
        found, _ = await self._results.find(replace(query, oldest=True, limit=1))
        return moment_of(found[0].id) if found else None

    # ---- files; these block
    def _part(self, id: str) -> Path:  # noqa: A002
        return self._folder / f"{id}.part"

    def _begun(self, job: ExportJob) -> IO[bytes]:
        """Locked before anybody hears of the job."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._part(job.id).open("wb")
        fcntl.flock(part, fcntl.LOCK_EX)
        mine = [other for other in self._all() if other.by == job.by and other.state != "running"]
        self._forget(mine[EACH - 1 :])
        self._keep(job)
        return part

    def _keep(self, job: ExportJob) -> None:
        """Whole or as it was; not where somebody removed it meanwhile."""
        if not self._part(job.id).exists():
            return
        fresh = self._folder / f"{job.id}.new"
        fresh.write_bytes(msgspec.json.encode(job))
        fresh.replace(self._folder / f"{job.id}.json")

    def _ended(self, job: ExportJob, part: IO[bytes]) -> None:
        """The file is there before the job says so, and its lock until then."""
        part.flush()
        self.file(job).hardlink_to(self._part(job.id))
        job.state, job.about, job.bytes, job.expires_at = "done", job.results, part.tell(), utcnow() + KEPT
        self._keep(job)

    def _all(self) -> list[ExportJob]:
        """By time, the newest first; what is over is not there."""
        names = sorted((path.stem for path in self._folder.glob("*.json")), reverse=True)
        return [job for job in map(self._read, names) if job is not None]

    def _read(self, id: str) -> ExportJob | None:  # noqa: A002
        try:
            job = msgspec.json.decode((self._folder / f"{id}.json").read_bytes(), type=ExportJob)
        except (OSError, msgspec.MsgspecError):
            return None
        if job.state == "running" and not self._is_written(id):
            job.state = "broken"
        return job if job.state == "running" or job.expires_at > utcnow() else None

    def _is_written(self, id: str) -> bool:  # noqa: A002
        """Whether its writer lives."""
        try:
            with self._part(id).open("rb") as part:
                fcntl.flock(part, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _forget(self, jobs: Sequence[ExportJob]) -> None:
        for job in jobs:
            for path in (self.file(job), self._part(job.id), self._folder / f"{job.id}.json"):
                path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Everything that belongs to no job which can be seen, but what is young: a job may begin or end meanwhile."""
        old = [path for path in self._folder.glob("*") if _age(path) > YOUNG]
        there = {job.id for job in self._all()}
        for path in old:
            id_ = path.name.partition(".")[0]
            if id_ not in there and not self._is_written(id_):
                path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    """Seconds since it was written; none for one that is gone already."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


class _Span:
    """Judges how many results there will be by the time that those seen so far span."""

    def __init__(self, last: datetime | None, most: int | None) -> None:
        self._last = last
        self._most = most
        self._first: datetime | None = None

    def judged(self, page: Sequence[Result], seen: int) -> int | None:
        """About so many, with two digits that count; None where that is not known."""
        if not page or self._last is None:
            return None
        self._first = self._first or moment_of(page[0].id)
        whole, done = self._first - self._last, self._first - moment_of(page[-1].id)
        if not done:
            return self._most
        count = int(seen * (whole / done)) if whole > done else seen
        most = count if self._most is None else min(count, self._most)
        return max(seen, int(float(f"{most:.2g}")))

"""Mails the shift report of each site when a shift ends: once, however often this is stopped and started."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from eyeline.core.clock import isoformat, parse_time, utcnow
from eyeline.core.errors import BackendError
from eyeline.core.ids import derived_id
from eyeline.core.service import sleep
from eyeline.core.settings import SiteSettings
from eyeline.core.shifts import shift_end, shift_start
from eyeline.core.telemetry import logger
from eyeline.reports.shift import headline, shift_report
from eyeline.stores.results.base import DeliveryRow, ResultStore

log = logger("alerts")

#: Seconds between two looks at the clock, and seconds after a shift's end that late frames are given.
ROUND, GRACE = 5.0, 60.0
#: A shift that ended longer ago is not reported any more.
OLDEST = timedelta(hours=24)


class ShiftReports:
    """Owes each of `notify` the reports of all `sites`. The mark of what was reported is committed with the delivery."""

    def __init__(
        self,
        sites: Sequence[SiteSettings],
        notify: Sequence[str],
        results: ResultStore,
        *,
        clock: Callable[[], datetime] = utcnow,
    ) -> None:
        self._sites = [site for site in sites if site.shifts] if notify else []
        self._notify = notify
        self._results = results
        self._clock = clock

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set."""
        while not stop.is_set():
            try:
                await self.round()
            except BackendError as error:
                log.warning("a shift report waits: the result store does not answer", error=str(error))
            except Exception:
                log.exception("a shift report broke")  # a bug in it must not stop the others
            await sleep(stop, ROUND)

    async def round(self) -> None:
        """Report what ended since the last look. Raises StoreError."""
        for site in self._sites:
            await self._look(site)

    async def _look(self, site: SiteSettings) -> None:
        now = self._clock()
        ended = _start(site, now - timedelta(seconds=GRACE))
        mark = await self._results.load_state(_name(site))
        if mark is None:  # the first start: the shifts before it are not reported
            await self._results.commit_alerts(state={_name(site): _told(ended)}, alerts=[], deliveries=[])
            return
        last = parse_time(mark.decode())
        while last < ended:
            until = min(_end(site, last), ended)
            await self._report(site, last, until, now)
            last = until

    async def _report(self, site: SiteSettings, since: datetime, until: datetime, now: datetime) -> None:
        """The deliveries and the mark in one transaction."""
        rows = [] if now - until > OLDEST else await self._rows(site, since, until, now)
        await self._results.commit_alerts(state={_name(site): _told(until)}, alerts=[], deliveries=rows)

    async def _rows(self, site: SiteSettings, since: datetime, until: datetime, now: datetime) -> list[DeliveryRow]:
        report = await shift_report(self._results, site, since, until, now, sites=None)
        body = {"type": "report.shift", "timestamp": isoformat(until), "text": headline(report), "data": report}
        payload = msgspec.json.encode(body)
        return [
            DeliveryRow(
                id=derived_id(until, "report", site.name, channel),
                alert_id="",
                channel=channel,
                payload=payload,
                captured_at=until,
                next_at=now,
                kind="report",
                site=site.name,
            )
            for channel in self._notify
        ]


class ReportService:
    """The reports of all sites. It owns `results` and closes it."""

    def __init__(self, sites: Sequence[SiteSettings], notify: Sequence[str], results: ResultStore) -> None:
        self._reports = ShiftReports(sites, notify, results)
        self._results = results

    async def run(self, stop: asyncio.Event) -> None:
        """See `Service.run`."""
        try:
            await self._results.upgrade()
            await self._reports.run(stop)
        finally:
            await self._results.close()


def _name(site: SiteSettings) -> str:
    return f"reports/shift/{site.name}"


def _told(moment: datetime) -> bytes:
    return isoformat(moment).encode()


def _start(site: SiteSettings, now: datetime) -> datetime:
    """When the shift that runs at `now` began, which is when the one before it ended."""
    start = shift_start(site.shifts, ZoneInfo(site.timezone), now)
    assert start is not None  # noqa: S101 - only sites with shifts are looked at
    return start.astimezone(UTC)


def _end(site: SiteSettings, start: datetime) -> datetime:
    end = shift_end(site.shifts, ZoneInfo(site.timezone), start)
    assert end is not None  # noqa: S101 - only sites with shifts are looked at
    return end.astimezone(UTC)

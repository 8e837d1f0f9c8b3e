"""Whether a notification is sent now: silences, snoozes and quiet hours. Pure; the clock and the silences are given."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from eyeline.core.settings import ChannelSettings, EscalationSettings, SilenceSettings, SiteSettings
from eyeline.core.weekly import Span, covered_until, span
from eyeline.stores.results.base import AlertRow, DeliveryRow, SilenceRow

_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


class Policy:
    """What the settings say of sites, channels and silences; `silences` are those that people made."""

    def __init__(
        self,
        sites: Sequence[SiteSettings] = (),
        channels: Sequence[ChannelSettings] = (),
        escalations: Sequence[EscalationSettings] = (),
        silences: Sequence[SilenceSettings] = (),
    ) -> None:
        self.silences: Sequence[SilenceRow] = ()
        self._zones = {site.name: ZoneInfo(site.timezone) for site in sites}
        self._quiet: Mapping[str, list[Span]] = {each.name: [span(text) for text in each.quiet] for each in channels}
        self._escalations = sorted(escalations, key=lambda each: each.after)
        self._standing = [_kept(silence, number) for number, silence in enumerate(silences)]

    def judged(self, row: DeliveryRow, alert: AlertRow, now: datetime) -> DeliveryRow | None:
        """None where it is to be sent now; otherwise the row as it is kept instead, saying why."""
        if alert.state == "resolved" and row.kind in {"escalation", "reminder"}:
            return replace(row, state="silenced", last_error="not sent: the alert was resolved before")
        silence = self.silence_of(alert, row.captured_at)
        if silence is not None:
            return replace(row, state="silenced", last_error=f"not sent: silenced, {silence.reason}")
        if row.kind == "alert" and alert.snoozed_until is not None and alert.snoozed_until > now:
            return replace(row, state="silenced", last_error="not sent: snoozed; a reminder follows")
        until = None if alert.severity == "critical" else self.quiet_until(row.channel, alert.site, now)
        return None if until is None else replace(row, state="held", next_at=until, last_error="quiet hours")

    def quiet_until(self, channel: str, site: str, now: datetime) -> datetime | None:
        """When the quiet hours of the channel end, by the clock of the site; None where there are none now."""
        until = covered_until(self._quiet.get(channel, ()), self._zone(site), now)
        return None if until is None else until.astimezone(UTC)

    def silence_of(self, alert: AlertRow, captured_at: datetime) -> SilenceRow | None:
        """The first silence that such an alert falls under."""
        every = [*self._standing, *self.silences]
        return next((each for each in every if self._silences(each, alert, captured_at)), None)

    def _silences(self, silence: SilenceRow, alert: AlertRow, moment: datetime) -> bool:
        asked = ((silence.site, alert.site), (silence.camera, alert.body.get("camera")), (silence.rule, alert.rule))
        if any(wanted not in {None, found} for wanted, found in asked):
            return False
        if moment < silence.since or (silence.until is not None and moment >= silence.until):
            return False
        spans = map(span, silence.weekly)
        return not silence.weekly or covered_until(spans, self._zone(alert.site), moment) is not None

    def tiers(self, alert: AlertRow) -> list[EscalationSettings]:
        """The escalations that the alert goes through while nobody acknowledges it."""
        return [each for each in self._escalations if _fits(each, alert)]

    @property
    def soonest(self) -> float | None:
        """Seconds after which the first escalation comes; None where there are none."""
        return self._escalations[0].after if self._escalations else None

    @property
    def latest(self) -> float:
        """Seconds after which the last one comes."""
        return self._escalations[-1].after if self._escalations else 0.0

    def _zone(self, site: str) -> ZoneInfo:
        return self._zones.get(site) or ZoneInfo("UTC")


def _fits(each: EscalationSettings, alert: AlertRow) -> bool:
    return (
        _any_of(each.severity, alert.severity) and _any_of(each.rules, alert.rule) and _any_of(each.sites, alert.site)
    )


def _any_of(names: Iterable[str], name: str) -> bool:
    names = tuple(names)
    return not names or name in names


def _kept(silence: SilenceSettings, number: int) -> SilenceRow:
    return SilenceRow(
        id=f"settings/{number}",
        reason=silence.reason,
        by="eyeline.toml",
        since=silence.since or _ALWAYS,
        site=silence.site,
        camera=silence.camera,
        rule=silence.rule,
        until=silence.until,
        weekly=tuple(silence.weekly),
    )

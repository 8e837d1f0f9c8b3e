"""Shifts: when the one that runs at a moment began, and when it ends, by the clock on the wall of the site."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo


def shift_start(shifts: list[str], zone: ZoneInfo, now: datetime) -> datetime | None:
    """When the shift that runs at `now` began, in site time; None where a site has no shifts.

    A shift begins when the clock on the wall first shows its hour; an hour that the clock skips begins when it jumps.
    """
    if not shifts:
        return None
    return max(start for start in _starts(shifts, zone, now, (0, -1)) if start.astimezone(UTC) <= now)


def shift_end(shifts: list[str], zone: ZoneInfo, now: datetime) -> datetime | None:
    """When the shift that runs at `now` ends, which is when the next one begins; None where a site has no shifts."""
    if not shifts:
        return None
    return min(start for start in _starts(shifts, zone, now, (0, 1, 2)) if start.astimezone(UTC) > now)


def _starts(shifts: list[str], zone: ZoneInfo, now: datetime, days: tuple[int, ...]) -> list[datetime]:
    today = now.astimezone(zone).date()
    return [
        on_the_wall(datetime.combine(today + timedelta(days=day), time.fromisoformat(text)), zone)
        for day in days
        for text in shifts
    ]


def on_the_wall(wall: datetime, zone: ZoneInfo) -> datetime:
    """That wall time as a moment: fold 0 is the first of two equal ones; a skipped one lands after the jump."""
    moment = wall.replace(tzinfo=zone)
    return moment.astimezone(UTC).astimezone(zone)

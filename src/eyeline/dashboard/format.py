"""How times, numbers and states are written on pages."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

from eyeline.core.clock import isoformat

#: A state is told by its shape first, so that it is told apart without colours.
GLYPHS = {
    "ok": "●",
    "review": "◆",
    "alert": "▲",
    "offline": "○",
    "acknowledged": "✓",
    "resolved": "✓",
    "snoozed": "◷",
    "silenced": "◷",
    "planned": "○",
    "critical": "▲",
    "warning": "◆",
    "info": "●",
    "cleared": "◇",
    "failed": "▲",
    "completed": "●",
    "confirmed": "✓",
    "corrected": "✎",
    "rejected": "✕",
    "unsure": "?",
    "comment": "“",
    "undo": "↶",
    "missed": "▲",
    "risk": "◆",
    "broken": "▲",
    "unmeasured": "○",
    "unused": "○",
    "running": "●",
    "silent": "○",
    "draining": "◆",
    "drained": "○",
    "serving": "●",
    "staged": "◆",
    "canary": "◆",
    "retired": "○",
    "valid": "●",
    "revoked": "○",
    "expired": "○",
}
#: Colours of boxes on photographs, in this order; each at least 5.9:1 against black.
PALETTE = ("#3d8bff", "#e8590c", "#2bd1a0", "#f0e442", "#d55fa8", "#c9f27b", "#a8e6ff", "#b9a3ff")
UNITS = ("B", "kB", "MB", "GB", "TB")
#: Thin, and a line does not break there.
THIN = "\u202f"


def glyph(state: str) -> str:
    """The sign of a state."""
    return GLYPHS.get(state, "●")


def local(moment: datetime | None, zone: str | None = None, *, short: bool = False) -> str:
    """A moment on the clock of a site, with its offset; short: the time of day alone."""
    if moment is None:
        return "–"
    there = moment.astimezone(ZoneInfo(zone) if zone else UTC)
    if short:
        return there.strftime("%H:%M:%S")
    offset = there.strftime("%z")
    return f"{there:%Y-%m-%d %H:%M:%S} UTC{offset[:3]}:{offset[3:]}"


def iso(moment: datetime | None) -> str:
    """A moment for machines."""
    return isoformat(moment) if moment is not None else ""


def number(value: float | None, digits: int = 3) -> str:
    """A number with thin spaces between thousands; a small one with so many significant digits."""
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 10 ** (digits - 1):
        return f"{round(value):,}".replace(",", THIN)
    return f"{value:.{digits}g}"


def size(count: float) -> str:
    """Bytes for people."""
    unit = 0
    while count >= 999.5 and unit < len(UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{number(round(count) if unit == 0 else count)} {UNITS[unit]}"


def percent(value: float | None) -> str:
    """A share of 0..1."""
    return "–" if value is None else f"{value * 100:.0f}%"


def tenths(value: float | None) -> str:
    """A small share of 0..1, to a tenth of a percent."""
    return "–" if value is None else f"{value * 100:.1f}{THIN}%"


def grouped(text: str | None) -> str:
    """A digest as people read it aloud: four characters at a time."""
    return " ".join((text or "–")[start : start + 4] for start in range(0, len(text or "–"), 4))


def tojson_attr(value: Any) -> Markup:
    """Data for a script within an attribute."""
    return escape(json.dumps(value, separators=(",", ":"), default=_plain))


def _plain(value: Any) -> Any:
    return value.plain()


FILTERS: dict[str, Callable[..., Any]] = {
    "local": local,
    "iso": iso,
    "number": number,
    "bytes": size,
    "percent": percent,
    "tenths": tenths,
    "grouped": grouped,
    "tojson_attr": tojson_attr,
}

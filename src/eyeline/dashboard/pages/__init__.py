"""The rooms of the dashboard: one module each, with its template, its script and its words beside."""

from collections.abc import Sequence

from eyeline.core.pages import Page
from eyeline.dashboard.pages import (
    alerts,
    audit,
    compare,
    items,
    live,
    login,
    models,
    operations,
    record,
    report,
    review,
    rules,
    system,
)
from eyeline.dashboard.shell import Room, Shell
from eyeline.dashboard.sources import Sources

ROOMS: tuple[Room, ...] = (
    live.ROOM,
    alerts.ROOM,
    review.ROOM,
    audit.ROOM,
    record.ROOM,
    items.ROOM,
    report.ROOM,
    operations.ROOM,
    models.ROOM,
    compare.ROOM,
    rules.ROOM,
    system.ROOM,
    login.ROOM,
)


def dashboard_pages(sources: Sources, rooms: Sequence[Room] = ROOMS) -> tuple[Page, ...]:
    """All routes, for the gateway to serve."""
    return Shell(sources, rooms).pages()

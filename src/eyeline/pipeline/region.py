"""Regions of interest: which boxes count by where their middle lies, and what the place is called."""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from eyeline.core.types import Detection

#: A polygon's corners as shares of the picture's width and height, 0..1.
Polygon = tuple[tuple[float, float], ...]


class RegionStep(msgspec.Struct, frozen=True):
    """Keep what lies in any polygon of `inside` (none: everywhere) and in none of `outside`, and give it the name of the
    first of `zones` in which it lies. `on`: of that step alone.
    """

    name: str
    on: str | None = None
    inside: tuple[Polygon, ...] = ()
    outside: tuple[Polygon, ...] = ()
    zones: tuple[tuple[str, Polygon], ...] = ()


def kept(detections: Sequence[Detection], step: RegionStep, width: int, height: int) -> list[Detection]:
    """The detections of an upright original of that size that stay, in their order, each with its `zone` where it has one."""
    stay = []
    for found in detections:
        x, y = (found.box[0] + found.box[2]) / 2 / width, (found.box[1] + found.box[3]) / 2 / height
        if step.on is not None and found.step != step.on:
            stay.append(found)
        elif _counts(step, x, y):
            zone = next((name for name, polygon in step.zones if contains(polygon, x, y)), None)
            stay.append(found if zone is None else replace(found, attributes={**found.attributes, "zone": zone}))
    return stay


def _counts(step: RegionStep, x: float, y: float) -> bool:
    inside = not step.inside or any(contains(polygon, x, y) for polygon in step.inside)
    return inside and not any(contains(polygon, x, y) for polygon in step.outside)


def contains(polygon: Sequence[tuple[float, float]], x: float, y: float) -> bool:
    """Whether a point lies in a polygon, by the parity of the edges that a ray to the right crosses."""
    inside = False
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            inside = not inside
    return inside

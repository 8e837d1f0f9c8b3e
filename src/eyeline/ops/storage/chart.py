"""The forecast as a picture (SVG) and as a bar for a terminal."""

from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 900, 360, 90, 60, 50
INK, MUTED, LINE, FILL, LIMIT = "#16191D", "#4F5964", "#D5DAE0", "#0A5FA8", "#B3261E"
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def size(count: float) -> str:
    """Bytes for people: 1.2 GB."""
    index = 0
    while abs(count) >= 999.5 and index < len(UNITS) - 1:
        count /= 1000
        index += 1
    return f"{count:.0f} {UNITS[index]}" if count >= 100 or index == 0 else f"{count:.1f} {UNITS[index]}"


def bar(used: float, total: float, width: int = 40) -> str:
    """A bar of blocks, filled as the disk is."""
    share = min(1.0, used / total) if total else 0.0
    full = round(share * width)
    return f"{'█' * full}{'░' * (width - full)} {share:.0%} of {size(total)}"


def chart(report: dict[str, Any]) -> str:
    """What is to be kept over the next months, and the disk's end where it is known, as SVG."""
    forecast, disk = report["forecast"], report["disk"]
    points = [(point["day"], float(point["bytes"])) for point in forecast["points"]]
    ceiling = points[0][1] + disk["free"] if disk is not None else None
    highest = max([value for _, value in points] + ([ceiling] if ceiling is not None else [])) or 1.0
    across = (WIDTH - LEFT - 30) / max(1, len(points) - 1)

    def x(index: float) -> float:
        return round(LEFT + index * across, 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / highest, 1)

    line = " ".join(f"{x(index)},{y(value)}" for index, (_, value) in enumerate(points))
    area = f"{x(0)},{y(0)} {line} {x(len(points) - 1)},{y(0)}"
    parts = [
        _text(LEFT, 28, headline(report), INK, 18),
        *(_level(value, y(value)) for value in (0.0, highest / 2, highest)),
        f'<polygon points="{area}" fill="{FILL}" fill-opacity="0.15"/>',
        f'<polyline points="{line}" fill="none" stroke="{FILL}" stroke-width="2"/>',
        *(_text(x(index), HEIGHT - 24, points[index][0], MUTED, 12) for index in range(0, len(points), 26)),
    ]
    if ceiling is not None:
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 30}" y1="{y(ceiling)}" y2="{y(ceiling)}" stroke="{LIMIT}"/>')
        parts.append(_text(LEFT + 6, y(ceiling) + 16, "the disk is full", LIMIT, 12))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif">\n'
        f"<title>{escape(headline(report))}</title>\n"
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def headline(report: dict[str, Any]) -> str:
    """The one sentence that matters."""
    forecast = report["forecast"]
    if forecast["known_days"] < 2:
        return "nothing to forecast yet: it takes two days of images"
    if forecast["full_on"] is not None:
        return f"disk full on {forecast['full_on']}"
    if forecast["limit_on"] is not None:
        return f"[retention] max_bytes reached on {forecast['limit_on']}; from then on the oldest originals go early"
    if report["disk"] is None:
        return f"{size(forecast['points'][52]['bytes'])} in a year"
    return "the disk is not full within two years"


def _level(value: float, y: float) -> str:
    rule = f'<line x1="{LEFT}" x2="{WIDTH - 30}" y1="{y}" y2="{y}" stroke="{LINE}"/>'
    return rule + _text(10, y + 4, size(value), MUTED, 12)


def _text(x: float, y: float, words: str, colour: str, pixels: int) -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}" font-size="{pixels}">{escape(words)}</text>'

"""The benchmark as a picture: throughput, CPU an image, and p99 at the load where the naive service reaches 2 s."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

INK, MUTED, LINE = "#16191D", "#4F5964", "#D5DAE0"
COLOURS = {"limit": "#7C8792", "Eyeline": "#0A5FA8", "naive": "#B35C00"}
WIDTH, PANEL, MARGIN = 900, 150, 24


def draw_chart(figures: dict[str, Any], path: Path) -> None:
    """Write a PNG of three panels of horizontal bars, values written at their ends."""
    limit, service, naive = figures["limit"], figures["service"], figures["naive"]
    ours = service["at_naive_2s"]["p99"] or 0.0
    panels = [
        (
            "Images per second (more is better)",
            [(n, p["images_per_second"], f"{p['images_per_second']:.0f}") for n, p in _three(limit, service, naive)],
        ),
        (
            "CPU milliseconds an image (less is better)",
            [(n, p["cpu_ms_per_image"], f"{p['cpu_ms_per_image']:.1f} ms") for n, p in _three(limit, service, naive)],
        ),
        (
            f"p99 at {naive['rate_at_2s']:.0f} images/s, where the naive service reaches 2 s (less is better)",
            [
                ("Eyeline", ours, f"{ours * 1000:.0f} ms"),
                ("naive", naive["p99_at_2s"], f"{naive['p99_at_2s'] * 1000:.0f} ms"),
            ],
        ),
    ]
    picture = Image.new("RGB", (WIDTH, 60 + PANEL * len(panels)), "white")
    draw = ImageDraw.Draw(picture)
    shares = f"{figures['fraction_of_limit']:.0%} of this machine's limit, {figures['times_naive']:.1f} times naive"
    title = f"{figures['model']}: {shares}"
    draw.text((MARGIN, 18), title, fill=INK, font=ImageFont.load_default(20))
    for number, (heading, bars) in enumerate(panels):
        _panel(draw, 60 + number * PANEL, heading, bars)
    picture.save(path)


def _three(limit: Any, service: Any, naive: Any) -> list[tuple[str, Any]]:
    return [("limit", limit), ("Eyeline", service), ("naive", naive)]


def _panel(draw: ImageDraw.ImageDraw, top: int, heading: str, bars: Sequence[tuple[str, float, str]]) -> None:
    draw.line((MARGIN, top, WIDTH - MARGIN, top), fill=LINE)
    draw.text((MARGIN, top + 8), heading, fill=INK, font=ImageFont.load_default(15))
    largest = max(value for _, value, _ in bars) or 1.0
    for number, (name, value, words) in enumerate(bars):
        y = top + 36 + number * 34
        length = int((WIDTH - 260) * value / largest)
        draw.text((MARGIN, y + 4), name, fill=MUTED, font=ImageFont.load_default(14))
        draw.rectangle((110, y, 110 + max(1, length), y + 24), fill=COLOURS[name])
        draw.text((118 + length, y + 4), words, fill=INK, font=ImageFont.load_default(14))

"""A shift report as a page for print and e-mail, and as a table. Pure; everything in it is escaped."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from jinja2 import Environment

from eyeline.core.cells import safe_cell
from eyeline.core.clock import parse_time
from eyeline.reports.shift import headline

STYLE = """
body{font:14px/1.45 system-ui,sans-serif;color:#16191d;background:#fff;max-width:60rem;margin:24px auto;padding:0 16px}
h1{font-size:20px}h2{font-size:16px;margin:24px 0 4px}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:4px 12px 4px 0;border-bottom:1px solid #d5dae0;vertical-align:top}
.n{text-align:right;font-variant-numeric:tabular-nums}.none{color:#4f5964}
@media print{body{margin:0;max-width:none;font-size:11pt}h2,tr{break-inside:avoid}h2{break-after:avoid}}
@page{margin:15mm}
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ title }}</title><style>{{ style }}</style></head><body><main>
<h1>{{ title }}</h1><p>{{ summary }}</p>
{% for section in sections %}
<h2>{{ section.title }} ({{ section.rows|length }})</h2>
{% if section.rows %}
<table><thead><tr>{% for name in section.columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for row in section.rows %}
<tr>{% for cell in row %}<td{% if cell is number %} class="n"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table>
{% else %}
<p class="none">None.</p>
{% endif %}
{% endfor %}
<p class="none">{{ footer }}</p>
</main></body></html>
"""


class Section(NamedTuple):
    """A heading and the table under it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def sections(report: Mapping[str, Any]) -> list[Section]:
    """What the report tells, in the order of what the next shift needs first; times by the clock of the site."""
    zone = ZoneInfo(report["timezone"])

    def at(text: str) -> str:
        return f"{parse_time(text).astimezone(zone):%Y-%m-%d %H:%M}"

    return [
        Section(
            "Not resolved",
            ("Severity", "Rule", "Camera", "State", "Whose", "Since", "Times"),
            [
                (
                    c["severity"],
                    c["rule"],
                    c["camera"] or "",
                    c["state"],
                    c["assignee"] or "",
                    at(c["opened_at"]),
                    c["count"],
                )
                for c in report["open"]
            ],
        ),
        Section(
            "Notes",
            ("Time", "Who", "Rule", "Note"),
            [(at(note["at"]), note["by"], note["rule"] or "", note["note"]) for note in report["notes"]],
        ),
        Section(
            "Cameras offline",
            ("Camera", "State", "Last heard"),
            [(each["camera"], each["state"], at(each["reported_at"])) for each in report["offline"]],
        ),
        Section(
            "Alerts by rule and camera",
            ("Rule", "Camera", "Opened", "Real", "False", "Test", "False alarms"),
            [
                (
                    each["rule"],
                    each["camera"] or "",
                    each["opened"],
                    *each["dispositions"].values(),
                    share(each["false_share"]),
                )
                for each in report["rules"]
            ],
        ),
        Section("Images by camera", ("Camera", "Images"), list(report["results"]["by_camera"].items())),
        Section("Images by label", ("Label", "Images"), list(report["results"]["by_label"].items())),
        Section(
            "Changes of rules, models and keys",
            ("Time", "Who", "What"),
            [
                (at(each["at"]), each["by"], f"{each['what']} {each.get('name', '')}".strip())
                for each in report["changes"]
            ],
        ),
    ]


def share(value: float | None) -> str:
    """A share in percent; nothing where nothing was judged."""
    return "" if value is None else f"{value:.0%}"


def footer(report: Mapping[str, Any]) -> str:
    """Whose clock, when made, and whether it tells all."""
    made = parse_time(report["made_at"]).astimezone(ZoneInfo(report["timezone"]))
    more = " There was more than a report tells." if report["more"] else ""
    return f"Times are those of {report['timezone']}. Made {made:%Y-%m-%d %H:%M}.{more}"


def html_page(report: Mapping[str, Any]) -> str:
    """The report as one page that needs nothing else: no script, no picture, no font."""
    title, _, summary = headline(report).partition("\n")
    page = Environment(autoescape=True, trim_blocks=True).from_string(_PAGE)
    return page.render(title=title, summary=summary, style=STYLE, sections=sections(report), footer=footer(report))


def csv_page(report: Mapping[str, Any]) -> str:
    """The same sections one below the other: the first cell of a line says of which."""
    text = io.StringIO()
    writer = csv.writer(text)
    title, _, summary = headline(report).partition("\n")
    writer.writerows([[safe_cell(title)], [safe_cell(summary)]])
    for section in sections(report):
        writer.writerow(["Section", *section.columns])
        writer.writerows([[section.title, *map(safe_cell, row)] for row in section.rows])
    return text.getvalue()

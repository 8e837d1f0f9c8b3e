"""The pages of the queues say what their backends declare and the contract suite proves."""

from pathlib import Path
from typing import get_args

import pytest

from eyeline.queues import QUEUES
from eyeline.queues.base import Promise

PAGES = Path(__file__).resolve().parents[3] / "docs" / "backends"
SHOWN = ("sqlite", "redis", "postgresql", "sqs", "kafka")


def _table() -> str:
    abilities = {scheme: QUEUES.load(scheme).abilities for scheme in SHOWN}
    lines = [f"| | {' | '.join(SHOWN)} |", "|---" * (len(SHOWN) + 1) + "|"]
    for promise in get_args(Promise):
        marks = ["no" if promise in abilities[scheme].cannot else "yes" for scheme in SHOWN]
        lines.append(f"| {promise} | {' | '.join(marks)} |")
    grains = [f"{abilities[scheme].grain:g} s" if abilities[scheme].grain else "exact" for scheme in SHOWN]
    lines.append(f"| leases and delays | {' | '.join(grains)} |")
    return "\n".join(lines)


def test_the_table_of_queues_is_what_the_backends_declare() -> None:
    assert _table() in (PAGES / "README.md").read_text(), _table()


@pytest.mark.parametrize("scheme", sorted({*QUEUES.schemes()} - {"sqlite", "memory", "rediss"}))
def test_every_queue_behind_a_server_has_a_page_that_names_what_it_cannot_promise(scheme: str) -> None:
    text = (PAGES / f"queues-{scheme}.md").read_text()
    assert [promise for promise in QUEUES.load(scheme).abilities.cannot if f"*{promise}*" not in text] == []
    assert "Tested on " in text

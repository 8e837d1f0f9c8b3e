"""Exports are bounded: a few at a time, each as long as was asked."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import pytest

from eyeline.core.errors import Overloaded
from eyeline.gateway.export import AT_ONCE, Exporter
from eyeline.stores.results import open_results
from eyeline.stores.results.base import Action, ResultQuery


async def test_a_few_exports_are_written_at_a_time(tmp_path: Path) -> None:
    store = open_results(f"sqlite:///{tmp_path}/results.db")
    await store.upgrade()
    exporter, asked = Exporter(store), Action(what="export", by="ana")
    begun = [await exporter.export(ResultQuery(), "csv", None, asked) for _ in range(AT_ONCE)]
    running = [cast("AsyncGenerator[bytes]", each.body_iterator) for each in begun]
    for each in running:
        assert (await anext(each)).startswith(b"id,")
    with pytest.raises(Overloaded, match="try again"):
        await exporter.export(ResultQuery(), "csv", None, asked)
    await running[0].aclose()  # the reader went away
    await exporter.export(ResultQuery(), "csv", None, asked)
    assert len(await store.unsealed(10)) == AT_ONCE + 1, "what was refused is no export"
    await store.close()

"""`eyeline db upgrade --stay`: the tables' owner makes the partitions of the coming months, every day until it is stopped."""

import os
import signal
from datetime import datetime
from pathlib import Path

import pytest

from eyeline import cli
from eyeline.stores.results.sql import SqlResults


def test_it_goes_on_every_day_until_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[datetime] = []

    async def make_room(_results: SqlResults, now: datetime) -> None:
        made.append(now)
        if len(made) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(SqlResults, "make_room", make_room)
    monkeypatch.setattr(cli, "A_DAY", 0.01)
    monkeypatch.chdir(tmp_path)
    cli.db_upgrade(None, tmp_path / "data", stay=False)
    assert len(made) == 1
    cli.db_upgrade(None, tmp_path / "data", stay=True)
    assert len(made) in {3, 4}  # one may be under way while the signal arrives
    assert "up to date" in capsys.readouterr().out

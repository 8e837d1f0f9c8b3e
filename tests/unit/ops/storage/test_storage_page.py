"""docs/storage.md: its settings are settings, its commands are commands."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from eyeline.cli import app
from eyeline.core.settings import Settings
from eyeline.ops.storage.policy import Policy

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "storage.md").read_text()
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("block", TOML)
def test_a_block_of_the_page_is_retention_that_works(block: str) -> None:
    settings = Settings.model_validate(tomllib.loads(block))
    assert Policy(settings.retention).times("originals")


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_is_one(line: str) -> None:
    program, *words = shlex.split(line)
    assert program == "eyeline"
    command = typer.main.get_command(app)
    while words and (inner := getattr(command, "commands", {}).get(words[0])) is not None:
        command, words = inner, words[1:]
    command.make_context("eyeline", words)


def test_there_is_something_to_test() -> None:
    assert len(TOML) == 1
    assert len(COMMANDS) > 5

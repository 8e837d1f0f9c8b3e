"""The settings that docs/channels.md and docs/outputs.md show are settings that work."""

import re
import tomllib
from pathlib import Path

import pytest

from eyeline.alerts.channels import open_channel
from eyeline.alerts.outputs import check_output
from eyeline.core.settings import load_settings

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.parametrize("page", ["channels.md", "outputs.md"])
async def test_the_settings_on_the_page_work(page: str) -> None:
    text = (DOCS / page).read_text()
    [shown] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    settings = load_settings(environ={}, overrides=tomllib.loads(shown))
    assert settings.alerts.channels or settings.outputs
    for channel in settings.alerts.channels:
        await open_channel(channel).close()
    for output in settings.outputs:
        await check_output(output)

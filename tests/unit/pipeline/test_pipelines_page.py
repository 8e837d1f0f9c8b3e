"""docs/pipelines.md: every settings block on it is one that runs with the bundled models."""

import re
import tomllib
from pathlib import Path

import pytest

from eyeline.core.settings import STEP_WORDS, Settings
from eyeline.inference.bundles import bundled_folder, read_contract
from eyeline.pipeline.plan import Plan

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "pipelines.md").read_text()
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_the_page_is_a_pipeline_that_can_be_planned(block: str) -> None:
    settings = Settings.model_validate(tomllib.loads(block))
    contracts = {path.name: read_contract(path / "model.toml") for path in bundled_folder().iterdir() if path.is_dir()}
    for pipeline in settings.pipelines:
        assert Plan.of(pipeline, contracts).steps


def test_every_kind_and_word_of_a_step_is_on_the_page() -> None:
    missing = [word for kind, words in STEP_WORDS.items() for word in (kind, *words) if f"`{word}" not in PAGE]
    assert missing == []

"""The page on alerts says what the code does."""

import re
import tomllib

import pytest

from eyeline.alerts.expression import NAMES, compile_condition
from eyeline.alerts.rules import compile_rule
from eyeline.alerts.sender import SCHEDULE
from eyeline.core.errors import ConfigError
from eyeline.core.settings import AlertSettings, RuleSettings
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "alerts.md").read_text()


def test_its_conditions_are_conditions() -> None:
    [block, _] = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    conditions = block.strip().splitlines()
    assert len(conditions) > 4
    for condition in conditions:
        compile_condition(condition)


def test_its_settings_are_settings() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    rules = [rule for block in blocks for rule in tomllib.loads(block)["alerts"]["rules"]]
    compiled = [compile_rule(rule) for rule in AlertSettings.model_validate({"rules": rules}).rules]
    assert {rule.kind for rule in compiled} == {"hits", "frames", "share", "absence"}
    assert {rule.about for rule in compiled} == {"results", "health", "slo"}


def test_its_mistake_is_said_as_it_says() -> None:
    [(condition, said)] = re.findall(r"--when \"(.*?)\"\n(.*?)```", PAGE, re.DOTALL)
    with pytest.raises(ConfigError) as error:
        compile_rule(RuleSettings(name="this rule", when=condition))
    assert str(error.value) == said.rstrip()


def test_it_knows_every_name() -> None:
    missing = [name for name in NAMES if f"`{name}`" not in PAGE]
    assert missing == []


def test_it_tells_the_schedule() -> None:
    hours = (SCHEDULE[n] / 3600 for n in range(3, 9))
    assert [*SCHEDULE[:3], *hours] == [5, 300, 1800, 2, 5, 10, 14, 20, 24]
    assert "5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 h" in PAGE

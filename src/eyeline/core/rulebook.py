"""What the API and the pages know of rules; how they work is the alert engine's affair, and neither knows that room."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from eyeline.core.access import Principal
from eyeline.core.settings import RuleSettings


class Rulebook(Protocol):
    """The rules of the settings, and those that people made."""

    channels: Sequence[str]

    def read(self, tree: Mapping[str, Any]) -> RuleSettings:
        """A rule from outside. Raises BadRule naming the word, and the place in it."""
        ...

    def from_toml(self, text: bytes) -> dict[str, Any]:
        """The words of one rule in TOML, alone or under [[alerts.rules]]. Raises BadRule."""
        ...

    def toml(self, rule: RuleSettings) -> str:
        """The rule as it would stand in the settings file."""
        ...

    async def listed(self, who: Principal) -> list[dict[str, Any]]:
        """All rules, those of the settings first, each with what became of its alerts at the sites that the caller sees."""
        ...

    async def one(self, name: str, who: Principal) -> dict[str, Any]:
        """A rule with its versions. Raises NotFound."""
        ...

    async def save(self, rule: RuleSettings, version: int | None, who: Principal) -> dict[str, Any]:
        """Make or change a rule; as it is already, nothing is changed. `version`: the one that was looked at. Raises Forbidden,
        Conflict, BadRule.
        """
        ...

    async def remove(self, name: str, version: int | None, who: Principal) -> None:
        """Remove a rule. Raises Forbidden, NotFound, Conflict."""
        ...

    async def try_out(self, rule: RuleSettings, since: datetime | None, who: Principal) -> dict[str, Any]:
        """What it would have done since then (None: for a day). Raises BadRule, InputError, Overloaded."""
        ...

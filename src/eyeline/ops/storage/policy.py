"""For how long a result and its picture are kept: the first rule that fits decides, else [retention] itself. Pure."""

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

from eyeline.core.settings import RetentionRuleSettings, RetentionSettings, kept_seconds
from eyeline.core.types import Result
from eyeline.stores.results.rows import label_rows

Stage = Literal["reencode", "originals", "evidence", "results"]
#: What no rule is about.
OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Seconds from reception until each stage; infinity is never. `name`: the class of results that they are about."""

    name: str
    reencode: float
    originals: float
    evidence: float
    results: float

    @property
    def makes_evidence(self) -> bool:
        """Whether something is kept of a picture after its original."""
        return self.evidence > self.originals


class Policy:
    """The retention settings, ready to be asked. `digest` changes with what they mean."""

    def __init__(self, settings: RetentionSettings) -> None:
        self._settings = settings
        self._rules = [(rule, _terms(_named(rule), rule, settings)) for rule in settings.rules]
        self.other = _terms(OTHER, settings, settings)
        self.digest = hashlib.sha256(settings.model_dump_json(exclude={"max_bytes"}).encode()).hexdigest()[:16]

    @property
    def classes(self) -> list[Terms]:
        """All terms there are, those of the rules first."""
        return [*(terms for _, terms in self._rules), self.other]

    def terms(self, result: Result) -> Terms:
        """Those of this result."""
        return next((terms for rule, terms in self._rules if _fits(rule, result)), self.other)

    def times(self, stage: Stage) -> list[float]:
        """After which times something is to be done, shortest first; never is no time."""
        found = {getattr(terms, stage) for terms in self.classes}
        return sorted(seconds for seconds in found if seconds < math.inf)


def _terms(name: str, one: RetentionSettings | RetentionRuleSettings, base: RetentionSettings) -> Terms:
    results, originals, evidence = (
        kept_seconds(getattr(one, word) or getattr(base, word)) for word in ("results", "originals", "evidence")
    )
    originals = min(originals, results)
    reencode = kept_seconds(base.reencode_after) if base.reencode else math.inf
    return Terms(
        name=name,
        reencode=reencode if reencode < originals else math.inf,
        originals=originals,
        evidence=min(evidence, results),
        results=results,
    )


def _named(rule: RetentionRuleSettings) -> str:
    words = [rule.label, rule.site and f"site {rule.site}", rule.camera and f"camera {rule.camera}"]
    return ", ".join(word for word in words if word)


def _fits(rule: RetentionRuleSettings, result: Result) -> bool:
    if rule.site not in {None, result.site} or rule.camera not in {None, result.camera}:
        return False
    if rule.label is None:
        return True
    return any(row["label"] == rule.label and row["score"] >= rule.min_score for row in label_rows(result))

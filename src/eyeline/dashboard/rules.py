"""Rules as pages show them: in words, made of the parts of a form, and made of the words of a search. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from eyeline.core.settings import RuleSettings
from eyeline.dashboard.words import Words
from eyeline.stores.results.base import Prefix, ResultQuery
from eyeline.stores.results.search import Search

#: The parts of a condition that the form has a field for.
PARTS = ("label", "score", "zone", "camera")


def sentence(rule: RuleSettings, words: Words) -> str:
    """The rule in words."""
    kind = "absent" if rule.absent else "share" if rule.share is not None else "of" if rule.of else "within"
    if kind == "within" and rule.count == 1:
        kind = "once"
    if kind == "share" and rule.of is None:
        kind = "share_of_time"
    values = {
        "when": rule.when,
        "count": rule.count,
        "of": rule.of or "",
        "within": rule.within,
        "share": f"{(rule.share or 0) * 100:g} %",
        "absent": rule.absent,
        "severity": rule.severity,
        "channels": ", ".join(rule.notify) or words.say("rules.nobody"),
    }
    return words.say(f"rules.sentence.{kind}", **values)


def condition_of(parts: Mapping[str, str]) -> str:
    """`label == 'damaged' and score >= 0.8`; the page's script makes the same."""
    said = []
    for part, value in parts.items():
        if value and part == "score":
            said.append(f"score >= {value}")
        elif value:
            said.append(f"{part} == {_quoted(value)}")
    return " and ".join(said)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What of a search became a condition. `today`: the tokens that stand for names of now alone; `left`: those that could
    not be said, each with the name of the reason.
    """

    when: str
    today: tuple[str, ...]
    left: tuple[tuple[str, str], ...]


#: Why a token cannot be said in a rule: rules look at what comes, before anybody judged it.
_LEFT = {"verdict": "judged", "by": "judged", "model": "model", "from": "time", "until": "time"}


def carried(search: Search, *, sites: Iterable[str], cameras: Iterable[str]) -> Carried:
    """The condition that asks of an image what the search asks of results. A name with a `*` becomes the `sites` and
    `cameras` of now that begin so.
    """
    known = {"site": sorted(set(sites)), "camera": sorted(set(cameras))}
    said: list[str] = []
    today: list[str] = []
    left: list[tuple[str, str]] = []
    for token in search.tokens:
        condition = None if token.name in _LEFT else _condition(token.name, search.query, known)
        if condition is None:
            left.append((str(token), _LEFT.get(token.name, "begins")))
        else:
            said.append(condition)
            if isinstance(getattr(search.query, token.name, None), Prefix):
                today.append(str(token))
    return Carried(when=" and ".join(said), today=tuple(today), left=tuple(left))


def _condition(name: str, query: ResultQuery, known: Mapping[str, Iterable[str]]) -> str | None:
    """What one token asks for; None where the language of rules has no words for it."""
    if name == "score":
        least = [] if query.min_score is None else [f"score >= {query.min_score:g}"]
        most = [] if query.max_score is None else [f"score < {query.max_score:g}"]
        return " and ".join(least + most)
    value = getattr(query, name)
    if isinstance(value, Prefix):
        begun = [_quoted(each) for each in known.get(name, ()) if each.startswith(value)]
        return f"{name} in ({', '.join(begun)})" if len(begun) > 1 else f"{name} == {begun[0]}" if begun else None
    return f"{_quoted(value)} in codes" if name == "code" else f"{name} == {_quoted(value)}"

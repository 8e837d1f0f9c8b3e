"""The words of search: `site:leeds camera:dock-* label:dent score:<0.5 from:-2h`, read once into a ResultQuery. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, get_args

from eyeline.core.clock import parse_time
from eyeline.core.errors import InputError
from eyeline.core.telemetry import printable
from eyeline.core.types import VERDICTS
from eyeline.stores.results.base import Ended, Prefix, ResultQuery

LONGEST = 1000
LONGEST_VALUE = 200
_TOKEN = re.compile(r'(?P<name>[a-z]+):(?P<value>"(?:[^"\\]|\\.)*"|\S*)(?=\s|$)|(?P<strange>\S+)')
_AGO = re.compile(r"-(\d{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_NUMBER = r"\d+(?:\.\d+)?|\.\d+"
_SCORE = re.compile(rf"<(?P<most>{_NUMBER})|>=?(?P<least>{_NUMBER})|(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER})")


@dataclass(frozen=True)
class Token:
    """One word of a search as it was read: `value` without quotes."""

    name: str
    value: str

    def __str__(self) -> str:
        plain = self.value and '"' not in self.value and not any(letter.isspace() for letter in self.value)
        if plain:
            return f"{self.name}:{self.value}"
        quoted = self.value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{self.name}:"{quoted}"'


@dataclass(frozen=True)
class Search:
    """The tokens of a search, each name once, and what they ask for."""

    tokens: tuple[Token, ...]
    query: ResultQuery

    def __str__(self) -> str:
        return " ".join(map(str, self.tokens))

    @property
    def fields(self) -> dict[str, str]:
        """The values by name, as a form shows them."""
        return {token.name: token.value for token in self.tokens}

    def without(self, name: str, now: datetime) -> "Search":
        """The same search but for one token."""
        return _search([token for token in self.tokens if token.name != name], now)


def parse(text: str, now: datetime) -> Search:
    """The search that the text asks for. Raises InputError, which points at the token and says what would do."""
    if len(text) > LONGEST:
        raise InputError(f"a search of {len(text)} characters; use {LONGEST} at most")
    return _search([_token(found) for found in _TOKEN.finditer(text)], now)


def from_fields(fields: Mapping[str, str], now: datetime) -> Search:
    """The search that the fields of a form ask for; empty ones ask for nothing. Raises InputError."""
    return _search([Token(name, value.strip()) for name, value in fields.items() if value.strip()], now)


def _token(found: re.Match[str]) -> Token:
    if found["strange"] is not None:
        raise InputError(
            f"{_shown(found['strange'])} is no token; write name:value, such as ref:{printable(found['strange'], 20)} "
            f"(names: {', '.join(NAMES)})"
        )
    value = found["value"]
    if value.startswith('"'):
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    return Token(found["name"], value)


def _search(tokens: Sequence[Token], now: datetime) -> Search:
    asked: dict[str, Any] = {}
    for token in tokens:
        if token.name not in NAMES:
            near = get_close_matches(token.name, NAMES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"{_shown(str(token))}: no token is called {_shown(token.name)}; names: {', '.join(NAMES)}{hint}"
            )
        if not token.value:
            raise InputError(f"{token.name}: has no value; write one behind the colon, or leave it out")
        if len(token.value) > LONGEST_VALUE or token.value != printable(token.value, len(token.value)):
            raise InputError(
                f"{_shown(str(token))}: give at most {LONGEST_VALUE} characters, and no control characters"
            )
        values = NAMES[token.name](token, now)
        if asked.keys() & values.keys():
            raise InputError(f"{token.name}: stands twice; give it once")
        asked |= values
    return Search(tuple(tokens), ResultQuery(**asked))


def _text(field: str) -> "Reader":
    return lambda token, _: {field: token.value}


def _starred(field: str) -> "Reader":
    """A `*` at the end asks for all that begins so."""

    def read(token: Token, _: datetime) -> dict[str, Any]:
        stem = token.value.removesuffix("*")
        if "*" in stem or (not stem and token.value == "*"):
            raise InputError(f"{_shown(str(token))}: one * may stand at the end, behind at least one character")
        return {field: token.value if stem == token.value else Prefix(stem)}

    return read


def _one_of(field: str, words: Sequence[str]) -> "Reader":
    def read(token: Token, _: datetime) -> dict[str, Any]:
        if token.value not in words:
            raise InputError(f"{_shown(str(token))}: there are {', '.join(words)}")
        return {field: token.value}

    return read


def _score(token: Token, _: datetime) -> dict[str, Any]:
    found = _SCORE.fullmatch(token.value)
    if found is None:
        raise InputError(f"{_shown(str(token))}: write score:<0.5, score:>=0.8 or score:0.3..0.5")
    least, most = found["least"] or found["low"], found["most"] or found["high"]
    read = {"min_score": float(least)} if least else {}
    read |= {"max_score": float(most)} if most else {}
    if not all(0.0 <= score <= 1.0 for score in read.values()):
        raise InputError(f"{_shown(str(token))}: scores go from 0 to 1")
    return read


def _time(field: str) -> "Reader":
    def read(token: Token, now: datetime) -> dict[str, Any]:
        ago = _AGO.fullmatch(token.value)
        try:
            if ago is not None:
                return {field: now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})}
            if re.fullmatch(r"\d{4}-\d\d-\d\d", token.value):
                return {field: datetime.fromisoformat(token.value).replace(tzinfo=UTC)}
            return {field: parse_time(token.value)}
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"{_shown(str(token))}: write -30m, -2h or -7d, a day such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z"
            ) from error

    return read


def _shown(text: str) -> str:
    return repr(printable(text, 60))


Reader = Callable[[Token, datetime], dict[str, Any]]
#: Every token: what it asks of a result.
NAMES: dict[str, Reader] = {
    "site": _starred("site"),
    "camera": _starred("camera"),
    "pipeline": _text("pipeline"),
    "label": _text("label"),
    "score": _score,
    "status": _one_of("status", get_args(Ended)),
    "verdict": _one_of("verdict", (*VERDICTS, "none")),
    "by": _text("by"),
    "model": _text("model"),
    "ref": _starred("ref"),
    "code": _text("code"),
    "from": _time("since"),
    "until": _time("until"),
}

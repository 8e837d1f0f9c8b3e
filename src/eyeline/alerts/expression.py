"""The language of rules: one condition over one hit, parsed once, never evaluated as Python. Pure.

    label == 'damaged' and score >= 0.8
    status == 'failed' or ('4006381333931' in codes and not duplicate)
    camera in ('belt-1', 'belt-2') and 0.3 < score < 0.6 and meta['shift'] == 'late'

`ast` only parses; each allowed node becomes a closure, everything else is a `Mistake` that points at its place.
A comparison with something that a hit does not have (no label, no such meta) is false, except `!=` and `not in`.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

from eyeline.core.errors import ConfigError
from eyeline.core.types import Result

Kind = Literal["text", "number", "flag", "texts", "nothing"]
About = Literal["results", "health", "slo"]
Read = Callable[["Hit"], Any]
Condition = Callable[["Hit"], bool]

#: Characters, levels of nesting, and parts of a condition at most.
LONGEST, DEEPEST, MOST_PARTS = 2000, 20, 400


class Hit(NamedTuple):
    """One thing that a rule may match: a detection, a classification (of the image or of a crop), or the bare result.

    `score` is 0..1; `area` the box's in square pixels of the upright original; all three None where there is none.
    """

    result: Result
    label: str | None = None
    score: float | None = None
    area: float | None = None
    step: str | None = None
    zone: str | None = None
    health: str | None = None  # of a camera: then the result only says which camera, when, and why
    slo: str | None = None  # a service level: then the result only says when it was measured
    value: float | None = None
    hour: float | None = None


#: Name → what it is and where it comes from. A new name is one line here.
NAMES: Mapping[str, tuple[Kind, Read]] = {
    "label": ("text", lambda hit: hit.label),
    "score": ("number", lambda hit: hit.score),
    "area": ("number", lambda hit: hit.area),
    "step": ("text", lambda hit: hit.step),
    "zone": ("text", lambda hit: hit.zone),
    "site": ("text", lambda hit: hit.result.site),
    "camera": ("text", lambda hit: hit.result.camera),
    "pipeline": ("text", lambda hit: hit.result.pipeline),
    "ref": ("text", lambda hit: hit.result.ref),
    "status": ("text", lambda hit: hit.result.status),
    "reason": ("text", lambda hit: hit.result.reason),
    "duplicate": ("flag", lambda hit: hit.result.duplicate_of is not None),
    "codes": ("texts", lambda hit: tuple(code.text for code in hit.result.codes)),
    "health": ("text", lambda hit: hit.health),
    "slo": ("text", lambda hit: hit.slo),
    "value": ("number", lambda hit: hit.value),
    "hour": ("number", lambda hit: hit.hour),
}
#: Names that make a rule one about something else than results.
_ABOUT: Mapping[str, About] = {"health": "health", "slo": "slo", "value": "slo", "hour": "slo"}
#: Names that say where a frame comes from, whatever it shows.
_PLACE = frozenset({"site", "camera", "pipeline"})

_ORDER: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_SIGNS: Mapping[type[ast.cmpop], str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_WORDS = (*NAMES, "meta['key']")
_CONDITIONS = ("a comparison", "not …", "duplicate", "True", "False")
_VALUES = ("a name", "a text in quotes", "a number", "meta['key']")


class Mistake(ConfigError):
    """A condition that is none. `column` (from 1) and `length` say where; `allowed` what may stand there; `nearest` the
    known name that was perhaps meant.
    """

    def __init__(
        self,
        sentence: str,
        text: str,
        column: int = 1,
        length: int = 1,
        *,
        allowed: tuple[str, ...] = (),
        nearest: str | None = None,
    ) -> None:
        self.sentence = f"column {column}: {sentence}"
        self.text, self.column, self.length = text, column, max(1, length)
        self.allowed, self.nearest = allowed, nearest
        super().__init__(f"{self.sentence}\n{self.pointer}")

    @property
    def pointer(self) -> str:
        """The text around the place, and carets under it."""
        start = max(0, self.column - 41)
        shown = self.text[start : start + 100]
        left = self.column - 1 - start
        return f"    {shown}\n    {' ' * left}{'^' * max(1, min(self.length, len(shown) - left))}"


@dataclass(frozen=True)
class Expression:
    """A condition that was compiled: call it with a hit.

    `about`: what it is asked of. `place`: those of its parts joined by `and` that only say where a frame comes from; a frame
    for which they are false can never match. `least`: the score that it wants at least, where it says one.
    """

    text: str
    test: Condition
    about: About
    place: Condition
    least: float | None

    def __call__(self, hit: Hit) -> bool:
        """Whether it holds."""
        return self.test(hit)


def compile_condition(text: str) -> Expression:
    """The condition as a function of a hit. Raises Mistake."""
    flat = "".join(" " if letter.isspace() else letter for letter in text)
    if len(flat) > LONGEST:
        raise Mistake(
            f"a condition has {len(flat)} characters; {LONGEST} is the most. Split it into several rules", flat
        )
    return _Compiler(flat).expression()


class _Compiler:
    """Compiles one text, a single line; knows it for the sake of pointing."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lead = len(text) - len(text.lstrip())
        self._bytes = text[self._lead :].encode(errors="replace")

    def expression(self) -> Expression:
        """The whole. Raises Mistake."""
        body = self._parsed().body
        self._bounded(body)
        test = self._condition(body)
        return Expression(self._text.strip(), test, self._about(body), self._place(body), _least(body))

    def _parsed(self) -> ast.Expression:
        try:
            return ast.parse(self._text[self._lead :], mode="eval")
        except SyntaxError as error:
            column = min((error.offset or 1) + self._lead, len(self._text) + 1)
            hint = "; equality is written ==" if "=" in _without_signs(self._text) else ""
            said = (error.msg or "it cannot be read").removesuffix(". Perhaps you forgot a comma?")
            raise Mistake(f"{said} in {self._text[:120]!r}{hint}", self._text, column, allowed=_CONDITIONS) from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise Mistake(f"{self._text[:80]!r} cannot be read as a condition: {error}", self._text) from error

    def _bounded(self, body: ast.expr) -> None:
        """Few parts, and not nested so deeply that nobody could read it (nor the compiler descend into it)."""
        waiting: list[tuple[ast.AST, int]] = [(body, 1)]
        parts = 0
        while waiting:
            node, depth = waiting.pop()
            parts += 1
            if depth > DEEPEST and isinstance(node, ast.expr):
                raise self._mistake(
                    node, f"a condition is nested {DEEPEST} levels deep at most; split it into several rules"
                )
            if parts > MOST_PARTS:
                raise Mistake(f"a condition has {MOST_PARTS} parts at most; split it into several rules", self._text)
            waiting += [(child, depth + 1) for child in ast.iter_child_nodes(node)]

    def _about(self, body: ast.expr) -> About:
        names = [node for node in ast.walk(body) if isinstance(node, ast.Name) and node.id in _ABOUT]
        for node in names[1:]:
            if _ABOUT[node.id] != _ABOUT[names[0].id]:
                raise self._mistake(node, f"a rule is about {names[0].id!r} or about {node.id!r}; make two rules")
        return _ABOUT[names[0].id] if names else "results"

    def _place(self, body: ast.expr) -> Condition:
        parts = body.values if isinstance(body, ast.BoolOp) and isinstance(body.op, ast.And) else [body]
        tests = [self._condition(part) for part in parts if _names(part) and _names(part) <= _PLACE]
        return lambda hit: all(test(hit) for test in tests)

    def _span(self, node: ast.AST) -> tuple[int, int]:
        """Where a node stands in the text, in characters; `ast` counts bytes."""
        start, end = getattr(node, "col_offset", 0), getattr(node, "end_col_offset", None) or len(self._bytes)
        first, last = (len(self._bytes[:at].decode(errors="replace")) for at in (start, end))
        return first + self._lead, last + self._lead

    def _said(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._text[start:end]

    def _mistake(
        self, node: ast.AST, sentence: str, allowed: tuple[str, ...] = (), nearest: str | None = None
    ) -> Mistake:
        start, end = self._span(node)
        return Mistake(sentence, self._text, start + 1, end - start, allowed=allowed, nearest=nearest)

    def _condition(self, node: ast.expr) -> Condition:
        """Something that is true or false."""
        if isinstance(node, ast.BoolOp):
            parts = [self._condition(value) for value in node.values]
            if isinstance(node.op, ast.And):
                return lambda hit: all(part(hit) for part in parts)
            return lambda hit: any(part(hit) for part in parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self._condition(node.operand)
            return lambda hit: not inner(hit)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        kind, read = self._value(node)
        if kind != "flag":
            example = self._example(node, kind)
            raise self._mistake(
                node, f"{self._said(node)!r} is {kind}, no condition; compare it, as in {example}", _CONDITIONS
            )
        return lambda hit: bool(read(hit))

    def _example(self, node: ast.expr, kind: Kind) -> str:
        name = self._said(node)
        return {"number": f"{name} >= 0.8", "texts": f"'12345' in {name}"}.get(kind, f"{name} == 'damaged'")

    def _comparison(self, node: ast.Compare) -> Condition:
        """`a < b <= c` is `a < b and b <= c`."""
        sides = [node.left, *node.comparators]
        links = [self._link(*link) for link in zip(sides, node.ops, sides[1:], strict=False)]
        return links[0] if len(links) == 1 else lambda hit: all(link(hit) for link in links)

    def _link(self, left: ast.expr, sign: ast.cmpop, right: ast.expr) -> Condition:
        if isinstance(sign, ast.In | ast.NotIn):
            return self._membership(left, right, wanted=isinstance(sign, ast.In))
        (left_kind, a), (right_kind, b) = self._value(left), self._value(right)
        self._same_kind(left, left_kind, right, right_kind)
        if isinstance(sign, ast.Eq | ast.Is):
            return lambda hit: bool(a(hit) == b(hit))
        if isinstance(sign, ast.NotEq | ast.IsNot):
            return lambda hit: bool(a(hit) != b(hit))
        if left_kind != "number" or right_kind != "number":
            name = _SIGNS[type(sign)]
            raise self._mistake(
                left,
                f"{name!r} orders numbers, and {self._said(left)!r} is {left_kind}; use == or in",
                ("==", "!=", "in", "not in"),
            )
        compare = _ORDER[type(sign)]

        def ordered(hit: Hit) -> bool:
            one, other = a(hit), b(hit)
            return one is not None and other is not None and compare(one, other)

        return ordered

    def _same_kind(self, left: ast.expr, left_kind: Kind, right: ast.expr, right_kind: Kind) -> None:
        if left_kind != right_kind and "nothing" not in (left_kind, right_kind):
            raise self._mistake(
                right,
                f"{self._said(left)!r} is {left_kind} and {self._said(right)!r} is {right_kind}: never equal",
                (f"a {left_kind}", "None"),
            )

    def _membership(self, left: ast.expr, right: ast.expr, *, wanted: bool) -> Condition:
        """`label in ('a', 'b')`, or `'4711' in codes`."""
        kind, value = self._value(left)
        if isinstance(right, ast.Tuple | ast.List | ast.Set):
            members = [self._value(entry) for entry in right.elts]
            for entry, (entry_kind, _) in zip(right.elts, members, strict=True):
                self._same_kind(left, kind, entry, entry_kind)
            return lambda hit: (value(hit) in [read(hit) for _, read in members]) is wanted
        right_kind, read_all = self._value(right)
        if right_kind != "texts" or kind != "text":
            raise self._mistake(
                right,
                f"'in' wants a list such as ('a', 'b'), or codes, on its right, not {self._said(right)!r}",
                ("('a', 'b')", "codes"),
            )
        return lambda hit: (value(hit) in read_all(hit)) is wanted

    def _value(self, node: ast.expr) -> tuple[Kind, Read]:
        """A name, a constant, meta['key'], or a negative number."""
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.Constant):
            return self._constant(node, node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            kind, read = self._constant(node, node.operand.value)
            if kind == "number":
                negative = -read(Hit(result=None))  # type: ignore[arg-type] # a constant looks at no hit
                return "number", lambda _: negative
        if isinstance(node, ast.Subscript):
            return self._meta(node)
        raise self._mistake(
            node,
            f"{self._said(node)!r} is not part of the language; there are names, constants, and/or/not, "
            "comparisons, in (…) and meta['key']",
            _VALUES,
        )

    def _name(self, node: ast.Name) -> tuple[Kind, Read]:
        if node.id in NAMES:
            return NAMES[node.id]
        if node.id in {"true", "false", "none", "null"}:
            meant = node.id.capitalize().replace("Null", "None")
            raise self._mistake(node, f"write {meant} instead of {node.id}", nearest=meant)
        near = get_close_matches(node.id, [*NAMES, "meta"], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(NAMES))}, meta['key']"
        raise self._mistake(
            node,
            f"no name is called {node.id!r}; {hint} (texts stand in quotes)",
            _WORDS,
            near[0] if near else None,
        )

    def _constant(self, node: ast.expr, value: object) -> tuple[Kind, Read]:
        if isinstance(value, bool):
            return "flag", lambda _: value
        if isinstance(value, int | float):
            return "number", lambda _: value
        if isinstance(value, str):
            return "text", lambda _: value
        if value is None:
            return "nothing", lambda _: None
        raise self._mistake(node, f"{self._said(node)!r} is neither text nor number", _VALUES)

    def _meta(self, node: ast.Subscript) -> tuple[Kind, Read]:
        known = isinstance(node.value, ast.Name) and node.value.id == "meta"
        if not known or not isinstance(node.slice, ast.Constant) or not isinstance(node.slice.value, str):
            raise self._mistake(
                node,
                f"only meta takes brackets, with a text in them: meta['shift'], not {self._said(node)!r}",
                ("meta['key']",),
            )
        key = node.slice.value
        return "text", lambda hit: hit.result.meta.get(key)


def _without_signs(text: str) -> str:
    """The text without the comparisons that have a = in them."""
    for sign in ("==", "!=", "<=", ">="):
        text = text.replace(sign, "")
    return text


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _least(body: ast.expr) -> float | None:
    """The highest `score >= x` that stands in it."""
    return max(_bounds(body), default=None)


def _bounds(body: ast.expr) -> Iterator[float]:
    for node in ast.walk(body):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        for left, sign, right in zip(sides, node.ops, sides[1:], strict=False):
            upwards = (left, right) if isinstance(sign, ast.Gt | ast.GtE) else (right, left)
            name, bound = upwards
            ordered = isinstance(sign, ast.Gt | ast.GtE | ast.Lt | ast.LtE)
            if ordered and isinstance(name, ast.Name) and name.id == "score" and isinstance(bound, ast.Constant):
                yield float(bound.value)  # type: ignore[arg-type] # numbers alone are ordered

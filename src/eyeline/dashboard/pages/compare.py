"""A comparison: each picture twice, with what both sides say and where they differ."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.pages import Page, principal_of
from eyeline.core.types import Result
from eyeline.dashboard.pictures import Picture, known_labels, picture_of
from eyeline.dashboard.shell import Room, Shell

#: Seconds after which a comparison that runs is looked at again.
AGAIN = "3"


def _pages(shell: Shell) -> Sequence[Page]:
    return (shell.page("/models/compare/{id}", ComparePage(shell).show, room="models"),)


ROOM = Room(name="compare", pages=_pages)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one side says. `picture` is the record's, with this side's boxes."""

    picture: Picture | None
    words: str


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One picture: who says what; `only`: what each says alone."""

    record: str
    state: str
    alike: bool
    answers: Sequence[Answer]
    only: Sequence[Sequence[str]]
    score: float | None


class ComparePage:
    """GET /models/compare/{id}."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._sources = shell.sources

    async def show(self, request: Request) -> Response:
        """Those that differ first. While answers are waited for, the browser looks again by itself."""
        told = await self._sources.comparison(principal_of(request), request.path_params["id"])
        ids = [each[side] for each in told["pictures"] for side in ("record", "a", "b")]
        results = await self._sources.results.get_many(ids)
        labels = await asyncio.to_thread(known_labels, self._sources.settings)
        pairs = [_pair(each, results, labels) for each in told["pictures"]]
        pairs.sort(key=lambda pair: (pair.state != "compared", pair.alike, -(pair.score or 0)))
        answer = await self._shell.render(
            request,
            "compare.html",
            room="models",
            title=self._shell.words.say("compare.title"),
            told=told,
            sides=[told["a"], told["b"]],
            pairs=pairs,
        )
        if told["state"] == "running":
            answer.headers["Refresh"] = AGAIN
        return answer


def _pair(told: Mapping[str, Any], results: Mapping[str, Result], labels: Sequence[str]) -> Pair:
    return Pair(
        record=told["record"],
        state=told["state"],
        alike=told["alike"],
        answers=[_answer(results.get(told[side]), results.get(told["record"]), labels) for side in ("a", "b")],
        only=[told["only_a"], told["only_b"]],
        score=told["score_difference"],
    )


def _answer(result: Result | None, record: Result | None, labels: Sequence[str]) -> Answer:
    if result is None or record is None:
        return Answer(picture=None, words="")
    picture = picture_of(result, labels)
    if picture is not None:
        picture = replace(picture, src=f"/v1/results/{record.id}/image")  # one picture, fetched once
    found = [(each.label, each.score) for each in result.detections]
    found += [(each.label, each.score) for each in result.classifications]
    said = [f"{label} {score:.2f}" for label, score in found]
    return Answer(picture=picture, words=", ".join(said) or result.reason or "")

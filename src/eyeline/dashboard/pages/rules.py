"""The rules: which there are and how they did; making one by a sentence or in TOML, trying it, and only then saving it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, get_args
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.clock import utcnow
from eyeline.core.errors import BadRule, Conflict, InputError, NotFound
from eyeline.core.pages import Page, principal_of
from eyeline.core.settings import Counted, RuleSettings
from eyeline.dashboard.pictures import Picture, known_labels, picture_of
from eyeline.dashboard.rules import PARTS, Carried, carried, condition_of, sentence
from eyeline.dashboard.shell import Room, Shell, form_of
from eyeline.dashboard.silences import HOURS, end_silence, silence, silences_of, sites_of, target_of
from eyeline.stores.results.search import parse

#: The words of a rule that are one field of the form each.
WORDS: tuple[str, ...] = (
    *("name", "when", "severity", "count", "of", "within", "share", "among", "absent", "holds"),
    *("clear_after", "clear_share", "cooldown"),
)
SEVERITIES = ("info", "warning", "critical")


@dataclass(frozen=True, kw_only=True)
class Camera:
    """How a rule did at one camera; `real` of `judged` alerts."""

    name: str
    real: int
    judged: int


@dataclass(frozen=True, kw_only=True)
class Line:
    """A rule in the list."""

    name: str
    filed: bool
    severity: str
    when: str
    sentence: str
    fired: int
    last_fired: datetime | None
    real: int
    judged: int
    share: float | None
    cameras: tuple[Camera, ...]
    toml: str | None
    error: str | None
    changed_at: datetime | None
    changed_by: str | None
    href: str


@dataclass(frozen=True, kw_only=True)
class Fired:
    """A case that a rule as tried would have opened."""

    opened_at: datetime
    where: str
    count: int
    result_id: str
    picture: Picture | None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a rule would have done."""

    since: datetime
    until: datetime
    complete: bool
    events: int
    fired: int
    peak: int
    verdict: str
    first: tuple[Fired, ...]


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """Why it was not taken: the sentence, the word, and the condition with carets under the place."""

    sentence: str
    field: str | None = None
    pointer: str | None = None
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A rule as it is being written: what stands in the fields, and what became of it."""

    values: Mapping[str, str] = field(default_factory=dict)
    by: tuple[str, ...] = ()
    notify: tuple[str, ...] = ()
    toml: str = ""
    version: int = 0
    sentence: str = ""
    wrong: Wrong | None = None
    trial: Trial | None = None
    #: The search that it is made of, and what of it could be said.
    search: str = ""
    carried: Carried | None = None


def _pages(shell: Shell) -> Sequence[Page]:
    page = RulesPage(shell)
    return (
        shell.page("/rules", page.show, room="rules"),
        shell.page("/rules/edit", page.edit, room="rules", right="operate"),
        shell.page("/rules/edit", page.take, room="rules", methods=("POST",), right="operate"),
        shell.page("/rules/remove", page.remove, room="rules", methods=("POST",), right="operate"),
        shell.page("/rules/silences", page.silence, room="rules", methods=("POST",), right="operate"),
        shell.page("/rules/silences/{id}/end", page.end_silence, room="rules", methods=("POST",), right="operate"),
    )


ROOM = Room(name="rules", pages=_pages)


class RulesPage:
    """GET /rules, and the form of one rule."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._sources = shell.sources

    async def show(self, request: Request) -> Response:
        """All rules."""
        who = principal_of(request)
        lines = [self._line(rule) for rule in await self._sources.rules.listed(who)]
        may = who.may("operate") and who.sites is None
        title = self._shell.words.say("rules.title")
        return await self._shell.render(
            request,
            "rules.html",
            room="rules",
            title=title,
            rules=lines,
            may=may,
            silences=await silences_of(self._sources, who),
            may_silence=who.may("operate"),
            anywhere=who.sites is None,
            hours=HOURS,
            sites=sites_of(self._sources.settings, who),
            cameras=[camera.name for camera in self._sources.settings.cameras if who.sees(camera.site)],
        )

    async def silence(self, request: Request) -> Response:
        """Alerts of a site, a camera or a rule are recorded and not sent for a while."""
        who, form = principal_of(request), await form_of(request)
        await silence(self._sources, who, [target_of(self._sources.settings, who, form)], form)
        return self._shell.see("/rules#silences")

    async def end_silence(self, request: Request) -> Response:
        """They are sent again."""
        await end_silence(self._sources, principal_of(request), request.path_params["id"])
        return self._shell.see("/rules#silences")

    async def edit(self, request: Request) -> Response:
        """The form of a rule that people made, or of a new one."""
        name = request.query_params.get("name", "")
        if search := request.query_params.get("search"):
            return await self._form(request, self._of_search(search))
        if not name:
            return await self._form(request, Draft(values={"when": request.query_params.get("when", "")[:2000]}))
        rule = await self._sources.rules.one(name, principal_of(request))
        if rule["version"] is None or rule["toml"] is None:
            raise NotFound(
                f"the rule {name[:120]!r} cannot be changed here; it is from eyeline.toml, or of another release"
            )
        settings = self._sources.rules.read(rule["rule"])
        return await self._form(request, self._draft(settings, rule["version"]), rule["versions"])

    async def take(self, request: Request) -> Response:
        """The form was sent: to save the rule, to try it, or to read it from TOML. Where it is wrong, it is shown again."""
        form, book, who = await form_of(request), self._sources.rules, principal_of(request)
        version = int(form["version"]) if form.get("version", "").isdecimal() else 0
        draft = Draft(values=form, by=_ticked(form, "by."), notify=_ticked(form, "notify."), version=version)
        try:
            from_toml = form.get("do", "").startswith("toml")
            tree = book.from_toml(form.get("toml", "").encode()) if from_toml else tree_of(form)
            rule = book.read(tree)
            draft = self._draft(rule, version)
            if form.get("do", "").endswith("save"):
                await book.save(rule, version, who)
                return self._shell.see("/rules")
            return await self._form(request, await self._tried(request, draft, rule))
        except (BadRule, Conflict) as error:
            shown = Draft(**{**vars(draft), "wrong": _wrong(error), "toml": form.get("toml") or draft.toml})
            return await self._form(request, shown, status=error.status)

    async def remove(self, request: Request) -> Response:
        """The rule goes; its versions stay."""
        form = await form_of(request)
        version = int(form["version"]) if form.get("version", "").isdecimal() else None
        await self._sources.rules.remove(form.get("name", ""), version, principal_of(request))
        return self._shell.see("/rules")

    async def _form(
        self, request: Request, draft: Draft, versions: Sequence[Mapping[str, Any]] = (), status: int = 200
    ) -> Response:
        settings = self._sources.settings
        who = principal_of(request)
        name = draft.values.get("name", "") if draft.version else ""
        return await self._shell.render(
            request,
            "rule.html",
            room="rules",
            title=name or self._shell.words.say("rules.new"),
            script="js/pages/rules.js",
            status=status,
            draft=draft,
            versions=versions,
            channels=self._sources.rules.channels,
            severities=SEVERITIES,
            groups=get_args(Counted),
            labels=await asyncio.to_thread(known_labels, settings),
            zones=sorted({zone for line in settings.pipelines for step in line.steps for zone in step.zones}),
            cameras=[camera.name for camera in settings.cameras if who.sees(camera.site)],
        )

    async def _tried(self, request: Request, draft: Draft, rule: RuleSettings) -> Draft:
        found = await self._sources.rules.try_out(rule, None, principal_of(request))
        results = await self._sources.results.get_many([case["result_id"] for case in found["first"]])
        labels = await asyncio.to_thread(known_labels, self._sources.settings)
        first = []
        for case in found["first"]:
            result = results.get(case["result_id"])
            first.append(
                Fired(
                    opened_at=case["opened_at"],
                    where=", ".join(str(value) for value in case["cause"].values()),
                    count=case["count"],
                    result_id=case["result_id"],
                    picture=None if result is None else picture_of(result, labels),
                )
            )
        trial = Trial(
            since=found["since"],
            until=found["until"],
            complete=found["complete"],
            events=found["events"],
            fired=found["fired"],
            peak=found["peak_per_hour"],
            verdict=found["verdicts"]["sentence"],
            first=tuple(first),
        )
        return Draft(**{**vars(draft), "trial": trial})

    def _of_search(self, text: str) -> Draft:
        """A rule that asks what a search of the audit asks. Raises InputError where it is no search."""
        settings = self._sources.settings
        cameras = [camera.name for camera in settings.cameras]
        sites = {"default", *(site.name for site in settings.sites), *(camera.site for camera in settings.cameras)}
        made = carried(parse(text, utcnow()), sites=sites, cameras=cameras)
        return Draft(values={"when": made.when}, search=text, carried=made)

    def _draft(self, rule: RuleSettings, version: int) -> Draft:
        said = rule.model_dump(exclude_defaults=True)
        return Draft(
            values={word: str(said[word]) for word in WORDS if word in said},
            by=tuple(rule.by or ()),
            notify=tuple(rule.notify),
            toml=self._sources.rules.toml(rule),
            version=version,
            sentence=sentence(rule, self._shell.words),
        )

    def _line(self, rule: Mapping[str, Any]) -> Line:
        words, right = rule["rule"], rule["precision"]
        readable = rule.get("error") is None
        return Line(
            name=rule["name"],
            filed=rule["version"] is None,
            severity=words.get("severity", "warning"),
            when=str(words.get("when", "")),
            sentence=sentence(RuleSettings.model_validate(words), self._shell.words) if readable else "",
            fired=rule["fired"],
            last_fired=rule["last_fired"],
            real=right["real"],
            judged=right["real"] + right["false"],
            share=right["share"],
            cameras=tuple(
                Camera(name=each["camera"] or "–", real=each["real"], judged=each["real"] + each["false"])
                for each in rule["cameras"]
            ),
            toml=rule["toml"],
            error=rule.get("error"),
            changed_at=rule["changed_at"],
            changed_by=rule["changed_by"],
            href="/rules/edit?" + urlencode({"name": rule["name"]}),
        )


def tree_of(form: Mapping[str, str]) -> dict[str, Any]:
    """The rule that the fields say; what is empty is left to its default. Without a condition one is made of its parts."""
    tree: dict[str, Any] = {word: form[word].strip() for word in WORDS if form.get(word, "").strip()}
    tree.setdefault("when", condition_of({part: form.get(part, "").strip() for part in PARTS}))
    tree["notify"] = list(_ticked(form, "notify."))
    if by := _ticked(form, "by."):
        tree["by"] = list(by)
    return tree


def _ticked(form: Mapping[str, str], prefix: str) -> tuple[str, ...]:
    return tuple(name.removeprefix(prefix) for name in form if name.startswith(prefix))


def _wrong(error: InputError) -> Wrong:
    place: Any = error.told.get("place") or {}
    word = error.told.get("field")
    return Wrong(
        sentence=str(error),
        field=None if word is None else str(word),
        pointer=place.get("pointer"),
        allowed=tuple(place.get("allowed", ())),
    )

"""The book of rules: those of the settings file and those that people made; reading, keeping and trying them."""

import asyncio
import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from eyeline.alerts.dryrun import Trial, dry_run
from eyeline.alerts.rules import Rule, RuleMistake, compile_rule
from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import BadRule, Conflict, EyelineError, Forbidden, InputError, NotFound, Overloaded
from eyeline.core.settings import AlertSettings, RuleSettings, rule_of
from eyeline.core.telemetry import logger, printable
from eyeline.stores.results.base import AlertQuery, AlertRow, ResultStore, RuleRecord, RuleRow

log = logger("alerts")

#: Rules that people may make.
MOST_RULES = 200
#: Past alerts of each verdict that a trial is compared with.
MOST_JUDGED = 500
#: The longest time that a rule is tried on, and the usual one.
LONGEST_TRIAL, USUAL_TRIAL = timedelta(days=7), timedelta(days=1)
#: How far back it is told what became of alerts.
REMEMBERED = timedelta(days=90)


class RuleBook:
    """See `Rulebook`; and what the engine is given. Raises ConfigError for a rule of the settings that cannot work."""

    def __init__(self, settings: AlertSettings, results: ResultStore) -> None:
        self._settings = settings
        self._results = results
        self._mine = {rule.name: compile_rule(rule) for rule in settings.rules}
        self._trying = asyncio.Semaphore(1)
        self.channels: Sequence[str] = ("log", *(channel.name for channel in settings.channels))

    async def rules(self) -> list[Rule]:
        """All that hold now, compiled. One that was kept and cannot be compiled (by this release) is left out and said."""
        compiled = list(self._mine.values())
        for row in await self._kept():
            if row.name in self._mine:
                log.error("a rule of this name stands in the settings, too; that one holds", rule=row.name)
                continue
            try:
                compiled.append(compile_rule(rule_of(row.body or {}), since=row.at.timestamp()))
            except EyelineError as error:
                log.warning("a rule that was kept cannot be used", rule=row.name, version=row.version, error=str(error))
        return compiled

    async def _kept(self) -> list[RuleRow]:
        return [row for row in await self._results.rules() if row.body is not None]

    # reading and writing down
    def read(self, tree: Mapping[str, Any]) -> RuleSettings:
        """Compiled once, so that every mistake is known."""
        rule = rule_of(tree)
        if rule.name != printable(rule.name).strip():
            raise BadRule("name: it has spaces at its ends, or characters that cannot be seen", told={"field": "name"})
        for channel in rule.notify:
            if channel not in self.channels:
                raise BadRule(
                    f"notify: no channel is called {channel!r}; defined: {', '.join(self.channels)}",
                    told={"field": "notify"},
                )
        _compiled(rule)
        return rule

    def from_toml(self, text: bytes) -> dict[str, Any]:
        """As in eyeline.toml."""
        try:
            tree = tomllib.loads(text.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRule(f"the rule is no TOML: {error}", told={"field": "toml"}) from error
        alerts = tree.get("alerts")
        rules = alerts.get("rules") if isinstance(alerts, dict) else None
        if rules is None:
            return tree
        if not isinstance(rules, list) or len(rules) != 1 or not isinstance(rules[0], dict):
            raise BadRule("write one rule, under one [[alerts.rules]]", told={"field": "toml"})
        return rules[0]

    def toml(self, rule: RuleSettings) -> str:
        """What is the default anyway is left out. Texts, numbers and lists of texts read the same in JSON and TOML."""
        words = rule.model_dump(exclude_defaults=True).items()
        return "[[alerts.rules]]\n" + "".join(
            f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in words
        )

    # looking
    async def listed(self, who: Principal) -> list[dict[str, Any]]:
        """With what became of the alerts of the last 90 days."""
        rules = [*map(self._told, self._settings.rules), *map(self._told_row, await self._kept())]
        records = await self._results.rule_records(since=utcnow() - REMEMBERED, sites=who.sites)
        return [{**rule, **_record_of(rule["name"], records)} for rule in rules]

    async def one(self, name: str, who: Principal) -> dict[str, Any]:
        """The newest version first."""
        found = next((rule for rule in await self.listed(who) if rule["name"] == name), None)
        if found is None:
            raise _unknown(name)
        versions = [] if name in self._mine else await self._results.rule_versions(name)
        told = [{"version": row.version, "at": row.at, "by": row.by, "rule": row.body} for row in versions]
        return {**found, "versions": told}

    def _told(self, rule: RuleSettings) -> dict[str, Any]:
        return {
            "name": rule.name,
            "source": "eyeline.toml",
            "version": None,
            "changed_at": None,
            "changed_by": None,
            "rule": rule.model_dump(mode="json"),
            "toml": self.toml(rule),
        }

    def _told_row(self, row: RuleRow) -> dict[str, Any]:
        """One that this release cannot read is told as it was kept."""
        changed = {"source": "page", "version": row.version, "changed_at": row.at, "changed_by": row.by}
        try:
            return {**self._told(self.read(row.body or {})), **changed}
        except InputError as error:
            return {"name": row.name, **changed, "rule": row.body, "toml": None, "error": str(error)}

    # changing
    async def save(self, rule: RuleSettings, version: int | None, who: Principal) -> dict[str, Any]:
        """Kept as its next version."""
        self._may_change(rule.name, who)
        kept = {row.name: row for row in await self._results.rules()}
        last = kept.get(rule.name)
        body = rule.model_dump(mode="json", exclude_defaults=True)
        if last is not None and last.body == body:
            return self._told_row(last)
        if last is None and sum(row.body is not None for row in kept.values()) >= MOST_RULES:
            raise BadRule(f"there are {MOST_RULES} rules already; remove one that nobody needs")
        return self._told_row(await self._add(rule.name, last, version, who, body))

    async def remove(self, name: str, version: int | None, who: Principal) -> None:
        """A version without a body."""
        self._may_change(name, who)
        versions = await self._results.rule_versions(name)
        if not versions or versions[0].body is None:
            raise _unknown(name)
        await self._add(name, versions[0], version, who, None)

    def _may_change(self, name: str, who: Principal) -> None:
        """A rule looks at all sites, and tells channels what it saw: nobody who may see only some of them makes one."""
        if who.sites is not None:
            raise Forbidden(f"{who.name!r} is for {', '.join(who.sites)}; a rule looks at all of them")
        if name in self._mine:
            raise Conflict(f"the rule {printable(name, 120)!r} is from eyeline.toml; change it there")

    async def _add(
        self, name: str, last: RuleRow | None, seen: int | None, who: Principal, body: Mapping[str, Any] | None
    ) -> RuleRow:
        newest = 0 if last is None else last.version
        row = RuleRow(name=name, version=newest + 1, at=utcnow(), by=who.name, body=body)
        if seen not in (None, newest) or not await self._results.add_rule(row):
            raise Conflict(
                f"the rule {printable(name, 120)!r} was changed meanwhile (version {newest}); look at it again",
                told={"version": newest},
            )
        return row

    # trying
    async def try_out(self, rule: RuleSettings, since: datetime | None, who: Principal) -> dict[str, Any]:
        """See `dry_run`. One trial at a time: it reads a day."""
        compiled, until = _compiled(rule), utcnow()
        since = since or until - USUAL_TRIAL
        if not until - LONGEST_TRIAL <= since < until:
            raise InputError(
                f"since={since.isoformat()}: a rule is tried on the last {LONGEST_TRIAL.days} days at most"
            )
        if self._trying.locked():
            raise Overloaded("another rule is being tried now; try again when that is done", retry_after=5.0)
        async with self._trying:
            trial, told = await dry_run(compiled, self._results, since=since, until=until, sites=who.sites)
            judged = await self._judged(rule.name, told["since"], told["until"], who)
            return {**told, "verdicts": await asyncio.to_thread(verdicts, compiled, trial, judged)}

    async def _judged(self, name: str, since: datetime, until: datetime, who: Principal) -> list[AlertRow]:
        """Alerts of a rule of this name that people said what they were."""
        found: list[AlertRow] = []
        for disposition in ("real", "false"):
            query = AlertQuery(
                rule=name, disposition=disposition, since=since, until=until, sites=who.sites, limit=MOST_JUDGED
            )
            found += (await self._results.find_alerts(query))[0]
        return found


def verdicts(rule: Rule, trial: Trial, judged: Sequence[AlertRow]) -> dict[str, Any]:
    """How many of the alerts that were judged the rule as tried would not have raised."""
    gone = [alert.disposition for alert in judged if not trial.would_raise(alert)]
    false, real = (sum(alert.disposition == what for alert in judged) for what in ("false", "real"))
    false_gone, real_lost = gone.count("false"), gone.count("real")
    at = "" if rule.when.least is None else f"at {rule.when.least:g}: "
    sentence = f"{at}{false_gone} of {false} false alarms gone, {real_lost} of {real} real ones lost"
    return {
        "false": false,
        "false_gone": false_gone,
        "real": real,
        "real_lost": real_lost,
        "sentence": sentence if judged else "no alert of this rule was judged in that time",
    }


def _record_of(name: str, records: Sequence[RuleRecord]) -> dict[str, Any]:
    """How a rule did: how often, when last, and how often it was right, over all and for each camera."""
    mine = [record for record in records if record.rule == name]
    cameras = sorted({record.camera for record in mine}, key=str)
    by_camera = {camera: [record for record in mine if record.camera == camera] for camera in cameras}
    return {
        "fired": sum(record.count for record in mine),
        "last_fired": max((record.last_at for record in mine), default=None),
        "precision": _precision(mine),
        "cameras": [{"camera": camera, **_precision(theirs)} for camera, theirs in by_camera.items()],
    }


def _precision(records: Sequence[RuleRecord]) -> dict[str, Any]:
    """What the alerts turned out to be; `share`: of those that were real or false, the real ones."""
    counts = {
        what: sum(each.count for each in records if each.disposition == what) for what in ("real", "false", "test")
    }
    judged = counts["real"] + counts["false"]
    return {**counts, "share": round(counts["real"] / judged, 4) if judged else None}


def _unknown(name: str) -> NotFound:
    return NotFound(f"no rule is called {printable(name, 120)!r}")


def _compiled(rule: RuleSettings) -> Rule:
    try:
        return compile_rule(rule)
    except RuleMistake as error:
        sentence = str(error) if error.mistake is None else f"{error.field}: {error.mistake.sentence}"
        raise BadRule(sentence, told={"field": error.field, "place": _place(error)}) from error


def _place(error: RuleMistake) -> dict[str, Any] | None:
    """Where in the condition the mistake is, for those who show it: from `column` (1 is the first) on, `length` characters."""
    mistake = error.mistake
    if mistake is None:
        return None
    return {
        "text": mistake.text,
        "column": mistake.column,
        "length": mistake.length,
        "pointer": mistake.pointer,
        "nearest": mistake.nearest,
        "allowed": list(mistake.allowed),
    }

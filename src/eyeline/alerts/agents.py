"""Camera agents that fall silent: what an agent would say of its camera, it cannot say of itself. Pure.

An agent reports once a second. Whose report did not change for SILENT seconds, by our own clock, is silent; a camera that
never reported is none of ours to miss.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from eyeline.core.clock import isoformat, parse_time
from eyeline.core.ids import derived_id

SILENT = 30.0
#: Seconds between two looks at the reports.
LOOK_EVERY = 5.0


class _Agent:
    """What we know of one: its last report, and since when (steady seconds) that is the last one."""

    def __init__(self, report: Mapping[str, Any], now: float) -> None:
        self.report, self.since = report, now


class AgentWatch:
    """All agents. `look` takes what they report; who fell silent, or reports again, comes as bodies of `system` events.

    `known`: the cameras that there are; None: all that ever reported.
    """

    def __init__(self, known: Collection[str] | None, kept: bytes | None = None) -> None:
        #: Somebody fell silent, or reported again, since `kept`.
        self.dirty = False
        self._known = known
        self._silent: set[str] = set(msgspec.json.decode(kept, type=list[str]) if kept else ())
        self._agents: dict[str, _Agent] = {}

    def kept(self) -> bytes:
        """What to keep over a restart."""
        self.dirty = False
        return msgspec.json.encode(sorted(self._silent))

    def look(self, reports: Mapping[str, Mapping[str, Any]], now: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """Compare with the last look. Yields (site, body) for each agent that fell silent or reports again."""
        there = {name: report for name, report in reports.items() if self._known is None or name in self._known}
        for name, report in there.items():
            agent = self._agents.get(name)
            if agent is None or agent.report.get("reported_at") != report.get("reported_at"):
                fresh = agent is not None
                self._agents[name] = _Agent(report, now)
                if fresh and name in self._silent:
                    yield self._told(name, report, began=False)
            elif now - agent.since >= SILENT and name not in self._silent:
                yield self._told(name, report, began=True)

    def offline(self, camera: str) -> str | None:
        """Why a camera gives no frames, where its agent's silence or its last report says that."""
        agent = self._agents.get(camera)
        if camera in self._silent:
            return "its agent does not report any more"
        conditions = ((agent.report.get("health") or {}) if agent is not None else {}).get("conditions", {})
        stalled: str | None = conditions.get("stalled")
        return stalled

    def _told(self, name: str, report: Mapping[str, Any], *, began: bool) -> tuple[str, dict[str, Any]]:
        (self._silent.add if began else self._silent.discard)(name)
        self.dirty = True
        at = str(report["reported_at"])
        return str(report["site"]), {
            "type": "camera.health",
            "id": derived_id(parse_time(at), "silent", name, str(began)),
            "site": report["site"],
            "camera": name,
            "pipeline": str(report.get("pipeline", "")),
            "health": "silent",
            "state": "began" if began else "ended",
            "detail": f"its agent's last report is from {at}; is its process, its machine or the network down?"
            if began
            else "its agent reports again",
            "at": isoformat(parse_time(at)),
        }

"""Who asks, what that role may do, and at which sites: what the API and the pages both go by."""

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from eyeline.core.errors import Forbidden
from eyeline.core.settings import Role

Right = Literal["submit", "jobs", "report", "read", "operate", "manage"]
RIGHTS: dict[Role, frozenset[Right]] = {
    "ingest": frozenset({"submit", "jobs", "report"}),  # a camera: sends, follows its own jobs, reports itself
    "viewer": frozenset({"jobs", "read"}),
    "operator": frozenset({"submit", "jobs", "report", "read", "operate"}),
    "admin": frozenset({"submit", "jobs", "report", "read", "operate", "manage"}),  # people, keys, which model serves
}


@dataclass(frozen=True)
class Principal:
    """Who asks. `sites` None means all of them."""

    name: str
    role: Role
    sites: tuple[str, ...] | None = None
    expires_at: datetime | None = None

    def sees(self, site: str) -> bool:
        """Whether this site is within reach."""
        return self.sites is None or site in self.sites

    def may(self, right: Right) -> bool:
        """Whether the role carries this right. Who is limited to sites manages nothing: a key of its making could see all."""
        return right in RIGHTS[self.role] and (right != "manage" or self.sites is None)

    def need(self, right: Right) -> None:
        """Raises Forbidden, naming the roles that would do."""
        if not self.may(right):
            able = ", ".join(role for role, rights in RIGHTS.items() if right in rights)
            able += " for all sites" if right == "manage" else ""
            raise Forbidden(f"{self.name!r} has the role {self.role!r}; this needs one of: {able}")


#: The sites within reach of the request that is being answered (None: all of them; so is work of our own). Set where it is
#: learnt who asks, for the database to hold to whatever is asked of it (stores/results/grants.py).
reach: ContextVar[tuple[str, ...] | None] = ContextVar("reach", default=None)

#: Where no key is configured, everyone on this machine is this one.
NOBODY = Principal("", "admin")

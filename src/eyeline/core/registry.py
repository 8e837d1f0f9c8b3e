"""The table of backends of a room: URL scheme → class, imported on first use."""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from eyeline.core.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """Finds the class behind a scheme. `table` maps scheme → "module:Class"; `extras` scheme → pip extra."""

    def __init__(self, kind: str, table: Mapping[str, str], extras: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self.table = dict(table)
        self.extras = dict(extras or {})

    def schemes(self) -> tuple[str, ...]:
        """All known schemes; contract tests take their parameters from here."""
        return tuple(self.table)

    def load(self, scheme: str) -> type[T]:
        """The class for `scheme`. Raises ConfigError naming the known ones, or the pip line for a missing driver."""
        if scheme not in self.table:
            near = get_close_matches(scheme, self.table, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"no {self.kind} is called {scheme!r}; known: {', '.join(sorted(self.table))}.{hint}")
        module, _, name = self.table[scheme].partition(":")
        try:
            found: type[T] = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name and error.name.startswith("eyeline"):
                raise
            extra = self.extras.get(scheme, scheme)
            raise ConfigError(
                f"the {self.kind} {scheme!r} needs the package {error.name!r}: pip install 'eyeline[{extra}]'"
            ) from error
        return found

    def open(self, url: str, *args: Any, **kwargs: Any) -> T:
        """An instance for `url`: the class behind its scheme, called with the URL and what follows."""
        make: Any = self.load(urlsplit(url).scheme)
        opened: T = make(url, *args, **kwargs)
        return opened

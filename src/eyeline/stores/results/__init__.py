"""Result stores: jobs, results, events, alerts."""

from eyeline.core.registry import Registry
from eyeline.stores.results.base import ResultStore

RESULTS: Registry[ResultStore] = Registry(
    "result store",
    {
        "sqlite": "eyeline.stores.results.sqlite:SqliteResults",
        "postgresql": "eyeline.stores.results.postgresql:PostgresqlResults",
    },
)


def open_results(url: str) -> ResultStore:
    """The result store at `url`."""
    return RESULTS.open(url)

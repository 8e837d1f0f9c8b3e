"""Which of the results that a worker records should be shown to a person."""

from collections.abc import Sequence

from eyeline.core.settings import ReviewSettings
from eyeline.core.types import Result
from eyeline.stores.results.base import ResultStore
from eyeline.stores.results.review import Doubt, doubts, labels_of

#: Labels remembered as known; models have fewer.
REMEMBERED = 10_000


class Doubts:
    """Looks in the store only for labels that it does not know yet."""

    def __init__(self, results: ResultStore, settings: ReviewSettings) -> None:
        self._results = results
        self._settings = settings
        self._known: set[str] = set()

    async def of(self, results: Sequence[Result]) -> dict[str, Doubt]:
        """The doubts by the results' ids. Raises StoreError."""
        strange = {label for result in results for label in labels_of(result)} - self._known
        if strange:
            self._remember(await self._results.known_labels(sorted(strange)))
        found = {result.id: self._one(result) for result in results}
        return {ident: doubt for ident, doubt in found.items() if doubt is not None}

    def _one(self, result: Result) -> Doubt | None:
        return doubts(result, self._known, below=self._settings.below, sample=self._settings.sample)

    def _remember(self, labels: set[str]) -> None:
        if len(self._known) + len(labels) > REMEMBERED:
            self._known.clear()
        self._known |= labels

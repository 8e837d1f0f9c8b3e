"""What each camera saw last: a part of the result store."""

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import Select, select

from eyeline.core.types import Result
from eyeline.stores.results import rows
from eyeline.stores.results.schema import camera_counts, results


class _Lines(Protocol):
    """What this part needs of the store."""

    async def _rows(self, query: Select[Any]) -> Sequence[rows.Row]: ...
    async def get_many(self, ids: Sequence[str]) -> dict[str, Result]: ...


class Latest:
    """Mixed into the store."""

    async def latest(self: _Lines, *, sites: Sequence[str] | None = None) -> dict[str, Result]:
        """One step into the index for each camera that ever had a result."""
        newest = (
            select(results.c.id)
            .where(results.c.camera == camera_counts.c.camera, results.c.status == "completed")
            .order_by(results.c.id.desc())
            .limit(1)
        )
        if sites is not None:
            newest = newest.where(results.c.site.in_(sites))
        found = await self._rows(select(newest.scalar_subquery().label("id")).select_from(camera_counts))
        shown = await self.get_many([row["id"] for row in found if row["id"] is not None])
        return {result.camera: result for result in shown.values() if result.camera is not None}

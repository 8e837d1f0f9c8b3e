"""Shared memory that clients on this host have registered: the server's side of the system shared memory extension."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eyeline.core.errors import InputError
from eyeline.inference.base import Tensor
from eyeline.inference.protocol import TensorParameters, nbytes
from eyeline.inference.shm import Segment

MAX_REGIONS = 1024


@dataclass(frozen=True)
class Region:
    """A part of a segment under a name."""

    name: str
    key: str
    offset: int
    size: int
    segment: Segment


class Regions:
    """Registered regions by name. Reads and writes go straight into the clients' memory."""

    def __init__(self) -> None:
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, size: int) -> None:
        """Map `size` bytes of the segment `key`. The same registration again changes nothing. Raises InputError."""
        before = self._regions.get(name)
        if before is not None:
            if (before.key, before.offset, before.size) == (key, offset, size) and before.segment.current():
                return
            self.unregister(name)
        if len(self._regions) >= MAX_REGIONS:
            raise InputError(f"{MAX_REGIONS} shared memory regions are registered already; unregister some")
        try:
            segment = Segment.attach(key.removeprefix("/"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot map the shared memory region {name!r} with key {key!r}: {error}") from error
        if offset < 0 or size <= 0 or offset + size > segment.size:
            segment.close()
            raise InputError(
                f"shared memory region {name!r}: bytes {offset} to {offset + size} are outside of a segment of {segment.size}"
            )
        self._regions[name] = Region(name, key, offset, size, segment)

    def unregister(self, name: str | None = None) -> None:
        """Forget one region, or all. Idempotent; the memory is the client's and stays."""
        for each in [name] if name is not None else list(self._regions):
            region = self._regions.pop(each, None)
            if region is not None:
                region.segment.close()

    def status(self, name: str | None = None) -> list[dict[str, Any]]:
        """What is registered, as the protocol lists it. Raises InputError for an unknown name."""
        if name is not None:
            self._get(name)
        return [
            {"name": region.name, "key": region.key, "offset": region.offset, "byte_size": region.size}
            for region in self._regions.values()
            if name is None or region.name == name
        ]

    def view(self, where: TensorParameters, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        """The tensor that lies, or shall lie, where a request says. Raises InputError."""
        region = self._get(where.shared_memory_region or "")
        wanted = nbytes(shape, dtype)
        offset = where.shared_memory_offset
        room = where.shared_memory_byte_size if where.shared_memory_byte_size is not None else wanted
        if room < wanted or offset < 0 or offset + wanted > region.size:
            raise InputError(
                f"shape {list(shape)} {dtype} is {wanted} bytes; bytes {offset} to {offset + room} of shared memory region "
                f"{region.name!r}, which has {region.size}, are no room for it"
            )
        return region.segment.view(region.offset + offset, shape, dtype)

    def _get(self, name: str) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise InputError(f"unknown shared memory region {name!r}; register it first")
        return region

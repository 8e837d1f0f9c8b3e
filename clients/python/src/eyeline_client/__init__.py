"""The client of Eyeline's HTTP API: `Client` and `AsyncClient` over one core that does no I/O.

It knows nothing of the server's code: what it believes of the API stands in `types.py`, and a test compares that with the
gateway's own description.
"""

from eyeline_client.aio import AsyncClient
from eyeline_client.errors import BadImage, ClientError, NotFound, Overloaded, Refused, Unreachable, WaitTimeout
from eyeline_client.protocol import Filters, Picture, Retry, Scope
from eyeline_client.sync import Client
from eyeline_client.types import (
    ChainRef,
    Classification,
    Code,
    Detection,
    Event,
    Hold,
    ImageInfo,
    Job,
    ModelRef,
    Page,
    Result,
    Reuse,
    Verdict,
)

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "BadImage",
    "ChainRef",
    "Classification",
    "Client",
    "ClientError",
    "Code",
    "Detection",
    "Event",
    "Filters",
    "Hold",
    "ImageInfo",
    "Job",
    "ModelRef",
    "NotFound",
    "Overloaded",
    "Page",
    "Picture",
    "Refused",
    "Result",
    "Retry",
    "Reuse",
    "Scope",
    "Unreachable",
    "Verdict",
    "WaitTimeout",
]

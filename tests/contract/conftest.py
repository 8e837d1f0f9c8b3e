"""Backends for the contract suites, their parameters taken from each room's own table."""

from pathlib import Path

import pytest

from eyeline.core.errors import ConfigError
from eyeline.queues import QUEUES
from eyeline.queues.base import Abilities
from eyeline.stores.blobs import BLOBS
from eyeline.stores.cache import CACHES
from eyeline.stores.results import RESULTS
from tests.contract.servers import BLOB_SERVERS, CACHE_SERVERS, QUEUE_SERVERS, RESULT_SERVERS, missing

#: One scheme for each backend: `rediss` is `redis` with TLS, which has its own cases.
BACKENDS = {target: scheme for scheme, target in reversed(QUEUES.table.items())}


@pytest.fixture(params=sorted(BACKENDS.values()))
def queue_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty queue, one for each backend. What a backend says it cannot promise is not asked of it."""
    cannot = _abilities(request.param).cannot
    for promise in [word for marker in request.node.iter_markers("needs") for word in marker.args]:
        if promise in cannot:
            pytest.skip(f"{request.param} cannot promise {promise!r}: {cannot[promise]}")
    return QUEUE_SERVERS[request.param](tmp_path)


@pytest.fixture(params=sorted(set(BACKENDS.values()) - {"sqlite", "memory"}))
def server_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty queue behind a server."""
    _abilities(request.param)
    return QUEUE_SERVERS[request.param](tmp_path)


def _abilities(scheme: str) -> Abilities:
    """A backend whose driver is not installed is missing, like a server."""
    try:
        return QUEUES.load(scheme).abilities
    except ConfigError as error:
        missing(str(error))


@pytest.fixture(params=sorted(set(CACHES.schemes()) - {"rediss"}))  # it is `redis` with TLS, which has its own cases
def cache_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty cache, one for each backend."""
    return CACHE_SERVERS[request.param](tmp_path)


@pytest.fixture(params=[*BLOBS.schemes(), pytest.param("s3, signed", marks=pytest.mark.soak)])
def blobs_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty blob store, one for each backend, and S3 once more on a server that checks signatures."""
    return BLOB_SERVERS[request.param](tmp_path)


@pytest.fixture(params=RESULTS.schemes())
def results_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty result store, one for each backend."""
    return RESULT_SERVERS[request.param](tmp_path)

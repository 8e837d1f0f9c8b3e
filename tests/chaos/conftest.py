"""What chaos tests are given."""

from collections.abc import Iterator

import pytest

from tests.chaos.harness import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of webhooks."""
    with receiving() as server:
        yield server

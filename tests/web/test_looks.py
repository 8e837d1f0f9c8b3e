"""The pages look as they did: pictures of them are those that are kept, to a thousandth of their pixels.

A change that is meant is seen by its author first: `make looks` makes the pictures anew, and a review shows both.
"""

import shutil
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.web.conftest import ANEW
from tests.web.look import KEPT, LOOKS, OTHERWISE, TOLERANCE, Eye, Look, different, eye, marked, probe, read, write
from tests.web.still import Still, standing_still

#: Something of a page may come late on a busy machine: it is looked at again for so long.
PATIENCE = 20.0


@pytest.fixture(scope="module")
def same_machine(browser: Browser) -> None:
    """Skips what would compare two machines."""
    if (share := different(read("probe"), probe(browser)).mean()) > TOLERANCE:
        pytest.skip(f"this machine draws {share:.2%} of a sheet of text and controls otherwise: {ANEW}")


@pytest.fixture(scope="module")
def still(same_machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Still]:
    with standing_still(tmp_path_factory.mktemp("still")) as serving:
        yield serving


@pytest.fixture(scope="module")
def seen(browser: Browser, still: Still) -> Iterator[Eye]:
    shutil.rmtree(OTHERWISE, ignore_errors=True)
    with eye(browser, still) as taking:
        yield taking


#: What `make test` compares; `make soak` compares all of them.
SHORT = ("live", "alerts", "review-dark", "record-print", "operations", "rule-narrow")


@pytest.mark.parametrize(
    "look",
    [pytest.param(look, marks=[] if look.name in SHORT else pytest.mark.soak) for look in LOOKS],
    ids=lambda look: look.name,
)
def test_a_page_looks_as_it_did(look: Look, seen: Eye) -> None:
    kept, taken = read(look.name), seen.take(look)
    until = time.monotonic() + PATIENCE
    while (where := different(kept, taken)).mean() > TOLERANCE:
        if time.monotonic() > until:
            write(look.name, taken, OTHERWISE)
            write(f"{look.name}-differs", marked(taken, where), OTHERWISE)
            share = f"{where.mean():.2%} of {look.path} ({taken.shape[1]} × {taken.shape[0]}) look otherwise"
            pytest.fail(f"{share}: see {OTHERWISE.resolve()}; where it is meant: {ANEW}", pytrace=False)
        taken = seen.again(look)


def test_every_kept_picture_is_compared_and_all_of_them_are_small() -> None:
    assert {file.stem for file in KEPT.iterdir()} == {"probe", *(look.name for look in LOOKS)}
    assert sum(file.stat().st_size for file in KEPT.iterdir()) < 1_500_000

"""The table of what holds on which backend says what the run said."""

from typing import Any, Literal

import pytest

from tests.contract.matrix import Matrix, Place


def report(nodeid: str, outcome: Literal["passed", "failed", "skipped"], longrepr: Any = None) -> pytest.TestReport:
    when: Literal["setup", "call"] = "setup" if outcome == "skipped" else "call"
    return pytest.TestReport(nodeid, ("test_queues.py", 1, nodeid), {}, outcome, longrepr, when)


def test_a_case_is_a_row_and_what_was_not_asked_has_its_reason() -> None:
    matrix = Matrix({name: Place("Queues", *name.split("/")) for name in ("order/kafka", "order/redis", "ids/kafka")})
    matrix.pytest_runtest_logreport(report("order/kafka", "failed"))
    matrix.pytest_runtest_logreport(report("order/redis", "passed"))
    matrix.pytest_runtest_logreport(report("ids/kafka", "skipped", ("f", 1, "Skipped: it keeps all")))
    matrix.pytest_runtest_logreport(report("about/one", "passed"))
    assert "\n".join(matrix.markdown()).split("\n") == [
        "## Queues",
        "",
        "| case | kafka | redis |",
        "|---|---|---|",
        "| order | **no** | yes |",
        "| ids | not asked (1) |  |",
        "",
        "1 passed, 1 failed, 1 not asked",
        "",
        "1. it keeps all",
        "",
    ]

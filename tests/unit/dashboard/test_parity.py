"""Whether all replicas answer alike: what differs is found, and what most say is the measure."""

from typing import Any

from eyeline.dashboard.parity import as_text, parity, releases
from eyeline.inference.servers import About

MADE = {"software": "eyeline 0.9", "numpy": "2.4"}
GOLDEN = {"passed": True, "pictures": 4, "score_difference": 0.002, "tolerance": 0.03, "at": "2026-11-26T08:00:00.000Z"}


def model(name: str = "finder", **other: Any) -> dict[str, Any]:
    return {
        "name": name,
        "version": "1.0.0+ab",
        "runtime": "onnx",
        "precision": "fp32",
        "fingerprint": "f" * 64,
    } | other


def test_servers_that_say_the_same_have_no_row_that_differs() -> None:
    found = parity([About(url="a", models=(model(),)), About(url="b", models=(model(),))])
    assert (found.servers, found.different, found.silent) == (["a", "b"], [], [])
    assert [(row.fact, [cell.words for cell in row.cells]) for row in found.same][-1] == ("fingerprint", ["f" * 12] * 2)


def test_what_is_not_as_most_have_it_is_marked_and_silent_servers_are_named() -> None:
    odd = About(url="c", models=(model(precision="int8", fingerprint="e" * 64), model("extra")))
    servers = [About(url="a", models=(model(),)), About(url="b", models=(model(),)), odd, About(url="d", error="away")]
    found = parity(servers)
    assert (found.servers, found.silent) == (["a", "b", "c"], [("d", "away")])
    marked = {(row.model, row.fact): [cell.other for cell in row.cells] for row in found.different}
    assert marked[("finder", "precision")] == marked[("finder", "fingerprint")] == [False, False, True]
    assert marked[("extra", "version")] == [False, False, True]
    assert len(marked) == 2 + 4
    assert [row.fact for row in found.same] == ["version", "runtime"]


def test_nothing_is_compared_where_nobody_answers() -> None:
    assert parity([]).rows == parity([About(url="d", error="away")]).rows == []


def test_machines_are_compared_beside_models_and_what_one_does_not_say_is_no_difference() -> None:
    servers = [
        About(url="a", models=(model(),), environment=MADE | {"host": "one", "gpu": "H100"}),
        About(url="b", models=(model(),), environment=MADE | {"host": "two", "gpu": ""}),
        About(url="old", models=(model(),)),
    ]
    said = {"software": "eyeline 0.9", "numpy": "2.3", "pipelines": "c0ffee"}
    found = parity(
        servers, workers=[("two", said), ("two", said), ("three", {})], bundles=[("finder", MADE), ("box", {})]
    )
    assert [(column.kind, column.name, column.host, column.count) for column in found.columns] == [
        ("server", "a", "one", 1),
        ("server", "b", "two", 1),
        ("server", "old", "", 1),
        ("workers", "two", "", 2),
        ("bundle", "finder", "", 1),
    ]
    assert (found.servers, found.deciding) == (["a", "b", "old"], [])
    marked = {row.fact: [(cell.words, cell.other) for cell in row.cells] for row in found.different}
    assert list(marked) == ["numpy", "gpu"]
    assert marked["gpu"] == [("H100", False), ("", True), (None, False), (None, False), (None, False)]
    assert [other for _, other in marked["numpy"]] == [False, False, False, True, False]


def test_the_newest_golden_check_of_the_version_that_serves_is_told_and_what_is_refused() -> None:
    server = About(url="a", models=(model(golden=GOLDEN), model("old")), refused={"box": "fails its golden check"})
    run = {"server": "a", "model": "finder", "version": "1.0.0+ab", "by": "ana", "at": "2026-11-26T09:00:00.000Z"}
    failed = GOLDEN | run | {"passed": False, "differences": ["x.png: no 'box'"]}
    rows = {row.model: row for row in parity([server], asked=[failed]).goldens}
    assert [(name, row.state, row.words, row.by) for name, row in rows.items()] == [
        ("box", "failed", "fails its golden check", ""),
        ("finder", "failed", "x.png: no 'box'", "ana"),
        ("old", "unmeasured", "", ""),
    ]
    unmade = run | {"passed": False, "error": "no answer"}
    (_, row, _) = parity([server], asked=[unmade]).goldens
    assert (row.state, row.words, row.score_difference) == ("unmeasured", "no answer", None)
    for other in ({"at": "2026-11-26T07:00:00.000Z"}, {"version": "0.9.0+cd"}):  # before the load; of another version
        rows = {row.model: row for row in parity([server], asked=[failed | other]).goldens}
        assert (rows["finder"].state, rows["finder"].score_difference, rows["finder"].by) == ("ok", 0.002, "")


def test_a_text_has_one_fact_a_line_and_no_value_looks_like_another() -> None:
    servers = [
        About(url="a", models=(model(golden=GOLDEN),), environment={"cpu": "AMD EPYC"}),
        About(url="b", models=(model(precision="int8"),), environment={"cpu": "x\n= y: a=b"}),
        About(url="c", error="away\nfor long"),
    ]
    assert as_text(parity(servers)).splitlines() == [
        "# c gives no answer: away for long",
        "= finder version: a=1.0.0+ab b=1.0.0+ab",
        "= finder runtime: a=onnx b=onnx",
        "≠ finder precision: a=fp32 b=int8",
        "= finder fingerprint: a=ffffffffffff b=ffffffffffff",
        '≠ environment cpu: a="AMD EPYC" b="x\\n= y: a=b"',
        "= finder golden: a=ok score_difference=0.002 tolerance=0.03 at=2026-11-26T08:00:00.000000Z",
        "= finder golden: b=unmeasured",
    ]


def test_processes_are_told_by_their_release_the_usual_one_first() -> None:
    found = releases([("worker@b:2", "0.8"), ("worker@a:1", "0.9"), ("gateway@a:3", "0.9")])
    assert list(found.items()) == [("0.9", ["gateway@a:3", "worker@a:1"]), ("0.8", ["worker@b:2"])]

"""Whether all replicas answer alike: what differs is found, and what most say is the measure."""

from eyeline.dashboard.parity import parity, releases
from eyeline.inference.servers import About


def model(name: str = "finder", **other: str) -> dict[str, str]:
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


def test_processes_are_told_by_their_release_the_usual_one_first() -> None:
    found = releases([("worker@b:2", "0.8"), ("worker@a:1", "0.9"), ("gateway@a:3", "0.9")])
    assert list(found.items()) == [("0.9", ["gateway@a:3", "worker@a:1"]), ("0.8", ["worker@b:2"])]

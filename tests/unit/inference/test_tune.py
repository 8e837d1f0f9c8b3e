"""Tuning: every way is measured on the golden set, and one that decides otherwise is never chosen."""

from pathlib import Path

import pytest

from eyeline.core.errors import ConfigError
from eyeline.core.settings import InferenceSettings
from eyeline.inference import tune as tuning
from eyeline.inference.bundles import Bundle, load_bundle
from eyeline.inference.importer import import_model
from eyeline.inference.runtimes import RUNTIMES, choose, cores, read_tuned
from eyeline.inference.runtimes.onnxruntime import OnnxRuntime
from eyeline.inference.tune import Row, tune
from tests.unit.inference import tiny_models as tiny


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    done = import_model(
        tiny.classifier(tmp_path / "c.onnx"),
        models_dir=tmp_path / "models",
        labels=("red", "green", "blue"),
        images=tiny.pictures(tmp_path / "pictures"),
        scale=(1 / 255, 1 / 255, 1 / 255),
    )
    return done.bundle


def row(speed: float, cpu: float, *, same: bool = True, runtime: str = "onnxruntime") -> Row:
    return Row(
        runtime=runtime,
        precision="f32",
        threads=1,
        instances=2,
        images_per_second=speed,
        cpu_ms=cpu,
        same_decisions=same,
    )


def test_what_was_chosen_serves_from_the_next_load_on(bundle: Bundle) -> None:
    seen: list[float] = []
    found = tune(bundle, budget=3.0, progress=lambda share, _words: seen.append(share))
    tuned = read_tuned(bundle.path)
    assert tuned is not None
    assert (tuned.runtime, tuned.precision, tuned.threads) == (
        found.chosen.runtime,
        found.chosen.precision,
        found.chosen.threads,
    )
    assert choose(bundle, InferenceSettings()).threads == found.chosen.threads
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert [len(row.cells()) for row in found.rows] == [8] * len(found.rows)
    assert sum(row.chosen for row in found.rows) == 1


def test_tuning_does_not_change_the_models_digest(bundle: Bundle) -> None:
    tune(bundle, budget=1.0)
    assert load_bundle(bundle.path).digest == bundle.digest


def test_the_baseline_is_measured_however_short_the_time(bundle: Bundle) -> None:
    found = tune(bundle, budget=0.0, write=False)
    first = found.rows[0]
    assert (first.runtime, first.precision, first.instances) == ("onnxruntime", "f32", cores())
    assert first.images_per_second is not None
    assert all("no time left" in row.note or "needs the package" in row.note for row in found.rows[1:])
    assert not (bundle.path / "tuned.toml").exists()


def test_the_fastest_with_the_same_decisions_is_taken(bundle: Bundle) -> None:
    rows = [row(100, 3), row(300, 2, same=False), row(200, 5), row(195, 4)]
    assert tuning._best(bundle, rows) == rows[3]  # as fast as the fastest, with less CPU


def test_on_a_busy_machine_cpu_time_decides_among_speeds_that_noise_can_explain(bundle: Bundle) -> None:
    rows = [row(130, 3), row(200, 5), row(90, 1)]
    assert tuning._best(bundle, rows, tuning.BLURRED) == rows[0]


def test_no_way_with_the_same_decisions_is_an_error_in_words(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="no way to run it gives the recorded decisions"):
        tuning._best(bundle, [row(300, 3, same=False)])


def test_a_way_that_cannot_be_opened_says_why_and_hinders_no_other(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = OnnxRuntime.open.__func__  # type: ignore[attr-defined]

    def open_single(cls: type, bundle: Bundle, choice: object) -> object:
        if getattr(choice, "threads", 1) > 1:
            raise ConfigError("no more than one thread here")
        return plain(cls, bundle, choice)

    monkeypatch.setattr(OnnxRuntime, "open", classmethod(open_single))
    monkeypatch.setattr(RUNTIMES, "table", {"onnxruntime": RUNTIMES.table["onnxruntime"]})
    monkeypatch.setattr(tuning, "cores", lambda: 2)
    found = tune(bundle, budget=1.0, write=False)
    assert found.rows[1].note == "no more than one thread here"
    assert [row.images_per_second is None for row in found.rows] == [False, True]
    assert found.chosen.threads == 1

"""A bad model never replaces a good one; a good one is swapped in while requests flow, and no request notices."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import tomli_w

from eyeline.inference.bundles import promote, rollback, write_manifest
from tests.fake_models import brightness_graph, grey_picture, write_box_bundle, write_brightness_bundle
from tests.inference_process import InferenceProcess, inference_process

LOAD = "/v2/repository/models/brightness/load"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceProcess]:
    models = tmp_path_factory.mktemp("models")
    write_brightness_bundle(models)
    with inference_process(models) as running:
        yield running


def bright(server: InferenceProcess, level: float = 0.4) -> float:
    """What the serving model says of a grey picture; 0.4 by the good one."""
    status, said = server.request("/predict?model=brightness", grey_picture(level))
    assert status == 200, said
    return next(float(row["score"]) for row in said["classifications"] if row["label"] == "bright")


def _truncated(path: Path) -> None:
    weights = path / "weights.onnx"
    weights.write_bytes(weights.read_bytes()[:-50])
    write_manifest(path)


def _wrong_digest(path: Path) -> None:
    (path / "weights.onnx").write_bytes(brightness_graph(offset=0.01))


def _missing_file(path: Path) -> None:
    (path / "golden" / "dark.png").unlink()


def _nan(path: Path) -> None:
    (path / "weights.onnx").write_bytes(brightness_graph(nan_below=0.9))
    write_manifest(path)


def _other_answers(path: Path) -> None:
    (path / "weights.onnx").write_bytes(brightness_graph(offset=-0.3))
    write_manifest(path)


def _wrong_shape(path: Path) -> None:
    text = (path / "model.toml").read_text()
    (path / "model.toml").write_text(text.replace("32,\n    32,", "64,\n    64,").replace("[32, 32]", "[64, 64]"))
    assert text != (path / "model.toml").read_text()
    write_manifest(path)


def _wrong_layout(path: Path) -> None:
    text = (path / "model.toml").read_text()
    (path / "model.toml").write_text(text.replace('name = "images"', 'name = "images"\nlayout = "nchw"'))
    write_manifest(path)


def _box_weights(path: Path) -> None:
    (path / "weights.onnx").write_bytes(brightness_graph(box=True))
    write_manifest(path)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_truncated, "not a readable ONNX file"),
        (_wrong_digest, "SHA-256 differs"),
        (_missing_file, "lacks files"),
        (_nan, "NaN"),
        (_other_answers, "fails its golden check"),
        (_wrong_shape, "model.toml says"),
        (_wrong_layout, "model.toml says"),
        (_box_weights, "check labels and decoder"),
    ],
)
def test_a_bad_model_never_replaces_a_good_one(
    server: InferenceProcess, spoil: Callable[[Path], None], says: str
) -> None:
    folder = server.models / "brightness"
    shutil.rmtree(folder)
    write_brightness_bundle(server.models)
    spoil(folder)
    status, said = server.request(LOAD, b"")
    assert status == 400
    assert says in said["error"]
    assert bright(server) == pytest.approx(0.4, abs=0.01)
    row = next(row for row in server.request("/v2/repository/index", b"{}")[1] if row["name"] == "brightness")
    assert row["state"] == "READY"
    assert says in row["reason"]


def test_a_model_that_was_never_good_is_named_and_hinders_no_other(tmp_path: Path) -> None:
    write_box_bundle(tmp_path)
    _nan(write_brightness_bundle(tmp_path))
    with inference_process(tmp_path, ready=False) as running:
        rows = running.wait_settled()
        assert rows["box"]["state"] == "READY"
        assert rows["brightness"]["state"] == "UNAVAILABLE"
        status, said = running.request("/readyz")
        assert (status, said["models"]) == (503, ["brightness"])
        assert "NaN" in said["error"]
        assert running.request("/predict?model=brightness", grey_picture(0.4))[0] == 503
        assert running.request("/predict?model=box", grey_picture(0.4))[0] == 200
        assert running.request("/v2/health/live")[0] == 200


def test_a_fixed_batch_of_one_is_served_one_by_one(tmp_path: Path) -> None:
    write_brightness_bundle(tmp_path, max_batch=1)
    with inference_process(tmp_path) as running:
        config = running.request("/v2/models/brightness/config")[1]
        assert config["max_batch_size"] == 1
        assert bright(running) == pytest.approx(0.4, abs=0.01)


def test_unload_takes_a_model_away_and_load_brings_it_back(tmp_path: Path) -> None:
    write_brightness_bundle(tmp_path)
    with inference_process(tmp_path) as running:
        assert running.request("/v2/repository/models/brightness/unload", b"")[0] == 200
        assert running.request("/v2/models/brightness/ready")[0] == 503
        assert running.request("/readyz")[0] == 503
        assert running.request(LOAD, b"")[0] == 200
        assert bright(running) == pytest.approx(0.4, abs=0.01)


class Asking:
    """Threads that ask without pause; every answer must be one of the allowed ones."""

    def __init__(self, server: InferenceProcess, allowed: set[float]) -> None:
        self.answers: list[float] = []
        self.wrong: list[Any] = []
        self._server = server
        self._allowed = allowed
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def _ask(self) -> None:
        body = {"inputs": [{"name": "images", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": [102] * 3072}]}
        encoded = json.dumps(body).encode()
        while not self._stop.is_set():
            status, said = self._server.request("/v2/models/brightness/infer", encoded)
            answer = round(said["outputs"][0]["data"][1], 3) if status == 200 else None
            if answer not in self._allowed:
                self.wrong.append((status, said))
                return
            self.answers.append(answer)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_every_answer_during_swaps_is_from_the_old_or_the_new_model_and_none_fails(tmp_path: Path) -> None:
    entry = tmp_path / "brightness"
    for version, offset in (("1.0.0", 0.0), ("2.0.0", 0.1)):
        write_brightness_bundle(tmp_path / "scratch", version=version, offset=offset)
        entry.mkdir(exist_ok=True)
        (tmp_path / "scratch" / "brightness").rename(entry / version)
    shutil.rmtree(tmp_path / "scratch")
    promote(entry, "1.0.0")
    with inference_process(tmp_path) as running, Asking(running, {0.4, 0.5}) as asking:
        for _ in range(2):
            promote(entry, "2.0.0")
            assert running.request(LOAD, b"")[1]["version"].startswith("2.0.0")
            assert bright(running) == pytest.approx(0.5, abs=0.01)
            rollback(entry)
            assert running.request(LOAD, b"")[1]["version"].startswith("1.0.0")
            assert bright(running) == pytest.approx(0.4, abs=0.01)
    assert asking.wrong == []
    assert set(asking.answers) == {0.4, 0.5}


def test_a_tuned_choice_is_served_and_part_of_the_fingerprint(tmp_path: Path) -> None:
    folder = write_brightness_bundle(tmp_path)
    with inference_process(tmp_path) as running:
        plain = _eyeline(running)
        tuned = {"runtime": "openvino", "precision": "f32", "threads": 1, "instances": 1, "batch": 4}
        pytest.importorskip("openvino")
        (folder / "tuned.toml").write_text(tomli_w.dumps(tuned))
        assert running.request(LOAD, b"")[0] == 200
        chosen = _eyeline(running)
        assert bright(running) == pytest.approx(0.4, abs=0.01)
    assert (plain["ref"]["runtime"], chosen["ref"]["runtime"]) == ("onnxruntime", "openvino")
    assert plain["ref"]["version"] == chosen["ref"]["version"]
    assert plain["fingerprint"] != chosen["fingerprint"]


def test_a_provider_that_this_build_lacks_is_named_with_the_way_out(tmp_path: Path) -> None:
    write_brightness_bundle(tmp_path)
    with inference_process(tmp_path, ready=False, providers=["cuda", "cpu"]) as running:
        reason = running.wait_settled()["brightness"]["reason"]
    assert "'cuda'" in reason
    assert "eyeline[gpu]" in reason


def _eyeline(server: InferenceProcess) -> dict[str, Any]:
    config = server.request("/v2/models/brightness/config")[1]
    decoded: dict[str, Any] = json.loads(config["parameters"]["eyeline"]["string_value"])
    return decoded

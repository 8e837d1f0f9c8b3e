"""The Open Inference Protocol, asked by a client that others wrote (tritonclient), against the real server process."""

import base64
import json
import urllib.parse
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.utils.shared_memory as triton_shm
from tritonclient.utils import InferenceServerException

from eyeline.inference.base import Tensor
from tests.fake_models import grey_picture, write_box_bundle, write_brightness_bundle
from tests.inference_process import InferenceProcess, inference_process

INFER = "/v2/models/brightness/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceProcess]:
    models = tmp_path_factory.mktemp("models")
    write_brightness_bundle(models)
    write_box_bundle(models)
    with inference_process(models) as running:
        yield running


@pytest.fixture
def client(server: InferenceProcess) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as opened:
        yield opened


def greys(*levels: int) -> Tensor:
    return np.stack([np.full((32, 32, 3), level, np.uint8) for level in levels])


def scores(*levels: int) -> Tensor:
    return np.array([[1 - level / 255, level / 255] for level in levels], np.float32)


def images(tensor: Tensor, *, binary: bool = True) -> Any:
    given = triton.InferInput("images", list(tensor.shape), "UINT8")
    given.set_data_from_numpy(tensor, binary_data=binary)
    return given


def test_the_server_is_live_and_ready_and_says_what_it_speaks(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("brightness")
    said = client.get_server_metadata()
    assert said["name"] == "eyeline"
    assert {"binary_tensor_data", "system_shared_memory"} <= set(said["extensions"])


def test_metadata_name_inputs_and_outputs(client: Any) -> None:
    said = client.get_model_metadata("brightness")
    assert said["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}]
    assert said["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}]
    version = said["versions"][0]
    assert client.get_model_metadata("brightness", version)["versions"] == [version]
    assert client.is_model_ready("brightness", "1.0.0")
    assert not client.is_model_ready("brightness", "7.7.7")


def test_config_carries_our_contract_beside_tritons_fields(client: Any) -> None:
    said = client.get_model_config("box")
    assert said["max_batch_size"] == 8
    assert said["input"] == [{"name": "images", "data_type": "TYPE_UINT8", "dims": [32, 32, 3]}]
    ours = json.loads(said["parameters"]["eyeline"]["string_value"])
    assert ours["contract"]["output"]["decoder"] == "yolov8"
    assert ours["ref"]["runtime"] == "onnxruntime"
    assert len(ours["fingerprint"]) == 64
    assert ours["outputs"] == {"scores": [5, 1]}


def test_the_index_lists_models_with_their_state(client: Any) -> None:
    rows = {row["name"]: row for row in client.get_model_repository_index()}
    assert set(rows) == {"brightness", "box"}
    assert rows["box"]["state"] == "READY"
    assert rows["box"]["version"].startswith("1.0.0+")


@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "json out"])
@pytest.mark.parametrize("binary_in", [True, False], ids=["binary in", "json in"])
def test_tensors_travel_as_json_or_binary_and_the_id_comes_back(client: Any, binary_in: bool, binary_out: bool) -> None:
    asked = [triton.InferRequestedOutput("scores", binary_data=binary_out)]
    answer = client.infer(
        "brightness", [images(greys(0, 100, 255), binary=binary_in)], outputs=asked, request_id="no 7"
    )
    np.testing.assert_allclose(answer.as_numpy("scores"), scores(0, 100, 255), atol=1e-6)
    assert answer.get_response()["id"] == "no 7"
    assert answer.get_response()["model_name"] == "brightness"


def test_without_requested_outputs_all_come(client: Any) -> None:
    answer = client.infer("box", [images(greys(51))])
    assert answer.as_numpy("scores").reshape(-1).tolist() == pytest.approx([16, 16, 16, 16, 0.2])


def test_a_version_can_be_named(client: Any) -> None:
    version = client.get_model_metadata("brightness")["versions"][0]
    answer = client.infer("brightness", [images(greys(255))], model_version=urllib.parse.quote(version))
    assert answer.get_response()["model_version"] == version


def test_shared_memory_carries_input_and_output(client: Any) -> None:
    room = triton_shm.create_shared_memory_region("pixels", "/eyeline_test_pixels", 2 * 32 * 32 * 3 + 16)
    try:
        triton_shm.set_shared_memory_region(room, [greys(10, 20)])
        client.register_system_shared_memory("pixels", "/eyeline_test_pixels", 2 * 32 * 32 * 3 + 16)
        assert [row["name"] for row in client.get_system_shared_memory_status()] == ["pixels"]
        given = triton.InferInput("images", [2, 32, 32, 3], "UINT8")
        given.set_shared_memory("pixels", 2 * 32 * 32 * 3)
        wanted = triton.InferRequestedOutput("scores")
        wanted.set_shared_memory("pixels", 16, offset=2 * 32 * 32 * 3)
        answer = client.infer("brightness", [given], outputs=[wanted])
        assert answer.get_output("scores")["parameters"]["shared_memory_region"] == "pixels"
        got = triton_shm.get_contents_as_numpy(room, np.float32, [2, 2], 2 * 32 * 32 * 3)
        np.testing.assert_allclose(got, scores(10, 20), atol=1e-6)
        del got
        client.unregister_system_shared_memory("pixels")
        assert client.get_system_shared_memory_status() == []
        with pytest.raises(InferenceServerException, match="unknown shared memory region 'pixels'"):
            client.infer("brightness", [given])
    finally:
        client.unregister_system_shared_memory()
        triton_shm.destroy_shared_memory_region(room)


def test_a_region_made_anew_under_its_name_is_mapped_anew(client: Any) -> None:
    for level in (30, 60):
        room = triton_shm.create_shared_memory_region("again", "/eyeline_test_again", 32 * 32 * 3)
        try:
            triton_shm.set_shared_memory_region(room, [greys(level)])
            client.register_system_shared_memory("again", "/eyeline_test_again", 32 * 32 * 3)
            given = triton.InferInput("images", [1, 32, 32, 3], "UINT8")
            given.set_shared_memory("again", 32 * 32 * 3)
            got = client.infer("brightness", [given]).as_numpy("scores")
            np.testing.assert_allclose(got, scores(level), atol=1e-6)
        finally:
            triton_shm.destroy_shared_memory_region(room)


def test_statistics_count_what_was_run(client: Any) -> None:
    before = client.get_inference_statistics("brightness")["model_stats"][0]
    client.infer("brightness", [images(greys(1, 2, 3))])
    after = client.get_inference_statistics("brightness")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 1


def _json_request(tensor: Tensor, **changes: Any) -> bytes:
    given = {"name": "images", "shape": list(tensor.shape), "datatype": "UINT8", "data": tensor.ravel().tolist()}
    return json.dumps({"inputs": [{**given, **changes}]}).encode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "Open Inference Protocol"),
        (b"{", "Open Inference Protocol"),
        (b'{"inputs": "x"}', "Open Inference Protocol"),
        (b'{"inputs": []}', "one input, 'images'; the request has none"),
        (_json_request(greys(1), name="pixels"), "'images'; the request has 'pixels'"),
        (_json_request(greys(1), datatype="FP32"), "is FP32 [1, 32, 32, 3]; the model 'brightness' wants UINT8 [1..8, 32"),
        (_json_request(greys(1), datatype="SILLY"), "is SILLY"),
        (_json_request(greys(1), shape=[1, 3, 32, 32]), "wants UINT8 [1..8, 32, 32, 3]"),
        (_json_request(greys(1), shape=[0, 32, 32, 3]), "wants UINT8 [1..8"),
        (_json_request(greys(1), shape=[-1, 32, 32, 3]), "wants UINT8 [1..8"),
        (_json_request(greys(*[1] * 9)), "is UINT8 [9, 32, 32, 3]"),
        (_json_request(greys(1), data=[1, 2, 3]), "has 3 numbers"),
        (_json_request(greys(1), data=None), "has no data"),
        (_json_request(greys(1), data=["a"] * 3072), "not numbers"),
        (_json_request(greys(1), data=[300] * 3072), "no UINT8"),
        (_json_request(greys(1), data=[[1], [1, 2]]), "no array"),
        (_json_request(greys(1), parameters={"shared_memory_region": "nowhere"}), "unknown shared memory region 'nowhere'"),
        (_json_request(greys(1), parameters={"binary_data_size": 10}), "claims 10 bytes; 0 follow"),
        (_json_request(greys(1))[:-1] + b', "outputs": [{"name": "what"}]}', "no output 'what'; it has scores [2]"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_what_was_wanted(server: InferenceProcess, body: bytes, says: str) -> None:
    status, said = server.request(INFER, body)
    assert status == 400
    assert says in said["error"]


def test_bytes_that_no_input_claims_are_refused(server: InferenceProcess) -> None:
    head = _json_request(greys(1), parameters={"binary_data_size": 3072})
    lengths = {"Inference-Header-Content-Length": str(len(head))}
    assert server.request(INFER, head + b"\x07" * 3072, lengths)[0] == 200
    status, said = server.request(INFER, head + b"\x07" * 3073, lengths)
    assert (status, said) == (400, {"error": "input 'images' claims 3072 bytes; 3073 follow the JSON header"})


@pytest.mark.parametrize("length", ["-1", "x", "99999", "1e3", "\u00b2"])
def test_a_header_length_beyond_the_body_is_refused(server: InferenceProcess, length: str) -> None:
    status, said = server.request(INFER, _json_request(greys(1)), {"Inference-Header-Content-Length": length})
    assert status == 400
    assert "no length" in said["error"]


def test_an_unknown_model_is_404_and_names_the_known(server: InferenceProcess) -> None:
    status, said = server.request("/v2/models/nothing/infer", _json_request(greys(1)))
    assert (status, said) == (404, {"error": "no model is called 'nothing'; there are: box, brightness"})


def test_errors_reach_the_foreign_client_in_words(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="no model is called 'nothing'"):
        client.infer("nothing", [images(greys(1))])
    with pytest.raises(InferenceServerException, match="a load takes no parameters"):
        client.load_model("brightness", config='{"backend": "python"}')


def test_a_body_over_the_limit_is_refused_before_it_is_read(server: InferenceProcess) -> None:
    status, said = server.request(INFER, b"{}", {"Content-Length": "64000001"})
    assert status == 413
    assert "64,000,000 at most" in said["error"]


def test_an_expired_deadline_is_504_and_runs_nothing(server: InferenceProcess) -> None:
    before = server.request("/v2/models/brightness/stats")[1]["model_stats"][0]["inference_count"]
    status, said = server.request(INFER, _json_request(greys(1)), {"x-eyeline-timeout": "-1"})
    after = server.request("/v2/models/brightness/stats")[1]["model_stats"][0]["inference_count"]
    assert (status, after) == (504, before)
    assert "deadline" in said["error"]


@pytest.mark.parametrize("header", ["nan", "soon", "inf"])
def test_a_deadline_that_is_no_number_is_refused(server: InferenceProcess, header: str) -> None:
    assert server.request(INFER, _json_request(greys(1)), {"x-eyeline-timeout": header})[0] == 400


def test_what_would_change_the_server_is_refused_to_a_page_in_a_browser(server: InferenceProcess) -> None:
    origin = {"Origin": "http://evil.example"}
    for path in (
        "/v2/repository/models/box/unload",
        "/v2/repository/models/box/load",
        "/v2/systemsharedmemory/region/x/register",
        "/v2/systemsharedmemory/unregister",
    ):
        assert server.request(path, b"{}", origin)[0] == 403
    assert server.request("/v2/models/box/ready")[0] == 200


@pytest.mark.parametrize("key", ["/../../etc/hostname", "a/b", "", "no-such-segment"])
def test_only_shared_memory_can_be_registered(server: InferenceProcess, key: str) -> None:
    body = json.dumps({"key": key, "offset": 0, "byte_size": 10}).encode()
    assert server.request("/v2/systemsharedmemory/region/x/register", body)[0] == 400


def test_predict_answers_for_an_encoded_picture(server: InferenceProcess) -> None:
    status, said = server.request("/predict?model=box", grey_picture(0.6, suffix=".jpg"))
    assert status == 200
    assert said["image"] == {"width": 64, "height": 48}
    assert said["detections"] == [{"label": "thing", "score": pytest.approx(0.6, abs=0.01), "box": [16, 12, 48, 36]}]
    assert said["model"]["name"] == "box"


def test_predict_takes_base64_too(server: InferenceProcess) -> None:
    body = json.dumps({"image": base64.b64encode(grey_picture(0.9)).decode()}).encode()
    status, said = server.request("/predict?model=brightness", body, {"Content-Type": "application/json"})
    assert status == 200
    assert said["classifications"][0] == {"label": "bright", "score": pytest.approx(0.902, abs=0.01), "step": None}


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/predict?model=box", b"no picture", 422, "image"),
        ("/predict?model=box", grey_picture(0.5, suffix=".jpg")[:-30], 422, ""),
        ("/predict", grey_picture(0.5), 400, "say which model"),
        ("/predict?model=none", grey_picture(0.5), 404, "no model"),
    ],
)
def test_predict_refuses_in_words(server: InferenceProcess, path: str, body: bytes, status: int, says: str) -> None:
    got, said = server.request(path, body)
    assert got == status
    assert says in said["error"]


def test_metrics_have_our_names_and_tritons(server: InferenceProcess) -> None:
    server.request(INFER, _json_request(greys(1)))
    _, page = server.request("/metrics")
    text = page.decode()
    assert 'eyeline_stage_seconds_count{stage="infer"}' in text
    assert 'eyeline_batch_size_count{model="brightness"}' in text
    assert 'nv_inference_request_success{model="brightness",version="1.0.0+' in text


def test_an_unknown_path_is_json_404(server: InferenceProcess) -> None:
    assert server.request("/v2/nothing") == (404, {"error": "Not Found"})

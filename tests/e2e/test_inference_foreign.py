"""A server of somebody else: a stub by the protocol's text, with nothing of ours and nothing of Triton's but binary tensors.

No server of others installs here. It says "1" where ours say a digest, has no configuration, no shared memory, no repository
and no statistics, and refuses in its own words; the contract comes from the bundle of the same name.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eyeline.core.errors import ConfigError, InferenceError, InferenceUnavailable, InputError
from eyeline.inference.client import InferenceClient
from eyeline.inference.shm import Segment
from tests.fake_models import grey_picture, write_brightness_bundle
from tests.plant import open_plant, plant_settings

LENGTH = "Inference-Header-Content-Length"
TENSORS = [{"name": "images", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}]
METADATA = {"name": "brightness", "versions": ["1"], "platform": "plain", "inputs": TENSORS}
METADATA["outputs"] = [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}]
#: Brightness below which the answer is NaN, and above which the server is out of room.
DARK, GLARING = 0.1, 0.99


class Plain(BaseHTTPRequestHandler):
    """One connection. The answer is binary where the server can and is asked to."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path in ("/v2/health/live", "/v2/health/ready"):
            self._say(200, b"")
        elif self.path == "/v2/models/brightness":
            self._say(200, json.dumps(METADATA).encode())
        else:
            self._say(404, b'{"error": "Model not found"}')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/v2/models/brightness/infer":
            return self._say(404, b'{"detail": "Not Found"}')
        length = int(self.headers.get(LENGTH, len(body)))
        asked = json.loads(body[:length])
        (sent,) = asked["inputs"]
        if sent["datatype"] != "UINT8" or sent["shape"][1:] != [32, 32, 3]:
            return self._say(422, b'{"detail": "unexpected shape for input images"}')
        level = np.frombuffer(body[length:], np.uint8).reshape(sent["shape"]).mean((1, 2, 3)) / 255
        if (level > GLARING).any():
            return self._say(507, b"<h1>Insufficient Storage</h1>")
        scores = np.stack([1 - level, level], 1).astype("<f4")
        scores[level < DARK] = np.nan
        return self._answer(asked, scores)

    def _answer(self, asked: dict[str, Any], scores: Any) -> None:
        output: dict[str, Any] = {"name": "scores", "datatype": "FP32", "shape": list(scores.shape)}
        tail = b""
        if self.server.binary and asked["parameters"]["binary_data_output"]:  # type: ignore[attr-defined]
            tail = scores.tobytes()
            output["parameters"] = {"binary_data_size": len(tail)}
        else:
            output["data"] = scores.ravel().tolist()  # NaN is written as NaN, as Python's own JSON does
        said = {"model_name": "brightness", "model_version": "1", "id": asked.get("id", ""), "outputs": [output]}
        head = json.dumps(said).encode()
        self._say(200, head + tail, **({LENGTH: str(len(head))} if tail else {}))

    def _say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the standard library
        pass


@pytest.fixture(params=["binary", "JSON"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Plain)
    server.daemon_threads = True
    server.binary = request.param == "binary"  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def greys(*levels: int) -> dict[str, Any]:
    return {"images": np.stack([np.full((32, 32, 3), level, np.uint8) for level in levels])}


async def test_its_answers_are_ours_and_its_refusals_are_told_in_its_words(url: str, tmp_path: Path) -> None:
    client = InferenceClient(url, tmp_path)
    with pytest.raises(ConfigError, match="put its bundle there"):
        await client.model("brightness")
    write_brightness_bundle(tmp_path)
    served = await client.model("brightness")
    assert (served.ref.runtime, served.ref.version[:6], served.outputs) == ("plain", "1.0.0+", {"scores": (2,)})
    assert not served.finite
    found = await client.predict("brightness", greys(51, 204), timeout=5, version=served.ref.version)
    assert found["scores"].tolist() == pytest.approx(np.array([[0.8, 0.2], [0.2, 0.8]]))
    dark = await client.predict("brightness", greys(5), timeout=5)
    assert np.isnan(dark["scores"]).all()
    with pytest.raises(InferenceError, match=r"refused the input.*unexpected shape"):
        await client.predict("brightness", {"images": np.zeros((1, 2, 2, 3), np.uint8)}, timeout=5)
    with pytest.raises(InferenceUnavailable, match=r"gave no answer.*Insufficient Storage"):
        await client.predict("brightness", greys(255), timeout=5)
    with pytest.raises(InferenceUnavailable, match=r"'nothing' is not served.*Model not found"):
        await client.model("nothing")
    with Segment.create(4096) as segment:
        assert not await client.register(segment.name, segment.size)
    assert await client.ready() == ()
    with pytest.raises(InputError, match="Not Found"):
        await client.load("brightness")
    with pytest.raises(InferenceUnavailable, match="keeps no statistics"):
        await client.statistics()
    await client.close()


@pytest.mark.parametrize("url", ["JSON"], indirect=True)
async def test_a_worker_records_its_answers_and_charges_the_picture_it_answers_nan_for(
    url: str, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    write_brightness_bundle(models)
    pipelines = [{"name": "brightness", "steps": [{"name": "light", "model": "brightness"}]}]
    async with open_plant(plant_settings(tmp_path / "data", url, models, pipelines=pipelines)) as plant, plant.worker():
        good, dark = [await plant.submit(grey_picture(level)) for level in (0.8, 0.02)]
        result = await plant.result(good)
        assert result.classifications[0].label == "bright"
        assert result.classifications[0].score == pytest.approx(0.8, abs=0.01)
        assert (result.models[0].runtime, result.models[0].precision) == ("plain", "unknown")
        await plant.until(lambda: plant.attempts(dark), 30, "an attempt charged to the dark picture")

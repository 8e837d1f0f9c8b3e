"""Asks an inference server for answers: the Open Inference Protocol v2 over HTTP, tensors in shared memory where it can.

Any server that speaks the protocol will do (ours, Triton, KServe, OpenVINO Model Server). Ours says which bundle it
serves; of others the contract is read from the bundles in `models_dir`.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import numpy as np

from eyeline.core.errors import ConfigError, InferenceError, InferenceUnavailable, InputError
from eyeline.core.types import ModelRef
from eyeline.inference import protocol
from eyeline.inference.base import ModelChanged, ServedModel, SharedTensor, Tensor
from eyeline.inference.bundles import Bundle, load_named, locate
from eyeline.inference.http import HttpClient, HttpFailure
from eyeline.inference.protocol import RequestInput, RequestOutput, Served, TensorParameters
from eyeline.inference.shm import Segment

#: Seconds for which an answer to "what serves under this name?" holds.
CACHED = 1.0
#: Seconds that a question about the server itself may take.
ASIDE = 5.0
#: Seconds that loading a model may take: it is checked apart first, on a machine that is busy.
LOADING = 300.0
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Unanswered(InferenceUnavailable):
    """No answer at all: not reached, cut off, or late. `sent`: the server may have got the request, and may still work on it."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class InferenceClient:
    """A Predictor over HTTP. `url` is `http://host:port` or `unix:///path`; used within one event loop."""

    def __init__(self, url: str, models_dir: Path, *, token: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "unix"):
            raise ConfigError(f"inference.url {url!r} is not understood; use http://HOST:PORT or unix:///PATH")
        tls = parts.scheme == "https"
        socket = parts.path if parts.scheme == "unix" else None
        self._http = HttpClient(
            parts.hostname or "localhost", parts.port or (443 if tls else 80), socket=socket, tls=tls
        )
        self._base = "" if socket else parts.path.rstrip("/")
        self._near = socket is not None or parts.hostname in LOOPBACK
        self._url = url
        self._models_dir = models_dir
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._segments: dict[str, Segment] = {}
        self._models: dict[str, tuple[float, asyncio.Task[ServedModel]]] = {}

    @property
    def near(self) -> bool:
        """Whether the server is on this host by its address, so that it may share memory."""
        return self._near

    async def alive(self) -> None:
        """Raises InferenceUnavailable while the server does not say that it lives."""
        status, _, _ = await self._get("/v2/health/live")
        if status != 200:
            raise InferenceUnavailable(f"the inference server at {self._url} is not alive (HTTP {status})")

    async def model(self, name: str) -> ServedModel:
        """What serves under this name now (cached for a second). Raises InferenceUnavailable, ConfigError."""
        until, task = self._models.get(name, (0.0, None))
        if task is None or time.monotonic() > until or _failed(task):
            task = asyncio.ensure_future(self._ask(name))
            self._models[name] = (time.monotonic() + CACHED, task)
        return await asyncio.shield(task)

    async def predict(
        self,
        model: str,
        inputs: Mapping[str, Tensor | SharedTensor],
        *,
        outputs: Mapping[str, SharedTensor] | None = None,
        timeout: float,  # noqa: ASYNC109 - it travels with the request
        request_id: str = "",
        version: str = "",
    ) -> dict[str, Tensor]:
        """One request; outputs by name, those given room in shared memory as views of it.

        Raises InferenceError (this input is refused), InferenceUnavailable (down, full, late, not ready), ModelChanged (not
        `version` answered; servers of others number theirs otherwise, and are not held to it).
        """
        if timeout <= 0:
            raise InferenceUnavailable(f"the deadline of request {request_id!r} has passed before it was sent")
        wanted = outputs or {}
        sent = [value for value in inputs.values() if isinstance(value, np.ndarray)]
        body, header_length = protocol.encode_request(
            request_id,
            [_request_input(name, value) for name, value in inputs.items()],
            sent,
            [RequestOutput(name=name, parameters=_place(room)) for name, room in wanted.items()],
            timeout,
        )
        headers = {protocol.TIMEOUT: f"{timeout:.3f}"}
        if header_length is not None:
            headers[protocol.HEADER_LENGTH] = str(header_length)
        status, answer, length = await self._infer(model, body, headers, timeout)
        if status != 200:
            raise _error(status, answer, model)
        return self._tensors(answer, length, wanted, (model, version))

    async def register(self, segment: str, size: int) -> bool:
        """Offer a shared memory segment; False where the server cannot share memory (then send tensors)."""
        if not self._near:
            return False
        if segment not in self._segments:
            self._segments[segment] = Segment.attach(segment)
        status, _, _ = await self._post(
            f"/v2/systemsharedmemory/region/{quote(segment)}/register", _registration(segment, size)
        )
        if status != 200:
            self._segments.pop(segment).close()
        return status == 200

    async def unregister(self, segment: str) -> None:
        """Take it back. Idempotent; a server that is gone has forgotten it anyway."""
        held = self._segments.pop(segment, None)
        if held is None:
            return
        held.close()
        try:
            await self._post(f"/v2/systemsharedmemory/region/{quote(segment)}/unregister", b"")
        except InferenceUnavailable:
            return

    async def ready(self) -> Sequence[str]:
        """Names of models that are not ready, empty when all are. Raises InferenceUnavailable where there is no answer."""
        status, _, _ = await self._get("/v2/health/ready")
        if status == 200:
            return ()
        status, body, _ = await self._post("/v2/repository/index", b"{}")
        if status != 200:
            raise InferenceUnavailable(f"the inference server at {self._url} is not ready (HTTP {status})")
        rows = msgspec.json.decode(body, type=list[dict[str, Any]])
        missing = sorted({row["name"] for row in rows if row.get("state") != "READY"})
        if not missing:
            raise InferenceUnavailable(f"the inference server at {self._url} is starting")
        return missing

    async def load(self, name: str) -> str:
        """Have the server load the current version of a model and swap it in; returns which one serves then.

        Raises InputError with the server's reason, the old version still serving; InferenceUnavailable where none answers.
        """
        path = f"/v2/repository/models/{quote(name)}/load"
        status, body, _ = await self._post(path, b"{}", seconds=LOADING)
        if status != 200:
            raise InputError(_reason(body) or f"HTTP {status}")
        return str(msgspec.json.decode(body, type=dict[str, Any])["version"])

    async def unload(self, name: str) -> None:
        """Have the server stop serving a model; what it has in hand is still answered. One that it has not is as good.

        Raises InputError with the server's reason, InferenceUnavailable where none answers.
        """
        status, body, _ = await self._post(f"/v2/repository/models/{quote(name)}/unload", b"{}")
        if status not in (200, 404):
            raise InputError(_reason(body) or f"HTTP {status}")

    async def drain(self, *, wanted: bool) -> str:
        """Have the server take no new requests, or take them again; returns its state. Raises as `unload` does."""
        status, body, _ = await self._post("/drain" if wanted else "/drain/end", b"")
        if status in (404, 405):
            raise InputError(f"the server at {self._url} is none of this release's and cannot be drained from here")
        if status != 200:
            raise InputError(_reason(body) or f"HTTP {status}")
        return str(msgspec.json.decode(body, type=dict[str, Any])["state"])

    async def state(self) -> str:
        """Whether it is drained; empty where it cannot be. Raises InferenceUnavailable."""
        return str((await self._metadata()).get("state", ""))

    async def statistics(self) -> list[dict[str, Any]]:
        """What each model of the server did since it was loaded (the statistics extension). Raises InferenceUnavailable."""
        status, body, _ = await self._get("/v2/models/stats")
        if status != 200:
            raise InferenceUnavailable(f"the inference server at {self._url} keeps no statistics (HTTP {status})")
        found: list[dict[str, Any]] = msgspec.json.decode(body, type=dict[str, Any])["model_stats"]
        return found

    async def environment(self) -> dict[str, str]:
        """What it says that it computes with; one of others, or an old one, what it is. Raises InferenceUnavailable."""
        said = await self._metadata()
        known = {"software": f"{said['name']} {said.get('version', '')}".strip()} if "name" in said else {}
        return known | _told(said.get("environment"))

    async def refused(self) -> dict[str, str]:
        """Models with what is wrong with them or with their newest load, in the server's words. Raises InferenceUnavailable."""
        status, body, _ = await self._post("/v2/repository/index", b"{}")
        rows = msgspec.json.decode(body, type=list[dict[str, Any]]) if status == 200 else []
        return {
            str(row.get("name")): str(row["reason"]) for row in rows if row.get("reason") not in (None, "", "unloaded")
        }

    async def close(self) -> None:
        """Give back connections. Idempotent."""
        for segment in list(self._segments):
            await self.unregister(segment)
        for _, task in self._models.values():
            task.cancel()
        self._models.clear()
        self._http.close()

    async def _metadata(self) -> dict[str, Any]:
        status, body, _ = await self._get("/v2")
        found: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any]) if status == 200 else {}
        return found

    async def _infer(
        self, model: str, body: bytes, headers: dict[str, str], seconds: float
    ) -> tuple[int, bytes, str | None]:
        path = f"/v2/models/{quote(model)}/infer"
        answer = await self._post(path, body, headers, seconds)
        if answer[0] == 400 and self._segments and b"shared memory region" in answer[1].lower():
            await self._register_again()
            answer = await self._post(path, body, headers, seconds)
        return answer

    async def _register_again(self) -> None:
        """A server that was started again knows none of our segments; that is no image's fault."""
        for name, segment in list(self._segments.items()):
            path = f"/v2/systemsharedmemory/region/{quote(name)}/register"
            status, body, _ = await self._post(path, _registration(name, segment.size))
            if status != 200:
                raise InferenceUnavailable(
                    f"the inference server at {self._url} refuses shared memory: {_reason(body)}"
                )

    def _tensors(
        self, answer: bytes, length: str | None, wanted: Mapping[str, SharedTensor], asked: tuple[str, str]
    ) -> dict[str, Tensor]:
        try:
            response, tensors = protocol.decode_response(answer, length)
        except (msgspec.MsgspecError, InputError, ValueError) as error:
            raise InferenceUnavailable(
                f"the inference server at {self._url} gave no readable answer: {error}"
            ) from error
        model, version = asked
        if version and version != response.model_version and "+" in response.model_version:  # ours carry a digest
            self._models.pop(model, None)
            raise ModelChanged(f"{model} {response.model_version} answered, not {version}")
        for output in response.outputs:
            room = wanted.get(output.name)
            if room is not None and output.name not in tensors:
                dtype = protocol.dtype_of(output.datatype)
                tensors[output.name] = self._segments[room.segment].view(room.offset, output.shape, dtype)
        return tensors

    async def _ask(self, name: str) -> ServedModel:
        status, body, _ = await self._get(f"/v2/models/{quote(name)}/config")
        said = _eyeline_parameters(body) if status == 200 else None
        if said is not None:
            served = msgspec.json.decode(said, type=Served)
            return ServedModel(
                contract=served.contract,
                ref=served.ref,
                fingerprint=served.fingerprint,
                outputs=served.outputs,
                finite=True,  # our servers run a batch that gives NaN again singly, and refuse whose it is
                canary=served.canary,
                golden=served.golden,
            )
        status, body, _ = await self._get(f"/v2/models/{quote(name)}")
        if status != 200:
            raise InferenceUnavailable(f"the model {name!r} is not served at {self._url}: {_reason(body) or status}")
        return await asyncio.to_thread(_from_bundle, name, body, self._models_dir)

    async def _get(self, path: str) -> tuple[int, bytes, str | None]:
        return await self._send("GET", path, b"", self._headers, ASIDE)

    async def _post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None, seconds: float = ASIDE
    ) -> tuple[int, bytes, str | None]:
        return await self._send("POST", path, body, {**self._headers, **(headers or {})}, seconds)

    async def _send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], seconds: float
    ) -> tuple[int, bytes, str | None]:
        try:
            answer = await self._http.send(method, self._base + path, headers, body, seconds)
        except TimeoutError as error:
            raise Unanswered(
                f"no answer from the inference server at {self._url} within {seconds:.1f} s", sent=True
            ) from error
        except (HttpFailure, OSError) as error:
            raise Unanswered(
                f"the inference server at {self._url} cannot be reached: {error}", sent=isinstance(error, HttpFailure)
            ) from error
        return answer.status, answer.body, answer.headers.get(protocol.HEADER_LENGTH)


def _failed(task: asyncio.Task[ServedModel]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _request_input(name: str, value: Tensor | SharedTensor) -> RequestInput:
    datatype = protocol.datatype_of(value.dtype)
    if isinstance(value, SharedTensor):
        return RequestInput(name=name, shape=value.shape, datatype=datatype, parameters=_place(value))
    parameters = TensorParameters(binary_data_size=value.nbytes)
    return RequestInput(name=name, shape=value.shape, datatype=datatype, parameters=parameters)


def _place(tensor: SharedTensor) -> TensorParameters:
    return TensorParameters(
        shared_memory_region=tensor.segment,
        shared_memory_offset=tensor.offset,
        shared_memory_byte_size=tensor.nbytes,
    )


def _registration(segment: str, size: int) -> bytes:
    return msgspec.json.encode({"key": f"/{segment}", "offset": 0, "byte_size": size})


def _error(status: int, body: bytes, model: str) -> Exception:
    reason = _reason(body) or f"HTTP {status}"
    if status == 404 and "@" in model:  # it was tried out a moment ago: no outage, another one answers
        return ModelChanged(f"{model} is not tried out any more")
    if status in (400, 413, 422):
        return InferenceError(f"the model {model!r} refused the input: {reason}")
    return InferenceUnavailable(f"the model {model!r} gave no answer: {reason}")


def _reason(body: bytes) -> str:
    try:
        said = msgspec.json.decode(body, type=protocol.Failure).error
    except msgspec.MsgspecError:
        said = ""
    return said or body[:200].decode(errors="replace")


def _eyeline_parameters(body: bytes) -> str | None:
    try:
        found = msgspec.json.decode(body)["parameters"]["eyeline"]["string_value"]
    except (msgspec.MsgspecError, LookupError, TypeError):
        return None
    return str(found)


def _told(environment: Any) -> dict[str, str]:
    """As far as it is as ours say it."""
    given = environment if isinstance(environment, dict) else {}
    return {name[:40]: value[:200] for name, value in given.items() if isinstance(value, str)}


def _from_bundle(name: str, metadata: bytes, models_dir: Path) -> ServedModel:
    """The contract of a model that a foreign server runs: from the bundle here that has its name."""
    path = locate(models_dir).get(name)
    if path is None:
        raise ConfigError(
            f"the server of {name!r} does not say what the model wants, and {models_dir} has no bundle {name!r}: "
            f"put its bundle there"
        )
    bundle: Bundle = load_named(name, path)
    said = msgspec.json.decode(metadata)
    platform = str(said.get("platform", "unknown"))
    versions = said.get("versions") or [""]
    known = hashlib.sha256(f"{bundle.digest} {platform} {versions}".encode()).hexdigest()
    ref = ModelRef(name, bundle.version, platform, "unknown")
    outputs = {row["name"]: tuple(int(length) for length in row["shape"][1:]) for row in said["outputs"]}
    return ServedModel(contract=bundle.contract, ref=ref, fingerprint=known, outputs=outputs)

"""The inference server: the Open Inference Protocol v2 over HTTP, as KServe and Triton speak it, over the model pool.

The hot path, `POST /v2/models/{m}/infer`, goes straight from the front to the batcher; everything else is Starlette routes.
"""

import asyncio
import base64
import hmac
import ipaddress
import socket
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope

import eyeline
from eyeline.core.errors import (
    ConfigError,
    EyelineError,
    Forbidden,
    InferenceError,
    InputError,
    Overloaded,
    TooLarge,
)
from eyeline.core.service import WorkState
from eyeline.core.settings import InferenceSettings
from eyeline.core.telemetry import DRAINED, logger, metrics_page
from eyeline.inference import protocol, requests
from eyeline.inference.accelerator import watch_utilisation
from eyeline.inference.answers import answer_of, tensor_of
from eyeline.inference.batcher import Expired
from eyeline.inference.batcher import Request as Waiting
from eyeline.inference.environment import of_server
from eyeline.inference.front import Exchange, Front, Headers
from eyeline.inference.models import LoadedModel, ModelPool, NotReady
from eyeline.inference.protocol import InferRequest, Served
from eyeline.inference.regions import Regions
from eyeline.inference.requests import WANTED, Reply
from eyeline.inference.runtimes import cores
from eyeline.inference.shm import sweep
from eyeline.inference.statistics import metrics_text, statistics_of

log = logger("inference")
HEADER_LENGTH = protocol.HEADER_LENGTH.encode()
TIMEOUT = protocol.TIMEOUT.encode()
MAX_IMAGE = 25_000_000
#: JSON above this many bytes is read in a thread; the event loop never computes.
LARGE_JSON = 32_000
#: Seconds after which a request that still waits is watched for its caller's leaving.
WATCH_AFTER = 0.05
EXTENSIONS = [
    "binary_tensor_data",
    "system_shared_memory",
    "model_configuration",
    "model_repository",
    "statistics",
]


class InferenceServer:
    """The inference role, a Service. `url` of the settings says where it listens; port 0 takes a free one (see `port`)."""

    def __init__(
        self,
        settings: InferenceSettings,
        *,
        only: Collection[str] = (),
        engines: Path | None = None,
        token: str | None = None,
        host: str | None = None,
    ) -> None:
        self._settings = settings
        self._only = only
        self._engines = engines
        self._token = token
        self._host = host
        self.port = 0
        self.started = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until stopped; answer what is in hand, then return. Raises ConfigError where the address is taken."""
        await asyncio.to_thread(sweep)
        listener = _listen(self._settings.url, self._host)
        pool = ModelPool(self._settings, self._engines)
        environment = await asyncio.to_thread(of_server, self._settings)
        door = Door(pool, token=self._token, environment=environment)
        front = Front(door)
        self.port = listener.getsockname()[1] if listener.family != socket.AF_UNIX else 0
        background = [asyncio.create_task(pool.load_all(self._only)), asyncio.create_task(watch_utilisation())]
        self.started.set()
        log.info(
            "the inference server listens", url=self._settings.url, port=self.port, models=str(self._settings.models)
        )
        try:
            await front.serve(listener, stop)
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await pool.close()
            door.regions.unregister()


def _listen(url: str, host: str | None) -> socket.socket:
    if "," in url:
        raise ConfigError(
            f"inference.url {url!r} lists replicas; tell each its own by EYELINE_INFERENCE__URL=http://HOST:PORT"
        )
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return _listen_unix(Path(parts.path))
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError(f"inference.url {url!r} is nothing to listen on; use http://HOST:PORT or unix:///PATH")
    address, port = host or parts.hostname, parts.port if parts.port is not None else 8090
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        listener = socket.socket(found[0][0], socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found[0][4])
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {address}:{port}: {error.strerror}; choose another in inference.url"
        ) from error
    listener.setblocking(False)
    return listener


def _listen_unix(path: Path) -> socket.socket:
    if path.is_socket():
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise ConfigError(f"cannot listen on the socket {path}: {error.strerror}") from error
    path.chmod(0o600)
    listener.setblocking(False)
    return listener


class Door:
    """What the front serves: infer requests straight away, the rest through routes."""

    def __init__(self, pool: ModelPool, *, environment: Mapping[str, str], token: str | None = None) -> None:
        self.pool = pool
        self.environment = environment
        self.regions = Regions()
        self.app: ASGIApp = _routes(self)
        self._token = token
        self._pictures = asyncio.Semaphore(cores() * 2)
        self._reading: set[asyncio.Task[None]] = set()
        self._unanswered: set[asyncio.Future[object]] = set()

    @property
    def state(self) -> WorkState:
        """See `Drainable.state`."""
        if not self.pool.drained:
            return "running"
        return "draining" if self._unanswered else "drained"

    def drain(self, *, wanted: bool) -> None:
        """See `Drainable.drain`. Nobody is asked to wait: who comes is told to ask another."""
        if wanted != self.pool.drained:
            log.info("to be drained" if wanted else "put back to work", in_hand=len(self._unanswered))
            self.pool.drained = wanted
            DRAINED.labels("inference").set(wanted)

    def _hold(self, waiting: Waiting) -> None:
        self._unanswered.add(waiting.done)
        waiting.done.add_done_callback(self._unanswered.discard)

    def refused_early(self, path: bytes) -> tuple[int, Headers, bytes] | None:
        """Unknown, not ready, or full: said before a large body is read."""
        asked = _asked(path)
        try:
            if asked is not None:
                self.pool.get(*asked).batcher.check_room()
        except EyelineError as error:
            return _error_answer(error)
        return None

    def handle(self, exchange: Exchange) -> bool:
        """Take an infer request; its answer is sent when the model has run."""
        asked = _asked(exchange.path) if exchange.method == "POST" else None
        if asked is None:
            return False
        try:
            self._infer(exchange, *asked)
        except Exception as error:  # noqa: BLE001 - every error becomes an answer
            exchange.respond(*_error_answer(error))
        return True

    def _infer(self, exchange: Exchange, name: str, version: str | None) -> None:
        self.pool.get(name, version).batcher.check_room()
        if exchange.headers.get(b"content-encoding", b"identity") != b"identity":
            raise InputError("compressed request bodies are not accepted; send the tensors as they are")
        length = exchange.headers.get(HEADER_LENGTH)
        if length is None and len(exchange.body) > LARGE_JSON:
            task = asyncio.get_running_loop().create_task(self._infer_large(exchange, name, version))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)
            return
        request, rest = requests.read(exchange.body, length.decode("latin-1") if length is not None else None)
        self._submit(exchange, name, version, request, rest)

    async def _infer_large(self, exchange: Exchange, name: str, version: str | None) -> None:
        try:
            request, rest = await asyncio.to_thread(requests.read, exchange.body, None)
            self._submit(exchange, name, version, request, rest)
        except Exception as error:  # noqa: BLE001 - every error becomes an answer
            exchange.respond(*_error_answer(error))

    def _submit(
        self, exchange: Exchange, name: str, version: str | None, request: InferRequest, rest: memoryview
    ) -> None:
        """Checked and put in the line without a pause, so that a swap cannot come between."""
        patience = exchange.headers.get(TIMEOUT)
        left = requests.seconds_left(request, patience.decode("latin-1") if patience is not None else None)
        model = self.pool.get(name, version)
        inputs, size = requests.inputs_of(request, rest, model.served, self.regions)
        finish = requests.Answering.for_request(request, model.served, size, self.regions)
        waiting = model.batcher.submit(inputs, size, time.monotonic() + left, finish)
        self._hold(waiting)
        exchange.on_leave = waiting.cancel
        waiting.done.add_done_callback(partial(_tell, exchange))

    def local(self, scope: Scope) -> None:
        """Only a process of this machine may go on, and no browser on behalf of a page. Raises Forbidden."""
        client = scope.get("client")
        near = client is None or _is_loopback(client[0])
        if not near or any(key == b"origin" for key, _ in scope["headers"]):
            raise Forbidden("this is for processes of the same machine only")

    def admin(self, scope: Scope) -> None:
        """This machine, or the token. Raises Forbidden."""
        given = dict(scope["headers"]).get(b"authorization", b"")
        if self._token and hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            return
        self.local(scope)

    async def predict(self, request: Request) -> Response:
        """An encoded picture in, the bundle's decoded answer out; stateless."""
        model = self._model_named(request.query_params.get("model"))
        body = await _body(request, MAX_IMAGE * 4 // 3 + 1000)
        started = time.monotonic()
        data = _picture(body, request.headers.get("content-type", ""))
        async with self._pictures:
            tensor, placement = await asyncio.to_thread(tensor_of, data, model.bundle.contract)
        model = self.pool.get(model.address)
        prepared = time.monotonic()
        waiting = model.batcher.submit(
            {model.bundle.contract.input.name: tensor}, 1, prepared + requests.PATIENCE, lambda outputs: outputs
        )
        self._hold(waiting)
        outputs: Any = await _watched(waiting, request.receive)
        answer = await asyncio.to_thread(answer_of, outputs, model.bundle.contract, placement)
        return _json(
            {
                "model": model.served.ref,
                "image": {"width": placement.width, "height": placement.height},
                "detections": answer.detections,
                "classifications": answer.classifications,
                "timings": {"decode": prepared - started, "infer": time.monotonic() - prepared},
            }
        )

    def _model_named(self, name: str | None) -> LoadedModel:
        if name is None:
            names = [row.name for row in self.pool.index() if "@" not in row.name]
            if len(names) != 1:
                raise InputError(f"say which model: /predict?model=NAME; there are: {', '.join(names) or 'none'}")
            name = names[0]
        return self.pool.get(name)


def _asked(path: bytes) -> tuple[str, str | None] | None:
    """(model, version) of the path of an infer request; None for another path."""
    target = path.partition(b"?")[0]
    if not target.endswith(b"/infer"):
        return None
    parts = target.decode("latin-1").split("/")  # "", v2, models, name, [versions, v,] infer
    if parts[1:3] != ["v2", "models"] or not (len(parts) == 5 or (len(parts) == 7 and parts[4] == "versions")):
        return None
    return unquote(parts[3]), unquote(parts[5]) if len(parts) == 7 else None


def _tell(exchange: Exchange, done: "asyncio.Future[object]") -> None:
    """Send what came of an infer request."""
    error = asyncio.CancelledError() if done.cancelled() else done.exception()
    reply = None if error else done.result()
    if not isinstance(reply, Reply):
        exchange.respond(*_error_answer(error if isinstance(error, Exception) else TypeError(repr(reply))))
        return
    headers = [(b"content-length", str(len(reply.body)).encode())]
    if reply.header_length is None:
        headers.append((b"content-type", b"application/json"))
    else:
        headers.append((b"content-type", b"application/octet-stream"))
        headers.append((HEADER_LENGTH, str(reply.header_length).encode()))
    exchange.respond(200, headers, reply.body)


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


async def _watched(waiting: Waiting, receive: Receive) -> object:
    """The request's answer; a caller that leaves while it waits cancels it."""
    watcher = _Watcher(waiting, receive)
    try:
        return await waiting.done
    except asyncio.CancelledError:
        waiting.cancel()
        raise
    finally:
        watcher.end()


class _Watcher:
    """Watches for the caller's leaving, once the request has waited long enough for that to be worth a task."""

    def __init__(self, waiting: Waiting, receive: Receive) -> None:
        self._waiting = waiting
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._waiting.cancel()

    def end(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


async def _body(request: Request, limit: int) -> bytes:
    body = await request.body()  # has come whole
    if len(body) > limit:
        raise TooLarge(f"a body of {len(body):,} bytes; {limit:,} at most")
    return body


def _picture(body: bytes, content_type: str) -> bytes:
    if not content_type.startswith("application/json"):
        data = body
    else:
        try:
            data = base64.b64decode(msgspec.json.decode(body, type=dict[str, str])["image"], validate=True)
        except (msgspec.MsgspecError, KeyError, ValueError) as error:
            raise InputError(f'send image bytes, or JSON {{"image": base64}}: {error}') from error
    if len(data) > MAX_IMAGE:
        raise TooLarge(f"an image of {len(data):,} bytes; {MAX_IMAGE:,} at most")
    return data


# --- errors -----------------------------------------------------------------------------------------------------------


def status_of(error: Exception) -> int:
    """The HTTP status of an error."""
    if isinstance(error, InputError):
        return error.status
    if isinstance(error, Overloaded):
        return error.status
    if isinstance(error, NotReady):
        return 503
    if isinstance(error, Expired):
        return 504
    if isinstance(error, TimeoutError):
        return 408
    if isinstance(error, InferenceError):
        return 422
    if isinstance(error, ConfigError):
        return 400
    return 500


def _error_body(error: Exception, status: int) -> bytes:
    if status == 500:
        log.error("a request failed unexpectedly", exc_info=error)
    text = str(error) if isinstance(error, EyelineError) else "the request failed; the server's log says why"
    return msgspec.json.encode({"error": text})


def _error_headers(error: Exception) -> dict[str, str]:
    return {"retry-after": str(max(1, round(error.retry_after)))} if isinstance(error, Overloaded) else {}


def _error_answer(error: Exception) -> tuple[int, Headers, bytes]:
    status = status_of(error)
    body = _error_body(error, status)
    headers = {"content-type": "application/json", "content-length": str(len(body)), **_error_headers(error)}
    return status, [(key.encode(), value.encode()) for key, value in headers.items()], body


async def _on_error(_request: Request, error: Exception) -> Response:
    status = status_of(error)
    return Response(_error_body(error, status), status, headers=_error_headers(error), media_type="application/json")


async def _on_http_error(_request: Request, error: Exception) -> Response:
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "failed")
    return _json({"error": detail}, status)


# --- routes -----------------------------------------------------------------------------------------------------------


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _routes(door: Door) -> Starlette:
    pages = _Pages(door)
    models = [
        Route(f"/v2/models/{{name}}{version}{end}", page)
        for version in ("", "/versions/{version}")
        for end, page in (
            ("", pages.metadata),
            ("/ready", pages.ready),
            ("/config", pages.config),
            ("/stats", pages.stats),
        )
    ]
    shared = "/v2/systemsharedmemory"
    routes = [
        Route("/v2", pages.server),
        Route("/v2/health/live", pages.alive),
        Route("/v2/health/ready", pages.all_ready),
        Route("/healthz", pages.alive),
        Route("/readyz", pages.all_ready),
        Route("/metrics", pages.metrics),
        Route("/v2/models/stats", pages.stats),
        *models,
        Route("/v2/repository/index", pages.index, methods=["POST", "GET"]),
        Route("/v2/repository/models/{name}/load", pages.load, methods=["POST"]),
        Route("/v2/repository/models/{name}/unload", pages.unload, methods=["POST"]),
        Route(f"{shared}/status", pages.shared_status),
        Route(f"{shared}/region/{{region}}/status", pages.shared_status),
        Route(f"{shared}/region/{{region}}/register", pages.share, methods=["POST"]),
        Route(f"{shared}/region/{{region}}/unregister", pages.unshare, methods=["POST"]),
        Route(f"{shared}/unregister", pages.unshare, methods=["POST"]),
        Route("/predict", door.predict, methods=["POST"]),
        Route("/drain", pages.drain, methods=["POST"]),
        Route("/drain/end", pages.drain, methods=["POST"]),
    ]
    handlers: Any = {HTTPException: _on_http_error, EyelineError: _on_error, Exception: _on_error}
    return Starlette(routes=routes, exception_handlers=handlers)


class Registration(msgspec.Struct):
    """The body of a shared memory registration."""

    key: str
    byte_size: int
    offset: int = 0


class _Pages:
    """Everything but infer."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._pool = door.pool

    async def server(self, _request: Request) -> Response:
        said = {"name": "eyeline", "version": eyeline.__version__, "extensions": EXTENSIONS, "state": self._door.state}
        return _json(said | {"environment": self._door.environment})

    async def drain(self, request: Request) -> Response:
        self._door.admin(request.scope)
        self._door.drain(wanted=not request.url.path.endswith("/end"))
        return _json({"state": self._door.state})

    async def alive(self, _request: Request) -> Response:
        return Response(status_code=200)

    async def all_ready(self, _request: Request) -> Response:
        missing = self._pool.not_ready()
        if not self._pool.located:
            return _json({"error": "not ready: the models folder is being looked through", "models": []}, 503)
        if not missing:
            return Response(status_code=200)
        said = "; ".join(f"{row.name}: {row.reason or row.state.lower()}" for row in missing)
        return _json({"error": f"not ready: {said}", "models": [row.name for row in missing]}, 503)

    async def metrics(self, _request: Request) -> Response:
        page = await asyncio.to_thread(metrics_page)
        return Response(
            page + metrics_text(self._pool.serving()), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    async def metadata(self, request: Request) -> Response:
        model = self._model(request)
        wanted = model.bundle.contract.input
        batch = -1 if wanted.max_batch > 1 else 1
        outputs = [
            {"name": name, "datatype": "FP32", "shape": [batch, *shape]} for name, shape in model.outputs.items()
        ]
        return _json(
            {
                "name": model.address,
                "versions": [model.bundle.version],
                "platform": f"{model.choice.runtime}_onnx",
                "inputs": [{"name": wanted.name, "datatype": WANTED[wanted.dtype], "shape": [batch, *wanted.shape]}],
                "outputs": outputs,
            }
        )

    async def config(self, request: Request) -> Response:
        model = self._model(request)
        served, wanted = model.served, model.bundle.contract.input
        ours = Served(
            contract=served.contract,
            ref=served.ref,
            fingerprint=served.fingerprint,
            outputs=dict(served.outputs),
            canary=None if model.canary else self._pool.canary(model.bundle.name),
            golden=served.golden,
        )
        return _json(
            {
                "name": model.address,
                "platform": f"{model.choice.runtime}_onnx",
                "backend": model.choice.runtime,
                "max_batch_size": wanted.max_batch,
                "input": [
                    {"name": wanted.name, "data_type": f"TYPE_{WANTED[wanted.dtype]}", "dims": list(wanted.shape)}
                ],
                "output": [
                    {"name": name, "data_type": "TYPE_FP32", "dims": list(shape)}
                    for name, shape in model.outputs.items()
                ],
                "instance_group": [{"kind": "KIND_AUTO", "count": model.choice.instances}],
                "dynamic_batching": {"preferred_batch_size": [model.batcher.limit]},
                "parameters": {"eyeline": {"string_value": msgspec.json.encode(ours).decode()}},
            }
        )

    async def ready(self, request: Request) -> Response:
        self._model(request)
        return Response(status_code=200)

    async def stats(self, request: Request) -> Response:
        models = [self._model(request)] if "name" in request.path_params else self._pool.serving()
        return _json(statistics_of(models))

    async def index(self, request: Request) -> Response:
        body = await _body(request, 10_000) if request.method == "POST" else b""
        wanted = _decoded(body or b"{}", dict[str, Any])
        rows = self._pool.not_ready() if wanted.get("ready") is False else self._pool.index()
        return _json([row for row in rows if not wanted.get("ready") or row.state == "READY"])

    async def load(self, request: Request) -> Response:
        self._door.admin(request.scope)
        body = await _body(request, 100_000)
        if _decoded(body or b"{}", dict[str, Any]).get("parameters"):
            raise InputError("a load takes no parameters; what a model is stands in its bundle alone")
        model = await self._pool.load(request.path_params["name"])
        return _json({"name": model.bundle.name, "version": model.bundle.version})

    async def unload(self, request: Request) -> Response:
        self._door.admin(request.scope)
        await self._pool.unload(request.path_params["name"])
        return Response(status_code=200)

    async def share(self, request: Request) -> Response:
        self._door.local(request.scope)
        body = await _body(request, 10_000)
        wanted = _decoded(body, Registration)
        self._door.regions.register(request.path_params["region"], wanted.key, wanted.offset, wanted.byte_size)
        return Response(status_code=200)

    async def unshare(self, request: Request) -> Response:
        self._door.local(request.scope)
        self._door.regions.unregister(request.path_params.get("region"))
        return Response(status_code=200)

    async def shared_status(self, request: Request) -> Response:
        self._door.local(request.scope)
        return _json(self._door.regions.status(request.path_params.get("region")))

    def _model(self, request: Request) -> LoadedModel:
        return self._pool.get(request.path_params["name"], request.path_params.get("version"))


def _decoded(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise InputError(f"the body is not as the protocol has it: {error}") from error

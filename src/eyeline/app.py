"""The one composition root: settings in, services out. The only place that knows all rooms."""

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from eyeline.core.clock import utcnow
from eyeline.core.errors import ConfigError, EyelineError
from eyeline.core.registry import Registry
from eyeline.core.service import Service
from eyeline.core.settings import CameraSettings, PipelineSettings, Settings, StepSettings, mask
from eyeline.core.supervisor import Role, Supervisor
from eyeline.core.telemetry import logger, share_metrics
from eyeline.core.types import LANES, topic_of
from eyeline.stores.results.base import ResultStore, RuleRow

log = logger("app")
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
PARCELS = PipelineSettings(
    name="parcels",
    steps=[
        StepSettings(name="find", model="parcel-finder"),
        StepSettings(name="damage", model="parcel-damage", on="find"),
    ],
)


# ---------------------------------------------------------------- settings that depend on what is installed
def with_pipelines(settings: Settings) -> Settings:
    """The settings with pipelines for every installed model, where the file defines none.

    The models of `inference.models` come first, by name, then
    the two-step `parcels`, then the bundled models one by one; the first is the default.
    """
    if settings.pipelines:
        return settings
    from eyeline.inference.bundles import locate

    own = sorted(locate(settings.inference.models, bundled=False))
    bundled = sorted(name for name in locate(settings.inference.models) if name not in own)
    pipelines = [_whole(name) for name in own]
    if {"parcel-finder", "parcel-damage"} <= {*own, *bundled}:
        pipelines.append(PARCELS)
    pipelines += [_whole(name) for name in bundled]
    return settings.model_copy(update={"pipelines": pipelines})


def _whole(model: str) -> PipelineSettings:
    return PipelineSettings(name=model, steps=[StepSettings(name=model, model=model)])


def used_models(settings: Settings) -> list[str]:
    """The names of the models that the pipelines need, in order of first use."""
    return list(dict.fromkeys(model for pipeline in settings.pipelines for model in pipeline.models))


def sqlite_path(url: str) -> Path | None:
    """The file behind a `sqlite:///…` URL, or None for any other scheme."""
    from eyeline.core.embedded import path_of

    return path_of(url) if urlsplit(url).scheme == "sqlite" else None


async def require_alerts(settings: Settings) -> None:
    """Compile all rules and open all channels and outputs once, so that a wrong one refuses the start. Raises ConfigError."""
    from eyeline.alerts.channels import open_channel
    from eyeline.alerts.outputs import check_output
    from eyeline.alerts.rules import compile_rule

    for rule in settings.alerts.rules:
        compile_rule(rule)
    for channel in settings.alerts.channels:
        await open_channel(channel).close()
    for output in settings.outputs:
        await check_output(output)


def require_backends(settings: Settings) -> None:
    """Find every backend and kind of camera that is named, so that a wrong scheme or a missing driver refuses the start
    instead of ending a role later. Raises ConfigError.
    """
    from eyeline.cameras import CAMERAS, resolved
    from eyeline.queues import QUEUES
    from eyeline.stores.blobs import BLOBS
    from eyeline.stores.cache import CACHES
    from eyeline.stores.results import RESULTS

    tables: dict[str, Registry[Any]] = {"queue": QUEUES, "blobs": BLOBS, "results": RESULTS, "cache": CACHES}
    for section, table in tables.items():
        table.load(urlsplit(getattr(settings, section).url).scheme)
    for camera in settings.cameras:
        try:
            CAMERAS.load(urlsplit(resolved(camera.url)).scheme)
        except ConfigError as error:
            raise ConfigError(f"cameras {camera.name!r}: {error}") from error
    if urlsplit(settings.queue.url).scheme == "memory":
        raise ConfigError(
            f"[queue] url {settings.queue.url!r}: a queue in memory is one process's own, and `eyeline up` starts several; "
            "leave the url out to use the embedded queue"
        )
    if "," in settings.inference.url:
        raise ConfigError(
            f"[inference] url {mask(settings.inference.url)!r} lists replicas, and `eyeline up` starts one: name one URL, "
            "or start the roles one by one (docs/deploy.md)"
        )


def require_pipelines(settings: Settings) -> None:
    """Look at all kinds of barcode that are asked for, so that a wrong one refuses the start. Raises ConfigError."""
    from eyeline.pipeline.barcodes import check_formats

    for pipeline in settings.pipelines:
        for step in pipeline.steps:
            try:
                check_formats(step.formats)
            except ConfigError as error:
                raise ConfigError(f"pipeline {pipeline.name!r}, step {step.name!r}: {error}") from error


# ---------------------------------------------------------------- one service for each role
class Closable(Protocol):
    """What has a connection, a thread or a file to give back."""

    async def close(self) -> None:
        """Idempotent."""
        ...


class Owning:
    """A service and what was opened for it: closed when it ends, however it ends."""

    def __init__(self, service: Service, *opened: Closable) -> None:
        self._service = service
        self._opened = opened

    async def run(self, stop: asyncio.Event) -> None:
        """See `Service.run`."""
        try:
            await self._service.run(stop)
        finally:
            for each in self._opened:
                with contextlib.suppress(EyelineError):
                    await each.close()


def gateway_service(settings: Settings) -> Service:
    """The HTTP door. It closes its own stores."""
    from eyeline.alerts.book import RuleBook
    from eyeline.dashboard import Sources, dashboard_pages
    from eyeline.gateway.comparing import Comparisons
    from eyeline.gateway.drains import Drains
    from eyeline.gateway.export_jobs import ExportJobs
    from eyeline.gateway.items import trace
    from eyeline.gateway.outlets import Outlets
    from eyeline.gateway.report import Operations
    from eyeline.gateway.rollouts import Rollouts
    from eyeline.gateway.server import Gateway
    from eyeline.inference.replicas import open_predictor
    from eyeline.inference.servers import Servers
    from eyeline.ops.audit.evidence import pack, prove
    from eyeline.ops.levels import LevelService
    from eyeline.ops.presence import Presence
    from eyeline.ops.slo import slo_report
    from eyeline.ops.storage.report import storage_report
    from eyeline.queues import open_queue
    from eyeline.stores.blobs import open_blobs
    from eyeline.stores.cache import open_cache
    from eyeline.stores.results import open_results

    client = open_predictor(settings.inference.url, settings.inference.models)
    servers = Servers(settings.inference)
    results = open_results(settings.results.url)
    storage = partial(storage_report, settings.retention, results)
    rules, rollouts = RuleBook(settings.alerts, results), Rollouts(settings, results, servers)
    operations = Operations(settings, results, servers)
    comparisons = Comparisons(results)
    sources = Sources(
        settings=settings,
        results=results,
        slo=slo_report,
        storage=storage,
        outlets=Outlets(settings, results),
        rules=rules,
        trace=trace,
        prove=prove,
        operations=operations.report,
        drain=Drains(results, operations, servers).drain,
        models=rollouts.catalogue,
        try_out=rollouts.try_out,
        take_back=rollouts.take_back,
        exports=ExportJobs(settings.data_dir, results).of,  # reads the files of whichever gateway writes them here
        comparisons=comparisons.listed,
        comparison=comparisons.one,
        check_golden=rollouts.check_golden,
    )
    gateway = Gateway(
        settings,
        blobs=open_blobs(settings.blobs.url),
        results=results,
        queue=open_queue(settings.queue.url),
        cache=open_cache(settings.cache.url),
        slo=slo_report,
        storage=storage,
        models=client.ready,
        rules=rules,
        servers=servers,
        pages=dashboard_pages(sources),
        diagnose=_diagnosed,
        evidence=pack,
        rollouts=rollouts,
    )
    levels = LevelService(open_results(settings.results.url))
    return Owning(Together(gateway, levels, Presence(results, "gateway")), client, servers)


async def _diagnosed(camera: CameraSettings) -> Sequence[tuple[str, bool, str]]:
    """The looks of `eyeline cameras test`; the frame that it saves is for nobody here."""
    import tempfile

    from eyeline.cameras.probe import test_camera

    with tempfile.TemporaryDirectory(prefix="eyeline-") as folder:
        looks = await test_camera(camera.url, Path(folder) / "frame.jpg")
    return [look for look in looks if look[0] != "saved"]


def worker_service(settings: Settings) -> Service:
    """Decodes, plans, infers, saves."""
    from eyeline.inference.environment import of_worker
    from eyeline.inference.replicas import open_predictor
    from eyeline.ops.presence import Presence
    from eyeline.queues import open_queue
    from eyeline.stores.blobs import open_blobs
    from eyeline.stores.cache import open_cache
    from eyeline.stores.results import open_results
    from eyeline.worker.worker import Worker

    require_pipelines(settings)
    topics = [topic_of(pipeline.name, lane) for pipeline in settings.pipelines for lane in LANES]
    queue = open_queue(settings.queue.url, topics)
    blobs = open_blobs(settings.blobs.url)
    results = open_results(settings.results.url)
    cache = open_cache(settings.cache.url)
    client = open_predictor(settings.inference.url, settings.inference.models)
    worker = Worker(settings, queue=queue, blobs=blobs, results=results, cache=cache, predictor=client)
    presence = Presence(results, "worker", worker, more={"environment": of_worker(settings.pipelines)})
    return Owning(Together(worker, presence), queue, blobs, results, cache, client)


def inference_service(settings: Settings) -> Service:
    """Serves the models that the pipelines need."""
    from eyeline.inference.server import InferenceServer

    token = settings.inference.token
    return InferenceServer(
        settings.inference,
        only=used_models(settings),
        engines=settings.data_dir / "engines",
        token=token.get_secret_value() if token else None,
    )


class Together:
    """Services in one process: they stop together, and where one fails, all do."""

    def __init__(self, *services: Service) -> None:
        self._services = services

    async def run(self, stop: asyncio.Event) -> None:
        """See `Service.run`."""
        running = [asyncio.create_task(service.run(stop)) for service in self._services]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        ended = await asyncio.gather(*running, return_exceptions=True)
        for failed in (each for each in ended if isinstance(each, BaseException)):
            raise failed


def alerts_service(settings: Settings) -> Service:
    """Rules over the event log, deliveries from their table; outputs, shift reports, the audit's sealer and retention, which
    need no process of their own.
    """
    from eyeline.ops.audit.sealer import SealerService
    from eyeline.ops.presence import Presence
    from eyeline.ops.standby import OneActive
    from eyeline.stores.results import open_results

    open_ = partial(open_results, settings.results.url)
    mine = open_()
    alerts = OneActive("alerts", open_, partial(_alerting, settings))
    return Owning(Together(alerts, SealerService(open_()), Presence(mine, "alerts")), mine)


def _alerting(settings: Settings, results: ResultStore) -> Service:
    """What only one process does at a time, all over one store: it writes nothing more once another took over."""
    from eyeline.alerts.outputs import OutputService
    from eyeline.alerts.pictures import DrawnPictures
    from eyeline.alerts.reports import ReportService
    from eyeline.alerts.service import AlertService
    from eyeline.stores.blobs import open_blobs

    blobs, results = open_blobs(settings.blobs.url), _lent(results)
    alerts = AlertService(
        settings.alerts,
        results,
        sites=settings.sites,
        cameras={camera.name for camera in settings.cameras},
        outputs=settings.outputs,
        pictures=DrawnPictures(blobs, results),
    )
    beside: list[Service] = [_keeper_service(settings, results)]
    if settings.outputs:
        beside.append(OutputService(settings.outputs, results))
    if settings.reports.notify:
        beside.append(ReportService(settings.sites, settings.reports.notify, results))
    return Owning(Together(alerts, *beside), blobs)


def _lent(results: ResultStore) -> ResultStore:
    """The store for several services: none of them closes it while the others end their work; whoever opened it does."""

    class Lent:
        def __getattr__(self, name: str) -> Any:
            return getattr(results, name)

        async def close(self) -> None:
            """Not mine."""

    return cast("ResultStore", Lent())


def _keeper_service(settings: Settings, results: ResultStore) -> Service:
    from eyeline.ops.storage.keeper import Keeper
    from eyeline.ops.storage.service import KeeperService
    from eyeline.stores.blobs import open_blobs
    from eyeline.stores.cache import open_cache

    blobs, cache = open_blobs(settings.blobs.url), open_cache(settings.cache.url)
    keeper = Keeper(settings.retention, blobs, results, cache, cache_ttl=settings.cache.ttl)
    return KeeperService(keeper, blobs, results, cache)


def items_service(settings: Settings) -> Service:
    """One thing, one item: tracking over the event log."""
    from eyeline.items import ItemService
    from eyeline.ops.presence import Presence
    from eyeline.ops.standby import OneActive
    from eyeline.stores.results import open_results

    open_ = partial(open_results, settings.results.url)
    mine = open_()
    items = OneActive("items", open_, partial(ItemService, settings))
    return Owning(Together(items, Presence(mine, "items")), mine)


def camera_service(settings: Settings, name: str) -> Service:
    """The agent of one camera."""
    from eyeline.cameras.agent import CameraAgent

    camera = next((camera for camera in settings.cameras if camera.name == name), None)
    if camera is None:
        known = ", ".join(camera.name for camera in settings.cameras) or "none"
        raise ConfigError(f"no camera is called {name!r}; defined: {known}")
    url = os.environ.get("EYELINE_GATEWAY_URL", gateway_url(settings))
    spool = settings.data_dir / "spool" / name
    return CameraAgent(camera, url, spool, os.environ.get("EYELINE_API_KEY"), settings.mqtt.url)


def gateway_url(settings: Settings) -> str:
    """Where clients on this machine find the gateway."""
    host = settings.gateway.host
    host = "127.0.0.1" if host in {"0.0.0.0", "::", ""} else host  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.gateway.port}"


SERVICES: dict[str, Callable[[Settings], Service]] = {
    "gateway": gateway_service,
    "worker": worker_service,
    "inference": inference_service,
    "alerts": alerts_service,
    "items": items_service,
}


# ---------------------------------------------------------------- eyeline up
@contextlib.contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the data folder: a second `up` on it is refused. The lock goes with the process, however it ends."""
    from eyeline.core.embedded import made_folder

    made_folder(data_dir)
    try:
        handle = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"data_dir {data_dir}: {error.strerror}; name a folder that this user may write") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise ConfigError(
            f"another `eyeline up` works on {data_dir}; stop it, or give this one its own --data-dir"
        ) from error
    try:
        yield
    finally:
        os.close(handle)


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise ConfigError(
                f"cannot listen on {host}: {error.strerror}; set [gateway] host to an address of this machine"
            ) from error
    return True


def free_port(host: str, start: int, tries: int = 50) -> int:
    """The first free port from `start` on."""
    for port in range(start, min(start + tries, 65536)):
        if port_is_free(host, port):
            return port
    raise ConfigError(f"no free port between {start} and {start + tries} on {host}; name one with --port")


def _need_port(host: str, port: int, setting: str) -> None:
    if not port_is_free(host, port):
        raise ConfigError(f"port {port} on {host} is busy; stop what listens there, or set {setting} to another one")


def _require_one_of_each_rule(settings: Settings, kept: Sequence[RuleRow]) -> None:
    """Raises ConfigError where the settings and the page both have a rule of one name: nobody could tell which one holds."""
    made = {row.name for row in kept if row.body is not None}
    for rule in settings.alerts.rules:
        if rule.name in made:
            raise ConfigError(
                f"the rule {rule.name!r} stands in the settings, and people made one of that name; "
                "give the one in the settings another name, or remove the other (DELETE /v1/rules/NAME) first"
            )


async def prepare(settings: Settings, announce: Callable[[str], None]) -> None:
    """Schema up to date, and an admin key made where the gateway is open to others and nobody has a key."""
    from eyeline.gateway.auth import new_key
    from eyeline.stores.results import open_results
    from eyeline.stores.results.base import KeyRow

    results = open_results(settings.results.url)
    try:
        await results.upgrade()
        _require_one_of_each_rule(settings, await results.rules())
        if settings.gateway.host in LOOPBACK or settings.keys or await results.keys() or await results.users():
            return
        secret, digest = new_key()
        await results.put_key(KeyRow(name="admin", sha256=digest, role="admin", sites=(), created_at=utcnow()))
        announce(f"First start: this is the admin key, shown once and kept only as a hash:\n\n    {secret}\n")
    finally:
        await results.close()


def _roles(settings: Settings, environ: dict[str, str]) -> list[Role]:
    def role(name: str, order: int, *words: str) -> Role:
        return Role(name=name, argv=[sys.executable, "-m", "eyeline", *words], order=order, env=environ)

    roles = [role("inference", 4, "inference"), role("gateway", 2, "gateway"), role("alerts", 5, "alerts")]
    roles += [role(f"worker-{number + 1}", 3, "worker") for number in range(settings.worker.replicas)]
    if any(pipeline.track for pipeline in settings.pipelines):
        roles.append(role("items", 5, "items"))
    for camera in settings.cameras:
        starting = role(f"camera-{camera.name}", 1, "camera", camera.name)
        roles.append(replace(starting, after=lambda: until_ready(gateway_url(settings))))
    return roles


async def until_ready(url: str, patience: float = 60.0) -> None:
    """Wait until a worker runs every pipeline, so that a start is no queue; cameras begin after `patience` anyway."""
    import aiohttp

    deadline = asyncio.get_running_loop().time() + patience
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while asyncio.get_running_loop().time() < deadline:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{url}/readyz") as answer:
                    told = await answer.json()
                    if answer.status == 200 and not told["models_not_ready"] and not told["pipelines_not_ready"]:
                        return
            await asyncio.sleep(0.1)


async def until_listening(url: str) -> None:
    """Wait, for as long as it takes, until a connection to this URL's host and port is taken."""
    parts = urlsplit(url)
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.close()
            return
        await asyncio.sleep(0.1)


def _checkpoints(settings: Settings) -> Callable[[], None]:
    """Only the supervisor checkpoints the embedded databases (older SQLite corrupts a WAL reset by two at once)."""
    from eyeline.core.embedded import checkpoint

    urls = (settings.queue.url, settings.results.url, settings.cache.url)
    paths = [path for path in map(sqlite_path, urls) if path is not None]

    def all_of_them() -> None:
        for path in paths:
            if path.exists():
                checkpoint(path)

    return all_of_them


def child_environment(settings: Settings, config: Path | None) -> dict[str, str]:
    """What the children need to read the same settings; and the folder in which they share their metrics."""
    environ = {
        "EYELINE_DATA_DIR": str(settings.data_dir),
        "EYELINE_GATEWAY__HOST": settings.gateway.host,
        "EYELINE_GATEWAY__PORT": str(settings.gateway.port),
        "EYELINE_INFERENCE__URL": settings.inference.url,
        "EYELINE_INFERENCE__MODELS": str(settings.inference.models.resolve()),
        "PROMETHEUS_MULTIPROC_DIR": os.environ["PROMETHEUS_MULTIPROC_DIR"],
    }
    if config is not None:
        environ["EYELINE_CONFIG"] = str(config.resolve())
    return environ


def fresh_metrics_folder(data_dir: Path) -> Path:
    """An empty folder for the metrics of this start, named to prometheus_client by the environment."""
    folder = data_dir / "run" / "metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    share_metrics(folder)
    return folder


class Up:
    """`eyeline up` as a service: every role under one supervisor."""

    def __init__(self, settings: Settings, config: Path | None, announce: Callable[[str], None]) -> None:
        self.settings = settings
        self._config = config
        self._announce = announce

    async def run(self, stop: asyncio.Event) -> None:
        """Raises ConfigError for a busy port, a held data folder, an address that is not here."""
        settings = self.settings
        require_backends(settings)
        await require_alerts(settings)
        require_pipelines(settings)
        _need_port(settings.gateway.host, settings.gateway.port, "--port or [gateway] port")
        inference = urlsplit(settings.inference.url)
        _need_port(inference.hostname or "127.0.0.1", inference.port or 80, "[inference] url")
        with locked(settings.data_dir):
            fresh_metrics_folder(settings.data_dir)
            await prepare(settings, self._announce)
            supervisor = Supervisor(
                _roles(settings, child_environment(settings, self._config)),
                state_file=settings.data_dir / "run" / "supervisor.json",
                grace=settings.worker.drain_seconds + 10,
                every_second=_checkpoints(settings),
            )
            telling = asyncio.create_task(self._tell_where())
            try:
                await supervisor.run(stop)
            finally:
                telling.cancel()

    async def _tell_where(self) -> None:
        """The address is told when somebody answers there, and not before."""
        url = gateway_url(self.settings)
        await until_listening(url)
        self._announce(f"Eyeline listens on {url}  (the dashboard; API: {url}/docs; Ctrl-C stops it)")


def with_free_ports(settings: Settings) -> Settings:
    """The settings with a free port where the gateway's is 0, and where the default one of the inference service is busy."""
    gateway = settings.gateway
    if gateway.port == 0:
        gateway = gateway.model_copy(update={"port": free_port(gateway.host, type(gateway)().port)})
    return _with_free_inference_port(settings.model_copy(update={"gateway": gateway}))


def _with_free_inference_port(settings: Settings) -> Settings:
    """A URL that was set stays as it is."""
    default = type(settings.inference)().url
    parts = urlsplit(settings.inference.url)
    if settings.inference.url != default or port_is_free(parts.hostname or "127.0.0.1", parts.port or 80):
        return settings
    port = free_port(parts.hostname or "127.0.0.1", (parts.port or 80) + 1)
    inference = settings.inference.model_copy(update={"url": f"http://{parts.hostname}:{port}"})
    return settings.model_copy(update={"inference": inference})


Check = tuple[str, bool, str]


async def check(settings: Settings, *, cameras: bool = False) -> list[Check]:
    """Open every backend and say in one line each how it is: (what, is well, sentence). And every camera, if asked to."""
    from eyeline.ops.doctor import checks

    jobs: list[Callable[[], Awaitable[list[Check]]]] = checks(settings)
    found: list[Check] = []
    for job in jobs:
        found += await job()
    return found + (await _seen_cameras(settings.cameras) if cameras else [])


async def _seen_cameras(cameras: Sequence[CameraSettings]) -> list[Check]:
    """A line for each camera: what is wrong with it, or what came. A few at a time: many share a network, all this machine."""
    turns = asyncio.Semaphore(4)

    async def one(camera: CameraSettings) -> Check:
        async with turns:
            try:
                looks = await _diagnosed(camera)
            except EyelineError as error:
                return ("camera", False, f"{camera.name}: {error}")
        wrong = [sentence for _, well, sentence in looks if not well]
        told = {what: sentence for what, _, sentence in looks}
        return ("camera", not wrong, f"{camera.name}: {'; '.join(wrong or (told['size'], told['rate']))}")

    return list(await asyncio.gather(*map(one, cameras)))

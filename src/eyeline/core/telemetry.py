"""Logs, metrics and trace ids: one place that knows their libraries.

Under `eyeline up` every role writes its metrics to files in PROMETHEUS_MULTIPROC_DIR, so that the gateway's /metrics
shows them all; alone, a role shows its own.
"""

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
    values,
)

from eyeline.core.errors import BackendError
from eyeline.core.ids import random_bytes
from eyeline.core.settings import mask

LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)

API_SECONDS = Histogram("eyeline_api_request_seconds", "API response time", ["route", "status"], buckets=LATENCY)
QUEUE_WAIT = Histogram("eyeline_queue_wait_seconds", "From the 202 to a worker's hand", ["lane"], buckets=LATENCY)
STAGE = Histogram("eyeline_stage_seconds", "Time in each stage of an image's way", ["stage"], buckets=LATENCY)
END_TO_END = Histogram("eyeline_end_to_end_seconds", "From reception to the recorded result", buckets=LATENCY)
IMAGES = Counter("eyeline_images", "Images by what came of them", ["status"])
REFUSED = Counter("eyeline_refused", "Requests refused before work", ["reason"])
QUEUE_DEPTH = Gauge("eyeline_queue_depth", "Jobs waiting", multiprocess_mode="mostrecent")
QUEUE_AGE = Gauge("eyeline_queue_oldest_age_seconds", "Age of the oldest waiting job", multiprocess_mode="mostrecent")
BATCH_SIZE = Histogram("eyeline_batch_size", "Requests run together", ["model"], buckets=(1, 2, 4, 8, 16, 32, 64))
UTILISATION = Gauge(  # labelled, so that it does not exist where there is no device: 0 would be a measurement
    "eyeline_accelerator_utilisation",
    "Share of time the accelerator worked, 0..1",
    ["device"],
    multiprocess_mode="mostrecent",
)
CACHE_HITS = Counter("eyeline_cache_hits", "Duplicates answered without inference")
ALERT_DELIVERY = Histogram(
    "eyeline_alert_delivery_seconds",
    "From capture to delivered notification",
    ["channel"],
    buckets=(*LATENCY, 60.0, 300.0),
)
OUTPUTS = Counter("eyeline_outputs", "Results of outputs by what came of them", ["output", "state"])
OUTPUT_LAG = Gauge(
    "eyeline_output_lag_events",
    "Events that an output has still to look at",
    ["output"],
    multiprocess_mode="mostrecent",
)
FRAMES = Counter("eyeline_frames", "Camera frames by what came of them", ["camera", "outcome"])
CASCADE = Counter("eyeline_cascade", "Answers of a first model by what became of them", ["pipeline", "step", "outcome"])
ITEM_FRAMES = Counter("eyeline_item_frames", "Results that tracking was given, by what became of them", ["outcome"])
LATE_RESULTS = Counter("eyeline_late_results", "Final results that came second and were discarded")
AUDIT_SEALED = Counter("eyeline_audit_sealed", "Records of the audit that were sealed in a block")
NEAR = Counter(
    "eyeline_near_duplicates", "Frames compared with one of before, by what came of it", ["camera", "outcome"]
)
RETAINED = Counter("eyeline_retention", "What retention let go or made smaller", ["what"])
RETAINED_BYTES = Counter("eyeline_retention_bytes", "Bytes of pictures that retention freed")
SAVER_FAULTS = Counter(
    "eyeline_saver_faults", "Batches of results that an error nobody foresaw kept from being recorded"
)
LOST_LEASES = Counter("eyeline_lost_leases", "Deliveries whose lease had gone to another worker")
EJECTIONS = Counter("eyeline_replica_ejections", "Inference replicas left out for want of an answer", ["replica"])
DRAINED = Gauge("eyeline_drained", "Processes that are to take no new work", ["role"], multiprocess_mode="livesum")
RESTARTS = Counter("eyeline_process_restarts", "Child processes started again", ["role"])

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def metrics_page() -> bytes:
    """The Prometheus text of this process, or of all of this installation's where they share a folder."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def share_metrics(folder: Path) -> None:
    """From here on this process's labelled metrics go to the folder of its children, so that /metrics shows them too."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call] # it was chosen on import, without a folder


def claim_metrics() -> None:
    """Have the disk give now what this process's metrics will need: they are mapped into memory, and a page that a full
    disk refuses later is no error but a SIGBUS. Raises BackendError where there is no room.
    """
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ or not hasattr(os, "posix_fallocate"):
        return
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    try:
        for path in folder.glob(f"*_{os.getpid()}.db"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise BackendError(f"{folder} has no room for metrics ({error.strerror}); free space there") from error


def forget_process(pid: int) -> None:
    """Drop the live gauges of a child that ended."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def printable(text: str, limit: int = 500) -> str:
    """`text` without control characters (log and terminal injection), cut at `limit`."""
    return _CONTROL.sub(" ", text)[:limit]


def _cleaned(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = printable(mask(value))
    return event


def configure_logging(level: str = "info", role: str = "eyeline") -> None:
    """JSON lines on standard error, or coloured ones on a terminal."""
    terminal = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _cleaned,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")


def logger(room: str) -> Any:
    """A structured logger: `logger("worker").info("saved", id=…)`."""
    return structlog.get_logger(room=room)


def new_traceparent() -> str:
    """A W3C traceparent for a request that brought none."""
    return f"00-{random_bytes(16).hex()}-{random_bytes(8).hex()}-01"

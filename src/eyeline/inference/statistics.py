"""What a server has done, in Triton's words: the statistics extension, and `nv_inference_*` metrics for its dashboards."""

from collections.abc import Iterable
from typing import Any

from eyeline.inference.batcher import Statistics
from eyeline.inference.models import LoadedModel

#: Metric, its kind and its sentence.
_METRICS: tuple[tuple[str, str, str], ...] = (
    ("request_success", "counter", "Number of successful inference requests"),
    ("request_failure", "counter", "Number of failed inference requests"),
    ("count", "counter", "Number of inferences (a batch of n counts n)"),
    ("exec_count", "counter", "Number of model executions"),
    ("request_duration_us", "counter", "Cumulative request duration in microseconds"),
    ("queue_duration_us", "counter", "Cumulative queueing duration in microseconds"),
    ("compute_infer_duration_us", "counter", "Cumulative compute duration in microseconds"),
    ("compute_output_duration_us", "counter", "Cumulative output duration in microseconds"),
    ("pending_request_count", "gauge", "Requests that wait now"),
)


def statistics_of(models: Iterable[LoadedModel]) -> dict[str, Any]:
    """The statistics extension's answer; durations in nanoseconds."""
    return {"model_stats": [_row(model) for model in models]}


def _row(model: LoadedModel) -> dict[str, Any]:
    total = model.batcher.statistics
    empty = _duration(0, 0.0)
    return {
        "name": model.address,
        "version": model.bundle.version,
        "last_inference": int(total.last * 1000),
        "inference_count": total.images,
        "execution_count": total.batches,
        "inference_stats": {
            "success": _duration(total.requests, _whole(total)),
            "fail": _duration(total.failures + total.expired, 0.0),
            "queue": _duration(total.requests, total.queued),
            "compute_input": empty,
            "compute_infer": _duration(total.requests, total.computed),
            "compute_output": _duration(total.requests, total.finished),
            "cache_hit": empty,
            "cache_miss": empty,
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": empty,
                "compute_infer": _duration(runs, seconds),
                "compute_output": empty,
            }
            for size, (runs, seconds) in sorted(total.by_size.items())
        ],
    }


def metrics_text(models: Iterable[LoadedModel]) -> bytes:
    """Prometheus text of the `nv_inference_*` metrics."""
    loaded = list(models)
    lines: list[str] = []
    for name, kind, sentence in _METRICS:
        lines += [f"# HELP nv_inference_{name} {sentence}", f"# TYPE nv_inference_{name} {kind}"]
        for model in loaded:
            labels = f'model="{model.address}",version="{model.bundle.version}"'
            lines.append(f"nv_inference_{name}{{{labels}}} {_value(name, model):.0f}")
    return ("\n".join(lines) + "\n").encode()


def _value(name: str, model: LoadedModel) -> float:
    total = model.batcher.statistics
    return {
        "request_success": total.requests,
        "request_failure": total.failures + total.expired,
        "count": total.images,
        "exec_count": total.batches,
        "request_duration_us": _whole(total) * 1e6,
        "queue_duration_us": total.queued * 1e6,
        "compute_infer_duration_us": total.computed * 1e6,
        "compute_output_duration_us": total.finished * 1e6,
        "pending_request_count": model.batcher.waiting,
    }[name]


def _whole(total: Statistics) -> float:
    return total.queued + total.computed + total.finished


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": int(seconds * 1e9)}

"""Which error means what: hand the job back, charge an attempt to its image, or fail it for good. One pure function."""

from dataclasses import dataclass

from eyeline.core.errors import (
    BackendError,
    BlobError,
    ConfigError,
    EyelineError,
    InferenceError,
    InputError,
    Overloaded,
)
from eyeline.core.retry import backoff
from eyeline.inference.base import ModelChanged


class DecoderDied(EyelineError):
    """The decoder child crashed, ran out of time or of memory on this very image."""


class Expired(EyelineError):
    """The job's deadline has passed."""


class NotServed(EyelineError):
    """The job's pipeline is not defined here, or a model of it is not ready."""


class Awaited(EyelineError):
    """Another worker computes the answer for these bytes right now."""


class Undeliverable(EyelineError):
    """Received again and again without any result: the safety net."""


class LeaseLost(EyelineError):
    """Another worker has the job; what this one found is dropped."""


@dataclass(frozen=True)
class Drop:
    """Not this worker's job any more: nothing is recorded, nothing handed back."""


@dataclass(frozen=True)
class HandBack:
    """Not the image's fault: to be seen again after `delay` seconds, nothing charged."""

    delay: float


@dataclass(frozen=True)
class Charge:
    """The image's fault, perhaps: one attempt is charged; the last one fails it with `reason`."""

    reason: str


@dataclass(frozen=True)
class Fail:
    """The image's fault, certainly: a failed result with `reason`."""

    reason: str


def outcome(error: Exception, attempt: int) -> Drop | HandBack | Charge | Fail:
    """What becomes of a job after `error`. attempt: how often the broker has given the job out, for longer and longer delays."""
    match error:
        case LeaseLost():
            return Drop()
        case InputError():
            return Fail(f"{error.code}: {error}")
        case Expired():
            return Fail(f"expired: {error}")
        case Undeliverable():
            return Fail(f"undeliverable: {error}")
        case DecoderDied():
            return Charge(f"decoder_crashed: {error}")
        case InferenceError():
            return Charge(f"inference_error: {error}")
        case BlobError() if not error.transient:
            return Fail(f"image_missing: {error}")
        case ModelChanged():
            return HandBack(0.05)
        case Awaited():
            return HandBack(min(2.0, 0.05 * 1.5 ** (attempt - 1)))
        case Overloaded():
            return HandBack(max(error.retry_after, backoff(attempt, base=0.5)))
        case BackendError() | NotServed() | ConfigError():
            return HandBack(backoff(attempt, base=1.0, cap=60.0))
    return Charge(f"internal_error: {type(error).__name__}: {error}"[:300])

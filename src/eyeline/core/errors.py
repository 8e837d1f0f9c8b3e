"""Every error Eyeline raises on purpose, in one shallow tree.

EyelineError
├── ConfigError                      do not start; exit code 2
├── InputError                       the caller's fault: HTTP 4xx, or a `failed` result
│   ├── BadImage  BadRule  TooLarge  NotFound  Conflict  Unauthorised  Forbidden
├── Overloaded                       HTTP 429 / 503 with Retry-After
├── InferenceError                   the model refused or broke on this very image
└── BackendError(transient)          something outside: QueueError, BlobError, StoreError, CacheError,
                                     InferenceUnavailable, ChannelError, CameraError
"""

from collections.abc import Mapping


class EyelineError(Exception):
    """The base of all errors raised on purpose. The message says what, which value, and what to do."""


class ConfigError(EyelineError):
    """The settings or the surroundings do not allow a start."""


class InputError(EyelineError):
    """The caller's fault. `code` is the stable word that results, metrics and problem JSON carry; `told` is what the
    latter says besides.
    """

    code = "invalid"
    status = 400

    def __init__(self, message: str, *, code: str | None = None, told: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.told = dict(told or {})


class BadImage(InputError):
    """The bytes are not an image that this system decodes; `code` says how they are broken."""

    code = "bad_image"
    status = 422


class BadRule(InputError):
    """A rule that cannot work; `told` says which word of it, and where in its condition."""

    code = "bad_rule"
    status = 422


class TooLarge(InputError):
    """Over a limit of bytes, pixels, fields or parts."""

    code = "too_large"
    status = 413


class NotFound(InputError):
    """No such thing, or none that the caller may see."""

    code = "not_found"
    status = 404


class Conflict(InputError):
    """The request contradicts an earlier one (an idempotency key with another body)."""

    code = "conflict"
    status = 409


class Unauthorised(InputError):
    """No key, or a key that is not known (any more)."""

    code = "unauthorised"
    status = 401


class Forbidden(InputError):
    """The key is known and its role does not reach this far."""

    code = "forbidden"
    status = 403


class Overloaded(EyelineError):
    """Full: come back after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float = 1.0, status: int = 429) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status


class InferenceError(EyelineError):
    """The model refused this very input, or answered NaN for it; charged to the image."""


class BackendError(EyelineError):
    """Something outside failed. `transient` answers one question: is it worth trying again?"""

    def __init__(self, message: str, *, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient


class QueueError(BackendError):
    """The queue's backend failed."""


class BlobError(BackendError):
    """The blob store failed."""


class StoreError(BackendError):
    """The result store failed."""


class Superseded(StoreError):
    """Another process took over what this one held: nothing that it still writes is kept."""


class CacheError(BackendError):
    """The cache failed."""


class InferenceUnavailable(BackendError):
    """The inference service cannot be reached, is full, or the model is not ready."""


class ChannelError(BackendError):
    """A notification could not be delivered. `refused`: the other side answered, and it was this one that it did not want;
    `gone`: it wants none any more.
    """

    def __init__(self, message: str, *, transient: bool = True, refused: bool = False, gone: bool = False) -> None:
        super().__init__(message, transient=transient)
        self.refused = refused
        self.gone = gone


class CameraError(BackendError):
    """A camera cannot be opened, broke off, or its books on disk cannot be written."""

"""What can go wrong between a program and a gateway.

ClientError
├── BadImage       what was given to `submit` is no image that can be sent; nothing was sent
├── Unreachable    no answer came, for as long as the client was to try
├── WaitTimeout    the job has no result yet; it is kept, and can be waited for again
└── Refused        the gateway said no: `status`, `code`, `detail`
    ├── NotFound   404
    └── Overloaded 429 or 503, and it stayed so; `retry_after` seconds were asked for
"""


class ClientError(Exception):
    """The base of all errors of this package."""


class BadImage(ClientError, ValueError):
    """What was given is no image that can be sent."""


class Unreachable(ClientError):
    """No answer came. A submit may have been kept: its `idempotency_key` makes another try safe."""

    def __init__(self, message: str, idempotency_key: str | None = None) -> None:
        super().__init__(message)
        self.idempotency_key = idempotency_key


class WaitTimeout(ClientError, TimeoutError):
    """The job has no result yet. It is not lost: wait for it again by its `id`."""

    def __init__(self, message: str, id: str) -> None:  # noqa: A002 - the API's word
        super().__init__(message)
        self.id = id


class Refused(ClientError):
    """The gateway refused. `code` is stable (docs/api.md), `detail` is for people."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail


class NotFound(Refused):
    """There is no such thing, or none that this key may see."""


class Overloaded(Refused):
    """The gateway is full or a store is away, and stayed so. Nothing was kept."""

    def __init__(self, status: int, code: str, detail: str, retry_after: float) -> None:
        super().__init__(status, code, detail)
        self.retry_after = retry_after

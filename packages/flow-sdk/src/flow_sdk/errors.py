"""Everything that `PlatformClient` raises, besides `ValueError` at construction and `TimeoutError` while awaiting.

PlatformClientError               root; also a refused argument, an unexpected status, a broken answer
├── PlatformAuthError             401      no credential, an expired or a forged one
├── PlatformPermissionError       403
├── PlatformNotFoundError         404      also everything of another tenant
├── PlatformConflictError         409      not deployed, an idempotency key reused with another body
├── PlatformValidationError       400, 413, 422, and input that is not JSON
├── PlatformRateLimitError        429      retry_after
├── PlatformServerError           5xx
├── PlatformConnectionError       no answer: refused, reset, timed out, over HTTP or NATS
└── PlatformExecutionError        the execution did not complete, or not in time; carries the execution
    └── PlatformStepError         a step of a workflow raised

No exception of another library (httpx, nats, json) leaves the client; it is the `__cause__` of one of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class PlatformClientError(Exception):
    """Root of the client's errors.

    Attributes:
        status_code: HTTP status of the answer, None when there was none.
        code: The platform's stable word for the cause, e.g. `not_deployed`; None when the answer had none.
        details: Per field: `{"field", "message"}`.
        request_id: Names the request in the platform's logs.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        code: str | None = None,
        details: Sequence[Mapping[str, Any]] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.code = code
        self.details: list[dict[str, Any]] = [dict(detail) for detail in details]
        self.request_id = request_id


class PlatformAuthError(PlatformClientError):
    """401: the credential is missing, expired or not one of the platform's."""


class PlatformPermissionError(PlatformClientError):
    """403: the credential is good, but does not reach this."""


class PlatformNotFoundError(PlatformClientError):
    """404: there is no such thing in this workspace."""


class PlatformConflictError(PlatformClientError):
    """409: the request contradicts what is there."""


class PlatformValidationError(PlatformClientError):
    """400, 413, 422, or input that cannot be sent: the same request can never succeed."""


class PlatformRateLimitError(PlatformClientError):
    """429: too many requests.

    Attributes:
        retry_after: Seconds until the platform takes the request again; None when it did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        code: str | None = None,
        details: Sequence[Mapping[str, Any]] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status_code=status_code, code=code, details=details, request_id=request_id)
        self.retry_after = retry_after


class PlatformServerError(PlatformClientError):
    """5xx: the platform failed."""


class PlatformConnectionError(PlatformClientError):
    """There was no answer. Whether the platform acted on the request is not known."""


class PlatformExecutionError(PlatformClientError):
    """An execution did not complete, or not within the caller's wait budget.

    Attributes:
        execution: Its status document as last seen; None when the wait ended before one was terminal.
    """

    def __init__(self, message: str, *, execution: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.execution: dict[str, Any] | None = None if execution is None else dict(execution)


class PlatformStepError(PlatformExecutionError):
    """A step of a workflow raised, in this attempt or in an earlier one.

    Attributes:
        name: Of the step.
        type_name: The class of what it raised, e.g. `ValueError`.
    """

    def __init__(self, message: str, *, name: str, type_name: str) -> None:
        super().__init__(message)
        self.name = name
        self.type_name = type_name


_BY_STATUS: dict[int, type[PlatformClientError]] = {
    400: PlatformValidationError,
    401: PlatformAuthError,
    403: PlatformPermissionError,
    404: PlatformNotFoundError,
    409: PlatformConflictError,
    413: PlatformValidationError,
    422: PlatformValidationError,
    429: PlatformRateLimitError,
}


def error_class(status_code: int) -> type[PlatformClientError]:
    """The error of the tree for an HTTP status that was not expected."""
    if status_code >= 500:
        return PlatformServerError
    return _BY_STATUS.get(status_code, PlatformClientError)

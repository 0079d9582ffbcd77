"""The platform's errors. Each has a stable `code` and the HTTP status it is answered with.

FlowError
├── InvalidInput            invalid_input 422      a field, its value, what was expected
├── PayloadTooLarge         payload_too_large 413  both sizes
├── Unauthenticated         unauthenticated, token_expired, token_invalid 401
├── Forbidden               forbidden 403
├── NotFound                not_found 404          also everything of another tenant
│   └── OtherTenant         the same, in every respect
├── Conflict                conflict 409           not_deployed, idempotency_key_reused, illegal_transition
│   └── IllegalTransition
├── RateLimited             rate_limited 429       retry_after
├── BudgetExhausted         budget_exhausted 402   before a model is called
├── UpstreamRefused         upstream_refused 422   a model's provider refused the request, or its key
├── UpstreamFailed          upstream_failed 502    a model's provider failed; may be repeated
│   ├── UpstreamRateLimited upstream_rate_limited 429
│   └── UpstreamTimeout     upstream_timeout 504
├── EndpointFailed          endpoint_failed 502    the component behind a service's endpoint did not complete
│   ├── EndpointTimeout     endpoint_timeout 504
│   └── ResponseMismatch    response_mismatch 502  it completed, with an output that does not fit the endpoint's schema
├── StaleLease              stale_lease            never leaves the engine
├── StoreUnavailable        store_unavailable 503
│   └── StorageFull         storage_full 507
├── BusUnavailable          bus_unavailable 503
├── LoginUnavailable        login_unavailable 503
├── BuildFailed             build_failed 422       line, requirement or example in details
├── SandboxUnavailable      sandbox_unavailable    what the kernel refused, and how to allow it
└── SettingsError           invalid_settings       all problems together
"""

from __future__ import annotations

from typing import Any, ClassVar


class FlowError(Exception):
    """Root of the platform's errors.

    Attributes:
        code: Stable word for programs.
        details: Per field: `{"field", "message"}`.
        hint: What to do about it, shown apart from the message.
    """

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500

    def __init__(
        self, message: str, *, code: str | None = None, details: list[dict[str, Any]] | None = None, hint: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = code or self.code
        self.details = details or []
        self.hint = hint


class InvalidInput(FlowError):
    code = "invalid_input"
    http_status = 422


class PayloadTooLarge(FlowError):
    code = "payload_too_large"
    http_status = 413


class Unauthenticated(FlowError):
    code = "unauthenticated"
    http_status = 401


class Forbidden(FlowError):
    code = "forbidden"
    http_status = 403


class NotFound(FlowError):
    code = "not_found"
    http_status = 404


class OtherTenant(NotFound):
    """Answered as what does not exist, in every respect; only the audit log knows."""


class Conflict(FlowError):
    code = "conflict"
    http_status = 409


class IllegalTransition(Conflict):
    code = "illegal_transition"


class RateLimited(FlowError):
    code = "rate_limited"
    http_status = 429

    def __init__(self, message: str, *, retry_after: float, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class BudgetExhausted(FlowError):
    code = "budget_exhausted"
    http_status = 402


class UpstreamRefused(FlowError):
    """`helps_elsewhere`: another model may well take the request, as it was not the request that was wrong."""

    code = "upstream_refused"
    http_status = 422

    def __init__(self, message: str, *, code: str | None = None, hint: str = "", helps_elsewhere: bool = False) -> None:
        super().__init__(message, code=code, hint=hint)
        self.helps_elsewhere = helps_elsewhere


class UpstreamFailed(FlowError):
    """`retry_after`: seconds that the provider asked for. Not transient: the same request would fail again."""

    code = "upstream_failed"
    http_status = 502

    def __init__(
        self, message: str, *, code: str | None = None, retry_after: float | None = None, is_transient: bool = True
    ) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after
        self.is_transient = is_transient


class UpstreamRateLimited(UpstreamFailed):
    code = "upstream_rate_limited"
    http_status = 429


class UpstreamTimeout(UpstreamFailed):
    code = "upstream_timeout"
    http_status = 504


class EndpointFailed(FlowError):
    """`execution_id`: what did not complete."""

    code = "endpoint_failed"
    http_status = 502

    def __init__(self, message: str, *, execution_id: str) -> None:
        super().__init__(message, details=[{"field": "execution_id", "message": execution_id}])
        self.execution_id = execution_id


class EndpointTimeout(EndpointFailed):
    code = "endpoint_timeout"
    http_status = 504


class ResponseMismatch(EndpointFailed):
    code = "response_mismatch"


class StaleLease(FlowError):
    code = "stale_lease"
    http_status = 409


class StoreUnavailable(FlowError):
    code = "store_unavailable"
    http_status = 503


class StorageFull(StoreUnavailable):
    code = "storage_full"
    http_status = 507


class BusUnavailable(FlowError):
    code = "bus_unavailable"
    http_status = 503


class LoginUnavailable(FlowError):
    """The issuer where people sign in does not answer."""

    code = "login_unavailable"
    http_status = 503


class BuildFailed(FlowError):
    code = "build_failed"
    http_status = 422


class SandboxUnavailable(FlowError):
    code = "sandbox_unavailable"
    http_status = 503


class SettingsError(FlowError):
    code = "invalid_settings"

"""The body of every refused request: `{"code", "message", "details", "request_id"}`. Never a traceback."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Final

from starlette.responses import Response

from flow_platform.domain import errors

RETRY_AFTER_SECONDS: Final = 1  # After which what is down for a moment is asked again.
INTERNAL_MESSAGE: Final = "something went wrong here; the request id finds it in the platform's log"


def error_body(code: str, message: str, details: list[dict[str, Any]], request_id: str) -> bytes:
    """The body. ASCII, so that whatever stands in a message can be sent."""
    document = {"code": code, "message": message, "details": details, "request_id": request_id}
    return json.dumps(document, default=str).encode()


def answer_of(error: errors.FlowError, request_id: str) -> Response:
    """The answer to an error of the platform's own tree."""
    if error.http_status == errors.FlowError.http_status:  # One that never should come here.
        return internal_error(request_id)
    headers: dict[str, str] = {}
    match error:
        case errors.RateLimited():
            headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
        case errors.UpstreamRateLimited():
            headers["Retry-After"] = str(max(1, math.ceil(error.retry_after or RETRY_AFTER_SECONDS)))
        case errors.EndpointFailed():
            headers["X-Execution-ID"] = error.execution_id
        case errors.Unauthenticated():
            headers["WWW-Authenticate"] = 'Bearer realm="flow"'
        case errors.StoreUnavailable() | errors.BusUnavailable() | errors.SandboxUnavailable():
            headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        case _:
            pass
    message = f"{error.message} (hint: {error.hint})" if error.hint else error.message
    return _response(error.http_status, error_body(error.error_code, message, error.details, request_id), headers)


def internal_error(request_id: str) -> Response:
    return _response(500, error_body("internal_error", INTERNAL_MESSAGE, [], request_id), {})


def method_not_allowed(method: str, possible: Iterable[str], request_id: str) -> Response:
    allow = ", ".join(sorted(possible))
    message = f"method {method!r} is not possible here: expected {allow}"
    return _response(405, error_body("method_not_allowed", message, [], request_id), {"Allow": allow})


def _response(status: int, body: bytes, headers: dict[str, str]) -> Response:
    return Response(body, status, headers, "application/json")

"""The body of every refused request: `{"code", "message", "details", "request_id"}`. Never a traceback."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flow_platform.api.context import context_of
from flow_platform.domain import errors

RETRY_AFTER_SECONDS: Final = 1  # After which what is down for a moment is asked again.
_CODES: Final = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    422: "invalid_input",
}
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


async def on_flow_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.FlowError)  # noqa: S101 - registered for it.
    if error.http_status == errors.FlowError.http_status:
        raise error  # Logged with its traceback where everything unexpected is.
    return answer_of(error, context_of(request.scope).request_id)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Unknown paths and methods; the router's own words, in our shape."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it.
    headers = dict(error.headers or {})
    match error.status_code:
        case 404:
            message = f"no such path: {request.url.path[:200]!r}"
        case 405:
            headers["Allow"] = ", ".join(_methods_of(request))
            message = f"method {request.method!r} is not possible here: expected {headers['Allow']}"
        case _:
            message = str(error.detail)
    code = _CODES.get(error.status_code, f"http_{error.status_code}")
    body = error_body(code, message, [], context_of(request.scope).request_id)
    return _response(error.status_code, body, headers)


def _methods_of(request: Request) -> list[str]:
    """All methods of the path; the router itself names those of the first route only."""
    path = request.scope["path"]
    routes = [route for route in request.app.routes if isinstance(route, Route) and route.path_regex.match(path)]
    return sorted({method for route in routes for method in route.methods or ()})


def _response(status: int, body: bytes, headers: dict[str, str]) -> Response:
    return Response(body, status, headers, "application/json")

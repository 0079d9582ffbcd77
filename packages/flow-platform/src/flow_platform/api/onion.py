"""What is around every route, as one ASGI layer: request id, credential, body limits, headers, metrics, last errors.

One layer, because each costs every request: the headers are read in one pass, and the answer's start is changed once.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flow_platform.api.auth import authenticate, needs_credential
from flow_platform.api.context import SCOPE_KEY, RequestContext, request_id_from
from flow_platform.api.errors import answer_of, internal_error
from flow_platform.domain import errors
from flow_platform.telemetry import REQUEST_ID, Metrics

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

logger = logging.getLogger(__name__)

MAX_BODIES_BYTES: Final = 512 << 20  # Of all requests together; each is parsed into several times its size.

_WANTED: Final = frozenset({b"authorization", b"x-api-key", b"x-request-id", b"content-length"})
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)


class Onion:
    """Wraps the application.

    Args:
        app: The routes.
        engine: Verifies credentials.
        metrics: Counts requests.
        max_body_bytes: Of one request.
    """

    def __init__(self, app: ASGIApp, engine: Engine, metrics: Metrics, max_body_bytes: int) -> None:
        self._app = app
        self._engine = engine
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._bodies_bytes = 0
        self._counters: dict[tuple[str, str, int], Any] = {}
        self._timers: dict[tuple[str, str], Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = _wanted_headers(scope)
        context = RequestContext(request_id_from(headers.get(b"x-request-id")))
        scope[SCOPE_KEY] = context
        status = 0

        async def send_start(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_added_headers(context, message)]
            await send(message)

        try:
            await self._admit(scope, headers, context)
            await self._app(scope, self._limited(receive, context), send_start)
        except errors.FlowError as error:
            if status:
                raise
            answer = answer_of(error, context.request_id)
            if answer.status_code == 500:
                _log_unexpected(context, error)
            await answer(scope, receive, send_start)
        except ClientDisconnect:
            logger.debug("the client went away", extra={REQUEST_ID: context.request_id})
        except Exception as error:
            _log_unexpected(context, error)
            if status:
                raise  # Half an answer is out: the server cuts the connection, so that nobody takes it for whole.
            await internal_error(context.request_id)(scope, receive, send_start)
        finally:
            self._bodies_bytes -= context.body_bytes
            self._count(scope, status, time.perf_counter() - began)

    async def _admit(self, scope: Scope, headers: dict[bytes, str], context: RequestContext) -> None:
        if needs_credential(scope["path"]):
            context.credential, context.newer_token = await authenticate(
                self._engine, headers.get(b"authorization"), headers.get(b"x-api-key")
            )
        announced = headers.get(b"content-length", "0")
        size = int(announced) if announced.isdecimal() and len(announced) < 20 else 0
        if size > self._max_body_bytes:
            raise errors.PayloadTooLarge(
                f"the body has {size} bytes: expected at most {self._max_body_bytes}",
                details=[{"field": "body", "message": f"{size} bytes, at most {self._max_body_bytes}"}],
            )

    def _limited(self, receive: Receive, context: RequestContext) -> Receive:
        async def limited() -> Message:
            message = await receive()
            body = message.get("body")
            if body:
                context.body_bytes += len(body)
                self._bodies_bytes += len(body)
                self._check_size(context)
            return message

        return limited

    def _check_size(self, context: RequestContext) -> None:
        """A body without announced length counts as it comes."""
        if context.body_bytes > self._max_body_bytes:
            size = context.body_bytes
            raise errors.PayloadTooLarge(
                f"the body has more than {size - 1} bytes: expected at most {self._max_body_bytes}",
                details=[{"field": "body", "message": f"{size} bytes so far, at most {self._max_body_bytes}"}],
            )
        if self._bodies_bytes > MAX_BODIES_BYTES:
            raise errors.RateLimited(
                f"the bodies of all requests together have more than {MAX_BODIES_BYTES} bytes", retry_after=1.0
            )

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        counter = self._counters.get((method, route, status))
        if counter is None:
            # 499: the client went away before an answer. Source: nginx.
            counter = self._metrics.http_requests.labels(method, route, str(status or 499))
            self._counters[method, route, status] = counter
        timer = self._timers.get((method, route))
        if timer is None:
            timer = self._timers[method, route] = self._metrics.http_request_seconds.labels(method, route)
        counter.inc()
        timer.observe(seconds)


def _wanted_headers(scope: Scope) -> dict[bytes, str]:
    return {name: value.decode("latin-1") for name, value in scope["headers"] if name in _WANTED}


def _added_headers(context: RequestContext, message: Message) -> list[tuple[bytes, bytes]]:
    present = {name for name, _ in message.get("headers", ())}
    added = [header for header in _SECURITY_HEADERS if header[0] not in present]
    added.append((b"x-request-id", context.request_id.encode()))
    if context.newer_token is not None:
        added.append((b"x-auth-token", context.newer_token.encode()))
    return added


def _log_unexpected(context: RequestContext, error: Exception) -> None:
    logger.error("a request failed unexpectedly", exc_info=error, extra={REQUEST_ID: context.request_id})

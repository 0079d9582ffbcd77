"""What is around every route: request id, credential, body limits, headers, metrics, and errors made into answers.

The only layer between server and endpoint, because each costs every request: the headers are read in one pass, an
endpoint's answer gets its further headers before it is sent, and whatever an endpoint raises is translated once, here.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from flow_platform.api.access import access_of, check_access
from flow_platform.api.audit_scope import MAX_SEEN_BYTES, change_of, finish, is_refusal, note_refusal, origin_of
from flow_platform.api.auth import authenticate, needs_credential
from flow_platform.api.context import SCOPE_KEY, RequestContext, request_id_from
from flow_platform.api.errors import answer_of, internal_error, method_not_allowed
from flow_platform.api.login import session_of
from flow_platform.api.open_requests import OpenRequest, as_refusal
from flow_platform.api.routing import Route, Router
from flow_platform.domain import errors
from flow_platform.domain.client_address import TrustedProxies
from flow_platform.engine.audited import CHANGE, ORIGIN, Origin
from flow_platform.metrics import Metrics
from flow_platform.telemetry import REQUEST_ID

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

logger = logging.getLogger(__name__)

MAX_BODIES_BYTES: Final = 512 << 20  # Of all requests together; each is parsed into several times its size.

_UNEXPECTED: Final = "a request failed unexpectedly"
_WANTED: Final = frozenset(
    {
        *(b"authorization", b"x-api-key", b"x-request-id", b"content-length", b"user-agent"),
        *(b"cookie", b"origin", b"sec-fetch-site"),  # Of browsers.
    }
)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
_SECURITY_NAMES: Final = frozenset(name for name, _ in _SECURITY_HEADERS)


class Onion:
    """The application.

    Args:
        router: Finds the endpoint.
        engine: Verifies credentials.
        metrics: Counts requests.
        max_body_bytes: Of one request.
        proxies: Whose word on the client's address is taken.
    """

    def __init__(
        self, router: Router, engine: Engine, metrics: Metrics, max_body_bytes: int, proxies: TrustedProxies
    ) -> None:
        self._router = router
        self._proxies = proxies
        self._engine = engine
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._bodies_bytes = 0
        self._counters: dict[tuple[str, str, int], Any] = {}
        self._timers: dict[tuple[str, str], Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise TypeError(f"{scope['type']!r} is not served here: expected 'http'")
        began = time.perf_counter()
        headers = _wanted_headers(scope)
        context = RequestContext(request_id_from(headers.get(b"x-request-id")))
        scope[SCOPE_KEY] = context
        status = 0
        try:
            with OpenRequest(self._engine, context) as opened:
                answer = await self._answer(scope, headers, receive, context, opened)
                _add_headers(answer.raw_headers, context)
                status = answer.status_code
                with as_refusal(opened):
                    await answer(scope, receive, send)
        except errors.Unauthenticated:
            return  # Half an answer is out, and its credential has ended: the server cuts what is left without an end.
        except ClientDisconnect:
            logger.debug("the client went away", extra={REQUEST_ID: context.request_id})
        except Exception:
            logger.exception(_UNEXPECTED, extra={REQUEST_ID: context.request_id})
            raise  # Half an answer is out: the server cuts the connection, so that nobody takes it for whole.
        finally:
            self._bodies_bytes -= context.body_bytes
            self._count(scope, context, status, time.perf_counter() - began)

    async def _answer(
        self,
        scope: Scope,
        headers: dict[bytes, str],
        receive: Receive,
        context: RequestContext,
        opened: OpenRequest,
    ) -> Response:
        """The endpoint's answer, or that to the error which it raised."""
        origin = origin_of(scope, context, headers.get(b"user-agent"), self._proxies)
        try:
            await self._admit(scope, headers, context)
            found = self._router.find(scope["method"], scope["path"])
            if found is None:
                return self._not_found(scope["method"], scope["path"], context)
            route, scope["path_params"] = found
            context.route = route.path
            check_access(access_of(route), scope["path_params"], context.credential)
            with as_refusal(opened):
                return await self._entered(route, scope, receive, context, origin)
        except errors.FlowError as error:
            self._note(error, scope, context, origin)
            answer = answer_of(error, context.request_id)
            if answer.status_code == 500:
                logger.exception(_UNEXPECTED, extra={REQUEST_ID: context.request_id})
            return answer
        except ClientDisconnect:
            raise
        except Exception:
            # The last border: a mistake of ours is answered with 500 and the id under which the log has it.
            logger.exception(_UNEXPECTED, extra={REQUEST_ID: context.request_id})
            return internal_error(context.request_id)

    async def _entered(
        self, route: Route, scope: Scope, receive: Receive, context: RequestContext, origin: Origin
    ) -> Response:
        """The endpoint's answer. What changes something is entered into the audit log, with what changes it."""
        change = change_of(self._engine, route, scope["path_params"], context, origin)
        if change is not None:
            context.body_seen = b""
        tokens = CHANGE.set(change), ORIGIN.set(origin)
        try:
            answer = await route.endpoint(Request(scope, self._limited(receive, context)))
            if change is not None and not change.is_written and answer.status_code < 300:
                await finish(self._engine, change, bytes(getattr(answer, "body", b"")))
            return answer
        finally:
            if change is not None:
                change.is_written = True  # What was begun and goes on behind the answer is not this request.
            CHANGE.reset(tokens[0])
            ORIGIN.reset(tokens[1])

    def _note(self, error: errors.FlowError, scope: Scope, context: RequestContext, origin: Origin) -> None:
        if not is_refusal(error):
            return
        path = context.route
        target: dict[str, str] = scope.get("path_params") or {}
        if not target and (found := self._router.find(scope["method"], scope["path"])) is not None:
            path, target = found[0].path, found[1]  # Refused before anybody looked where to.
        note_refusal(self._engine, error, f"{scope['method'][:10]} {path}", target, context, origin)

    def _not_found(self, method: str, path: str, context: RequestContext) -> Response:
        possible = self._router.methods(path)
        if not possible:
            raise errors.NotFound(f"no such path: {path[:200]!r}")
        context.route = next(iter(possible.values())).path
        return method_not_allowed(method, possible, context.request_id)

    async def _admit(self, scope: Scope, headers: dict[bytes, str], context: RequestContext) -> None:
        if needs_credential(scope["path"]):
            authorization, api_key = headers.get(b"authorization"), headers.get(b"x-api-key")
            if authorization is None and api_key is None:
                context.credential = await session_of(self._engine, scope["method"], headers)
            if context.credential is None:
                context.credential, context.newer_token = await authenticate(self._engine, authorization, api_key)
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
                if context.body_seen is not None and context.body_bytes <= MAX_SEEN_BYTES:
                    context.body_seen += body
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

    def _count(self, scope: Scope, context: RequestContext, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        counter = self._counters.get((method, context.route, status))
        if counter is None:
            # 499: the client went away before an answer. Source: nginx.
            counter = self._metrics.http_requests.labels(method, context.route, str(status or 499))
            self._counters[method, context.route, status] = counter
        timer = self._timers.get((method, context.route))
        if timer is None:
            timer = self._metrics.http_request_seconds.labels(method, context.route)
            self._timers[method, context.route] = timer
        counter.inc()
        timer.observe(seconds)


def _wanted_headers(scope: Scope) -> dict[bytes, str]:
    return {name: value.decode("latin-1") for name, value in scope["headers"] if name in _WANTED}


def _add_headers(headers: list[tuple[bytes, bytes]], context: RequestContext) -> None:
    """Adds what every answer has; what an endpoint said itself is left."""
    own = [name for name, _ in headers if name in _SECURITY_NAMES]
    if own:
        headers += [header for header in _SECURITY_HEADERS if header[0] not in own]
    else:
        headers += _SECURITY_HEADERS
    headers.append((b"x-request-id", context.request_id.encode()))
    if context.newer_token is not None:
        headers.append((b"x-auth-token", context.newer_token.encode()))

"""Requests to the platform: sent with the current token, repeated where that helps, answered with JSON or an error.

One call of `Http.request` is one logical request: it may be several attempts, and one refresh of the token.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import httpx

from flow_sdk import activity, environment, errors, telemetry
from flow_sdk.credentials import Credentials, TokenCallback
from flow_sdk.encoding import decode, encode_body
from flow_sdk.retry import ONCE, RETRYABLE_STATUSES, SUBMIT, Deadline, Retry, may_improve, parse_retry_after
from flow_sdk.transport import make_transport
from flow_sdk.wire.replay import HEADER

CONNECT_SECONDS: Final = 10.0
"""A platform that does not even accept for this long is away; the time-out of a whole call is for slow answers."""

HOLD_MARGIN_SECONDS: Final = 10.0
"""How much later than asked a held answer may come before the read counts as lost."""

REFRESH_PATH: Final = "/api/v1/auth/refresh"
TOKEN_HEADER: Final = "X-Auth-Token"  # noqa: S105
TOKEN_EXPIRED: Final = "token_expired"  # noqa: S105

_UNAUTHENTICATED: Final = 401


@dataclass(slots=True)
class _Call:
    """One logical request, over all its attempts."""

    method: str
    path: str
    expect: int
    content: bytes | None
    headers: list[tuple[bytes, bytes]]
    retry: Retry
    deadline: Deadline | None
    hold_seconds: int

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Http:
    """The HTTP side of a client.

    Attributes:
        client: The async HTTP client, with base URL and headers set.
        credentials: The token, shared with the NATS side.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        timeout: float,
        on_refresh: TokenCallback | None,
        headers: Mapping[str, str],
    ) -> None:
        url = _parse_url(base_url)
        self._base_url = base_url.rstrip("/")
        self._timeout = timeout
        self._headers = {"User-Agent": "flow-sdk", "Accept": "application/json", **headers}
        self.client: httpx.AsyncClient = httpx.AsyncClient(
            base_url=self._base_url,
            headers=self._headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
            transport=make_transport(url),
        )
        self.credentials: Credentials = Credentials(token, self._use_token, on_refresh)
        self._use_token(token)
        self._was_own = environment.is_own(base_url, token)

    @property
    def is_own(self) -> bool:
        """Whether it speaks for the execution that this code runs in."""
        return self._was_own and not self.credentials.was_replaced

    async def request(
        self,
        method: str,
        path: str,
        *,
        expect: int = 200,
        body: Mapping[str, Any] | None = None,
        retry: Retry = ONCE,
        deadline: Deadline | None = None,
        hold_seconds: int = 0,
        told: str = "",
    ) -> Any:
        """Sends a request and returns the JSON of its answer; None for an empty one.

        Args:
            method: `GET` or `POST`. Each POST carries an `Idempotency-Key`, the same on all its attempts.
            path: From the root of the platform, quoted.
            expect: The only status that is a success.
            body: Sent as JSON.
            retry: How often it is repeated, and with which pauses.
            deadline: No attempt and no pause goes beyond it.
            hold_seconds: Asks the server to hold its answer for so long (RFC 7240).
            told: What the harness says of the execution's calls, see `wire.replay`.

        Raises:
            PlatformConnectionError: There was no answer, after all attempts.
            PlatformClientError: The answer has another status, or is not JSON. The class says which; see `errors`.
        """
        content = None if body is None else encode_body(body)
        headers: list[tuple[bytes, bytes]] = []
        if content is not None:
            headers.append((b"Content-Type", b"application/json"))
        if method == "POST":
            headers.append((b"Idempotency-Key", uuid.uuid4().hex.encode()))
        if hold_seconds:
            headers.append((b"Prefer", b"wait=%d" % hold_seconds))
        if told:
            headers.append((HEADER.encode(), told.encode()))
        call = _Call(method, path, expect, content, headers, retry, deadline, hold_seconds)
        with activity.CURRENT.request():
            return await self._perform(call, may_refresh=True)

    async def refresh(
        self, expired: str, refused: errors.PlatformClientError, deadline: Deadline | None = None
    ) -> None:
        """Replaces an expired token, once for all calls that were refused with it.

        Raises:
            PlatformClientError: `refused`, when there is no new token; its cause says why.
        """

        async def fetch() -> str:
            headers = [(b"Idempotency-Key", uuid.uuid4().hex.encode())]
            call = _Call("POST", REFRESH_PATH, 200, None, headers, SUBMIT, deadline, 0)
            answer = await self._perform(call, may_refresh=False)
            if self.credentials.token != expired:
                return self.credentials.token  # It came in the header, and is adopted already.
            token = cast("dict[str, Any]", answer).get("token") if isinstance(answer, dict) else None
            if not isinstance(token, str) or not token:
                raise errors.PlatformAuthError(f"The answer to {call} holds no token")
            return token

        try:
            await self.credentials.renew(expired, fetch)
        except errors.PlatformClientError as exc:
            raise refused from exc

    def use_client(self, client: httpx.AsyncClient) -> None:
        """Sends everything through another HTTP client; it gets our headers."""
        self.client = client
        client.headers.update(self._headers)
        self._use_token(self.credentials.token)

    async def aclose(self) -> None:
        await self.client.aclose()

    def _use_token(self, token: str) -> None:
        self.client.headers["Authorization"] = f"Bearer {token}"

    async def _perform(self, call: _Call, *, may_refresh: bool) -> Any:
        attempt = 0
        while True:
            token = self.credentials.token
            retry_after = None
            try:
                response = await self._send(call)
            except httpx.HTTPError as exc:
                error: errors.PlatformClientError = errors.PlatformConnectionError(
                    f"{call} had no answer: {type(exc).__name__}: {exc}"
                )
                error.__cause__ = exc
                again = may_improve(exc)
            else:
                if (newer := response.headers.get(TOKEN_HEADER)) is not None:
                    await self.credentials.adopt(newer)
                if response.status_code == call.expect:
                    return decode(response.content, f"The answer to {call}") if response.content else None
                retry_after = parse_retry_after(response.headers.get("Retry-After"))
                error = _error_of(call, response, retry_after)
                if may_refresh and response.status_code == _UNAUTHENTICATED and error.code == TOKEN_EXPIRED:
                    may_refresh = False
                    await self.refresh(token, error, call.deadline)
                    continue
                again = response.status_code in RETRYABLE_STATUSES
            pause = call.retry.pause(attempt, retry_after)
            in_time = call.deadline is None or pause < call.deadline.remaining()
            if not (again and in_time and attempt < call.retry.retries):
                raise error
            attempt += 1
            telemetry.warn("platform request repeated", method=call.method, path=call.path, reason=str(error))
            await asyncio.sleep(pause)

    async def _send(self, call: _Call) -> httpx.Response:
        limit = self._timeout
        if call.hold_seconds:
            limit = call.hold_seconds + min(limit, HOLD_MARGIN_SECONDS)
        if call.deadline is not None:
            limit = min(limit, call.deadline.remaining())
        # Built by hand: `AsyncClient.request` merges URLs, headers and cookies anew for every call.
        request = httpx.Request(
            call.method,
            self._base_url + call.path,
            headers=self.client.headers.raw + call.headers,
            content=call.content,
            extensions={"timeout": {"connect": min(limit, CONNECT_SECONDS)}},
        )
        try:
            async with asyncio.timeout(limit):
                return await self.client.send(request)
        except TimeoutError as exc:
            raise httpx.ReadTimeout(f"nothing came within {limit:.3g} s") from exc
        except httpx.InvalidURL as exc:
            raise errors.PlatformValidationError(f"{call} was not sent: {exc}") from exc
        except RuntimeError as exc:
            if not self.client.is_closed:
                raise
            raise errors.PlatformClientError(f"{call} was not sent: the client is closed") from exc


def _parse_url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as exc:
        raise ValueError(f"Platform API URL {base_url!r} is not valid: {exc}") from exc
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"Platform API URL {base_url!r} is not valid: expected http://HOST or https://HOST")
    return url


def _error_of(call: _Call, response: httpx.Response, retry_after: float | None) -> errors.PlatformClientError:
    """Reads a refusal. A body of another shape than the platform's own (a proxy's page) becomes the message."""
    status = response.status_code
    body = _object_of(response)
    code = body.get("code")
    details = cast("list[Any]", body["details"]) if isinstance(body.get("details"), list) else []
    message = body.get("message") or body.get("detail") or response.text[:200]
    fields: dict[str, Any] = {
        "status_code": status,
        "code": code if isinstance(code, str) else None,
        "details": [detail for detail in details if isinstance(detail, dict)],
        "request_id": body.get("request_id") or response.headers.get("X-Request-ID"),
    }
    text = f"{call} answered {status}" + (f" {code}" if code else "") + (f": {message}" if message else "")
    if response.is_success:
        text = f"{call} answered {status}, expected {call.expect}"
    kind = errors.error_class(status)
    if kind is errors.PlatformRateLimitError:
        return errors.PlatformRateLimitError(text, retry_after=retry_after, **fields)
    return kind(text, **fields)


def _object_of(response: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}

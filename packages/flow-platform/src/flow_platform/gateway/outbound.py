"""HTTP to providers: pools of connections, bounds, and every failure translated into ours.

A provider that a workspace configured could point anywhere, also at this machine and its neighbours. Its name is
resolved here, every address must be a public one, and that very address is connected to, so that a name that changes
between check and use gains nothing. Redirects are never followed.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import json
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, cast

import httpx
from pydantic_core import to_json

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock
from flow_platform.gateway.adapter import UpstreamCall, failure_of_status
from flow_platform.gateway.sse import SseEvent, SseParser

Json = dict[str, Any]

CONNECT_SECONDS: Final = 10.0
WRITE_SECONDS: Final = 60.0
MAX_CONNECTIONS: Final = 1_000
MAX_ANSWER_BYTES: Final = 8 << 20  # Of one provider's answer. The longest texts of models have under 1 MiB.
MAX_REFUSAL_BYTES: Final = 64 << 10
_JSON_HEADERS: Final = {"Content-Type": "application/json", "User-Agent": "flow"}


class Outbound:
    """One per gateway. Its clients are made when they are first needed: who calls no provider pays nothing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def post_json(self, call: UpstreamCall, path: str, body: Json, headers: Mapping[str, str]) -> Json:
        content = to_json(body)
        async with self._answer(call, "POST", path, headers, content) as answer:
            return await _json_of(call, answer)

    async def get_json(self, call: UpstreamCall, path: str, headers: Mapping[str, str]) -> Json:
        async with self._answer(call, "GET", path, headers, None) as answer:
            return await _json_of(call, answer)

    async def post_stream(
        self, call: UpstreamCall, path: str, body: Json, headers: Mapping[str, str]
    ) -> AsyncGenerator[SseEvent]:
        """The server-sent events of the answer, each as soon as it is whole.

        Raises:
            UpstreamFailed: The stream broke, is too large, or is none.
        """
        content = to_json(body)
        async with self._answer(call, "POST", path, {**headers, "Accept": "text/event-stream"}, content) as answer:
            if "text/event-stream" not in answer.headers.get("content-type", ""):
                kind = answer.headers.get("content-type", "")[:80]
                raise _failed(call, f"answered {kind!r}: expected a stream of events")
            parser, size = SseParser(), 0
            async for data in answer.aiter_bytes():
                size += len(data)
                if size > MAX_ANSWER_BYTES:
                    raise _failed(call, f"answered more than {MAX_ANSWER_BYTES} bytes")
                try:
                    found = parser.feed(data)
                except ValueError as error:
                    raise _failed(call, f"answered a stream in which {error}") from error
                for event in found:
                    yield event

    @asynccontextmanager
    async def _answer(
        self, call: UpstreamCall, method: str, path: str, headers: Mapping[str, str], content: bytes | None
    ) -> AsyncGenerator[httpx.Response]:
        """The answer to a request, when it is 200, with its body not read yet."""
        provider = call.target.provider
        try:
            request = await self._request(call, method, path, headers, content)
            answer = await self._client(provider.is_platform).send(request, stream=True)
            try:
                if answer.status_code != 200:
                    raise await self._refusal(call, answer)
                yield answer
            finally:
                await answer.aclose()
        except httpx.TimeoutException as error:
            raise errors.UpstreamTimeout(
                f"provider {provider.name!r} was silent for {provider.idle_seconds:g} seconds"
                if isinstance(error, httpx.ReadTimeout)
                else f"provider {provider.name!r} did not take the request within {CONNECT_SECONDS:g} seconds"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # Not the error's own text alone: it may be empty. Never the request: it holds the key.
            raise failure_of_status(call.target, 0, str(error) or type(error).__name__, None, call.key) from None

    async def _request(
        self, call: UpstreamCall, method: str, path: str, headers: Mapping[str, str], content: bytes | None
    ) -> httpx.Request:
        provider = call.target.provider
        url = httpx.URL(provider.base_url + path)
        timeout = httpx.Timeout(
            connect=CONNECT_SECONDS, read=provider.idle_seconds, write=WRITE_SECONDS, pool=CONNECT_SECONDS
        )
        sent = {**_JSON_HEADERS, **headers}
        extensions: dict[str, Any] = {"timeout": timeout.as_dict()}
        if not provider.is_platform:
            address = await _public_address(provider.name, url.host, url.port or 443)
            sent["Host"] = url.netloc.decode("ascii")
            extensions["sni_hostname"] = url.host
            url = url.copy_with(host=address)
        return httpx.Request(method, url, headers=sent, content=content, extensions=extensions)

    async def _refusal(self, call: UpstreamCall, answer: httpx.Response) -> errors.FlowError:
        body = bytearray()
        async for data in answer.aiter_bytes():
            body += data
            if len(body) > MAX_REFUSAL_BYTES:
                break
        pause = retry_after(answer.headers, self._clock.now())
        return failure_of_status(call.target, answer.status_code, _message(bytes(body)), pause, call.key)

    def _client(self, is_platform: bool) -> httpx.AsyncClient:
        """The operator's proxy settings are for the operator's providers: behind a proxy no address can be checked."""
        client = self._clients.get(is_platform)
        if client is None:
            limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=100, keepalive_expiry=30)
            client = self._clients[is_platform] = httpx.AsyncClient(trust_env=is_platform, limits=limits)
        return client


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """The pause that an answer asks for, in seconds; None when it asks for none that can be understood.

    Source: RFC 9110, section 10.2.3; `retry-after-ms` is what several providers send beside it.
    """
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / scale
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        at = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())


async def _json_of(call: UpstreamCall, answer: httpx.Response) -> Json:
    body = bytearray()
    async for data in answer.aiter_bytes():
        body += data
        if len(body) > MAX_ANSWER_BYTES:
            raise _failed(call, f"answered more than {MAX_ANSWER_BYTES} bytes")
    return json_object(call, bytes(body))


def json_object(call: UpstreamCall, text: bytes | str) -> Json:
    """Raises UpstreamFailed when it is no JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise errors.UpstreamFailed(
            f"provider {call.target.provider.name!r} answered {text[:80]!r}: expected a JSON object"
        )
    return cast("Json", value)


def _message(body: bytes) -> str:
    """What a refusal says: the usual places, else its text."""
    try:
        value = json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")
    for name in ("error", "message", "detail"):
        while isinstance(value, dict) and name in value:
            value = cast("Json", value)[name]
    return value if isinstance(value, str) else json.dumps(value)


async def _public_address(name: str, host: str, port: int) -> str:
    """Raises UpstreamRefused unless every address of the host is a public one."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not ipaddress.ip_address(address.partition("%")[0]).is_global:
            raise errors.UpstreamRefused(
                f"provider {name!r} is at {address!r}: expected a public address",
                code="provider_not_public",
                hint="the operator can configure it for the platform",
                helps_elsewhere=True,
            )
    return addresses[0]


def _failed(call: UpstreamCall, what: str) -> errors.UpstreamFailed:
    return errors.UpstreamFailed(f"provider {call.target.provider.name!r} {what}", is_transient=False)

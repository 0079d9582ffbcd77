"""The pool of connections to the platform, in the place of httpx's own. See `connection` for why."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import sys
import urllib.request
from collections import deque
from typing import Any, Final

import httpx

from flow_sdk.connection import Body, Connection, ResponseHead

MAX_CONNECTIONS: Final = 320
"""More than `waiting.MAX_HELD_READS`, so that a cancel never queues behind held reads; far below 1,024 open files."""

MAX_IDLE_SECONDS: Final = 60.0
"""Firewalls forget silent connections after some minutes; one that the server closed is noticed at once."""

_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})

_Origin = tuple[bytes, bytes, int | None]


def make_transport(url: httpx.URL) -> httpx.AsyncBaseTransport | None:
    """The transport for a platform; None where httpx's own is needed, because the environment names a proxy.

    A loopback address is never a proxy's to reach. It is what containers get, beside variables meant for user code.
    """
    if not _is_loopback(url.host):
        proxies = urllib.request.getproxies()
        if (url.scheme in proxies or "all" in proxies) and not urllib.request.proxy_bypass(url.host):
            return None
    if url.scheme == "https":
        return PlatformTransport(httpx.create_ssl_context())
    # No certificates are needed; loading them takes 0.1 s. Empty, the store trusts nobody: that fails closed.
    return PlatformTransport(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


class PlatformTransport(httpx.AsyncBaseTransport):
    """Keeps connections alive and hands each to one request at a time, the last used first.

    Tracers and test libraries replace methods of httpx or httpcore to see every request. While somebody does, requests
    go through httpx's own transport, so that they are seen.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._watched: httpx.AsyncHTTPTransport | None = None
        self._idle: dict[_Origin, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._opening = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends one request.

        A request that is sent on a kept connection just as the server closes it was not seen by the server. It is
        repeated on a fresh connection when repeating is harmless.

        Source: RFC 9110, section 9.2.2; Go's net/http does the same, with the same reading of `Idempotency-Key`.
        """
        if _is_watched():
            if self._watched is None:
                self._watched = httpx.AsyncHTTPTransport(verify=self._context, trust_env=False)
            return await self._watched.handle_async_request(request)
        message = await _serialize(request)
        method = request.method.encode()
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        origin = request.url.raw_scheme, request.url.raw_host, request.url.port
        while True:
            connection = await self._acquire(request.url, origin, timeouts)
            try:
                head, body = await connection.exchange(method, message, timeouts.get("read"))
            except BaseException as exc:
                self._discard(connection)
                reused = connection.requests > 1 and not connection.received
                harmless = method in _IDEMPOTENT or "idempotency-key" in request.headers
                if reused and harmless and isinstance(exc, (httpx.RemoteProtocolError, httpx.ReadError)):
                    continue
                raise
            return self._respond(request, origin, connection, head, body)

    async def aclose(self) -> None:
        for connection in list(self._open):
            self._discard(connection)
        # A closed socket is gone one turn of the loop later; whoever closes the client may close the loop next.
        await asyncio.sleep(0)
        if self._watched is not None:
            await self._watched.aclose()

    def _respond(
        self, request: httpx.Request, origin: _Origin, connection: Connection, head: ResponseHead, body: Body
    ) -> httpx.Response:
        def release(complete: bool) -> None:
            if complete and head.keep_alive and connection.is_usable:
                connection.idle_since = asyncio.get_running_loop().time()
                self._idle.setdefault(origin, []).append(connection)
                self._let_next()
            else:
                self._discard(connection)

        content = body.complete()
        if content is None:
            body.on_release(release)
            stream: httpx.AsyncByteStream = body
        else:
            release(True)
            stream = httpx.ByteStream(content)
        return httpx.Response(head.status, headers=head.headers, stream=stream, request=request)

    async def _acquire(self, url: httpx.URL, origin: _Origin, timeouts: dict[str, float | None]) -> Connection:
        while True:
            idle = self._idle.get(origin)
            while idle:
                connection = idle.pop()
                expired = asyncio.get_running_loop().time() - connection.idle_since > MAX_IDLE_SECONDS
                if connection.is_usable and not expired:
                    return connection
                self._discard(connection)
            if len(self._open) + self._opening < MAX_CONNECTIONS:
                return await self._connect(url, timeouts.get("connect"))
            await self._wait_turn(timeouts.get("pool"))

    async def _wait_turn(self, patience: float | None) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            # Not `wait_for`: Python 3.11's drops a cancel that comes with the turn.
            async with asyncio.timeout(patience):
                await turn
        except TimeoutError as exc:
            self._pass_on(turn)
            raise httpx.PoolTimeout(f"All {MAX_CONNECTIONS} connections were in use for {patience} s") from exc
        except asyncio.CancelledError:
            self._pass_on(turn)
            raise

    def _pass_on(self, turn: asyncio.Future[None]) -> None:
        """It may have come just as its owner gave up; the next one shall not wait for nobody."""
        if not turn.cancelled():
            self._let_next()

    def _let_next(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def _connect(self, url: httpx.URL, patience: float | None) -> Connection:
        secure = url.scheme == "https"
        if not secure and url.scheme != "http":
            raise httpx.UnsupportedProtocol(f"The URL scheme {url.scheme!r} is neither http nor https")
        self._opening += 1
        try:
            async with asyncio.timeout(patience):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._forget),
                    url.host,
                    url.port or (443 if secure else 80),
                    ssl=self._context if secure else None,
                )
        except TimeoutError as exc:
            raise httpx.ConnectTimeout(f"No connection to {url.host!r} within {patience} s") from exc
        except OSError as exc:
            raise httpx.ConnectError(str(exc)) from exc
        finally:
            self._opening -= 1
        self._open.add(connection)
        return connection

    def _discard(self, connection: Connection) -> None:
        connection.close()
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        if connection in self._open:
            self._open.remove(connection)
            for idle in self._idle.values():
                if connection in idle:
                    idle.remove(connection)
            self._let_next()


def _is_watched() -> bool:
    """Whether somebody replaced the methods through which httpx sends. httpcore is loaded only by who uses it."""
    if _is_replaced(httpx.AsyncHTTPTransport, "httpx"):
        return True
    httpcore = sys.modules.get("httpcore")
    return httpcore is not None and _is_replaced(httpcore.AsyncConnectionPool, "httpcore")


def _is_replaced(owner: type[Any], library: str) -> bool:
    method = owner.handle_async_request
    return method.__module__.partition(".")[0] != library or hasattr(method, "__wrapped__")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serialize(request: httpx.Request) -> bytes:
    """The bytes of a request.

    Raises:
        httpx.LocalProtocolError: A line break in the target or in a header: it would be read as another header.
    """
    body = await request.aread()
    lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    for name, value in request.headers.raw:
        if name.lower() == b"transfer-encoding":  # The body was a stream; by now all of it is here.
            name, value = b"Content-Length", b"%d" % len(body)  # noqa: PLW2901
        lines.append(b"%b: %b" % (name, value))
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1 or b"\0" in head:
        raise httpx.LocalProtocolError("A header holds a line break or a NUL: expected visible characters")
    return b"%b\r\n\r\n%b" % (head, body)

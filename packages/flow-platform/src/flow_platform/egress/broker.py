"""Serves the connections with which one container, or one build, asks for the way out.

Each goes one way: handshake -> the policy's view of host and port -> resolved, every address checked, connected ->
bytes until an end, a limit, or `close`. Whatever becomes of it, it leaves one `Record`. A refusal is answered in words.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from flow_platform.domain.destination import DEFAULT_PORTS, shown_host
from flow_platform.egress import socks
from flow_platform.egress.client_hello import HelloGate
from flow_platform.egress.dial import dial
from flow_platform.egress.forward import Exchange
from flow_platform.egress.handshake import Forward, Tunnel, read_handshake
from flow_platform.egress.injection import Injection, trusted
from flow_platform.egress.policy import Policy
from flow_platform.egress.refusal import Refusal, limit_reached, unreachable
from flow_platform.egress.resolver import Resolver
from flow_platform.egress.traffic import CHUNK_BYTES, IdleTimer, Limits, Meter, Record
from flow_platform.egress.tunnel import Streams, carry

logger = logging.getLogger(__name__)

HEAD_SECONDS: Final = 15.0  # From the connection to the end of its head.
RESOLVING_AT_ONCE: Final = 8  # Per broker: the resolver's threads are for all.
ACCEPTS_PER_WAKE_UP: Final = 16  # So that one container's connection storm does not hold the loop.
MAX_REASON_CHARACTERS: Final = 500
TLS_SECONDS: Final = 10.0  # For the handshake with a host that gets an injected header.
LINGER_SECONDS: Final = 1.0  # For a client to read its refusal before the connection is cut.


class Broker:
    """The way out of one container. Made and used on one event loop.

    Args:
        on_end: Told of each connection when it is over.
        injections: For http:// requests; a tunnel's content is its own.
        tls: Of requests that go on by TLS.
    """

    def __init__(
        self,
        policy: Policy,
        resolver: Resolver,
        limits: Limits,
        on_end: Callable[[Record], None],
        injections: Sequence[Injection] = (),
        tls: Callable[[], ssl.SSLContext] = trusted,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._policy = policy
        self._resolver = resolver
        self._limits = limits
        self._on_end = on_end
        self._injections = injections
        self._tls = tls
        self._meter = Meter(limits)
        self._dialling = asyncio.Semaphore(RESOLVING_AT_ONCE)
        self._accepted = 0
        self._serving: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None

    def listen(self, listener: socket.socket) -> None:
        """Accepts until `close`. The listener stays the caller's."""
        # Our own descriptor: a number that is used again must not still be registered with the event loop.
        self._listener = listener.dup()
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener.fileno(), self._accept, self._listener)

    async def serve(self, connection: socket.socket) -> None:
        """Serves one accepted connection to its end and closes it."""
        task = self._begin(connection)
        if task is not None:
            await task

    def close(self) -> None:
        """Ends all connections at once and accepts no more."""
        self._stop_accepting()
        for task in self._serving:
            task.cancel()

    async def wait_closed(self) -> None:
        """After `close`: until each connection has left its record."""
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_WAKE_UP):
            try:
                connection, _address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                logger.warning("a container's listener failed: %s", error)
                self._stop_accepting()
                return
            if self._accepted > 2 * self._limits.accepted:
                connection.close()  # Told often enough.
                self._stop_accepting()
                return
            self._begin(connection)

    def _stop_accepting(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def _begin(self, connection: socket.socket) -> asyncio.Task[None] | None:
        self._accepted += 1
        if len(self._serving) >= 2 * self._limits.connections:
            connection.close()  # Even refusing takes room.
            return None
        connection.setblocking(False)
        refusal = None
        if self._accepted > self._limits.accepted:
            refusal = limit_reached(f"limit reached: an execution may open {self._limits.accepted} connections in all")
        elif len(self._serving) >= self._limits.connections:
            refusal = limit_reached(f"limit reached: an execution may have {self._limits.connections} connections open")
        task = asyncio.create_task(self._connection(connection, refusal), name="egress")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return task

    async def _connection(self, connection: socket.socket, refusal: Refusal | None) -> None:
        record = Record(self._loop.time())
        try:
            inner = await _streams(connection)
        except OSError:
            connection.close()
            return
        is_asked = True
        try:
            is_asked = await self._serve(inner, record, refusal)
        except Refusal as error:
            record.verdict, record.reason = error.verdict, error.message
        except (OSError, EOFError, TimeoutError) as error:
            record.reason = record.reason or str(error) or type(error).__name__
        except asyncio.CancelledError:
            record.reason = "closed with the attempt"
            raise
        finally:
            inner[1].transport.abort()
            if record.verdict == "allowed" and not record.address:
                record.verdict = "failed"
            record.duration_ms = round((self._loop.time() - record.started_at) * 1000, 1)
            if is_asked:
                self._on_end(record)

    async def _serve(self, inner: Streams, record: Record, refusal: Refusal | None) -> bool:
        """False when nothing was asked for."""
        request: Tunnel | Forward | None = None
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                request = await read_handshake(*inner)
            if request is None:
                return False
            request, injections = self._injected(request)
            record.host, record.port = request.host, request.port
            if refusal is not None:
                raise refusal
            self._meter.check()
            self._policy.check_destination(request.host, request.port)
            async with self._dialling:
                outer_socket, address = await dial(request.host, request.port, self._policy, self._resolver)
            record.address = str(address)
            outer = await self._outer(outer_socket, request.host, is_tls=any(one.tls for one in injections))
        except TimeoutError:
            late = Refusal(f"no request came within {HEAD_SECONDS:g} s", "limit", HTTPStatus.REQUEST_TIMEOUT)
            await _refuse(inner, request, late)
            raise late from None
        except Refusal as error:
            await _refuse(inner, request, error)
            raise
        try:
            await self._carry(request, inner, outer, record, [(one.header, one.value) for one in injections])
        finally:
            outer[1].transport.abort()
        return True

    def _injected(self, request: Tunnel | Forward) -> tuple[Tunnel | Forward, list[Injection]]:
        """The request as it goes on, and what is added to it."""
        if isinstance(request, Tunnel):
            return request, []
        found = [one for one in self._injections if one.is_for(request.host, request.port)]
        if not found:
            return request, found
        port = found[0].port
        authority = shown_host(request.host) if port in DEFAULT_PORTS else f"{shown_host(request.host)}:{port}"
        return dataclasses.replace(request, port=port, authority=authority), found

    async def _outer(self, connection: socket.socket, host: str, is_tls: bool) -> Streams:
        """Raises `Refusal` when the host does not prove who it is."""
        if not is_tls:
            return await _streams(connection)
        try:
            return await asyncio.open_connection(
                sock=connection,
                limit=CHUNK_BYTES,
                ssl=self._tls(),
                server_hostname=host,
                ssl_handshake_timeout=TLS_SECONDS,
            )
        except (OSError, TimeoutError) as error:
            connection.close()
            raise unreachable(f"{host!r} cannot be spoken to by TLS: {error}") from error

    async def _carry(
        self,
        request: Tunnel | Forward,
        inner: Streams,
        outer: Streams,
        record: Record,
        added: Sequence[tuple[str, str]],
    ) -> None:
        idle = IdleTimer(self._limits.idle_seconds)
        exchange: Exchange | None = None
        try:
            async with idle.watching:
                if isinstance(request, Forward):
                    exchange = Exchange(request, inner, outer, self._meter, record, idle, added)
                    await exchange.run()
                    await _finish(inner[1])
                    return
                inner[1].write(request.accepted)
                gate = HelloGate(request.host)
                await carry(inner, outer, gate, self._meter, record, idle, request.early)
                await _finish(inner[1])
        except (Refusal, OSError, TimeoutError) as error:
            is_unanswered = exchange is not None and not exchange.has_answered
            reason = self._reason(error, is_unanswered)
            if is_unanswered:
                await _refuse(inner, request, reason)
            raise reason from error

    def _reason(self, error: Exception, is_unanswered: bool) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, TimeoutError):
            seconds = self._limits.idle_seconds
            text = f"limit reached: nothing moved on the connection for {seconds:g} s"
            return Refusal(text, "limit", HTTPStatus.GATEWAY_TIMEOUT)
        verdict = "failed" if is_unanswered else "allowed"
        return Refusal(f"the connection broke off: {error}", verdict, HTTPStatus.BAD_GATEWAY)


async def _streams(connection: socket.socket) -> Streams:
    return await asyncio.open_connection(sock=connection, limit=CHUNK_BYTES)


async def _finish(writer: asyncio.StreamWriter) -> None:
    """Lets the last bytes out: an abort would drop them."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _refuse(inner: Streams, request: Tunnel | Forward | None, refusal: Refusal) -> None:
    reader, writer = inner
    is_socks = isinstance(request, Tunnel) and request.is_socks
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            writer.write(socks.refused(refusal) if is_socks else _answer(refusal))
            if writer.can_write_eof():
                writer.write_eof()
            # Closing over unread bytes would be a reset, and the answer lost with it.
            while await reader.read(CHUNK_BYTES):
                pass
    except (OSError, TimeoutError):
        pass


def _answer(refusal: Refusal) -> bytes:
    """The reason also in the status line: of an answer to CONNECT most clients show no more than that."""
    text = refusal.message[:MAX_REASON_CHARACTERS]
    line = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    body = text.encode("utf-8", "replace") + b"\n"
    head = (
        f"HTTP/1.1 {refusal.status.value} {line}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body

"""One HTTP/1.1 connection: writes a request, reads its response. Source: RFC 9112.

The client's calls are many and small, and httpx's own connection pool takes milliseconds of CPU for each when dozens
are in flight; this takes a tenth of that. It knows what a client of one platform needs: no proxies, no HTTP/2, no
upgrades, no pipelining. Errors are httpx's, so that a caller sees one kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, cast

import httpx

MAX_HEAD_BYTES: Final = 64 << 10
"""Status line and headers; what servers commonly allow for requests."""

_NO_BODY: Final = frozenset({204, 304})
_READ_PAUSE_BYTES: Final = 1 << 20  # A streaming reader that is slower than the server stops it here.


class Connection(asyncio.Protocol):
    """Carries one exchange at a time.

    Args:
        on_lost: Called once when the connection is gone, so that nobody takes it up again.
    """

    _transport: asyncio.Transport  # Set by asyncio before anybody gets the connection.

    def __init__(self, on_lost: Callable[[Connection], None]) -> None:
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended: Exception | None = None
        self._eof = False
        self.received: bool = False
        self.requests: int = 0
        self.idle_since: float = 0.0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received = True
        self._buffer += data
        if len(self._buffer) > _READ_PAUSE_BYTES and self._waiter is None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._eof = True
        self._wake()
        return False  # The transport closes itself.

    def connection_lost(self, exc: Exception | None) -> None:
        self._eof = True
        self._ended = exc
        self._wake()
        self._on_lost(self)

    # What the pool calls.

    @property
    def is_usable(self) -> bool:
        """True when another request may be sent: open, and nothing came in that nobody asked for."""
        return not self._eof and not self._buffer and not self._transport.is_closing()

    def close(self) -> None:
        self._clear_timer()
        self._transport.abort()

    async def exchange(self, method: bytes, request: bytes, patience: float | None) -> tuple[ResponseHead, Body]:
        """Sends a request and waits for the head of its response.

        Args:
            method: Decides whether the response has a body.
            request: All of it, head and body.
            patience: Seconds until the head, and then until each next piece of the body; None waits for ever.

        Raises:
            httpx.TransportError: Refused, reset, timed out, or not HTTP.
        """
        self.requests += 1
        self.received = False
        self._transport.write(request)
        while True:
            head = parse_head(await self._take_head(patience))
            if head.status >= 200 or head.status == 101:
                break
        return head, Body(self, self._framing(method, head), patience)

    def _framing(self, method: bytes, head: ResponseHead) -> int | None:
        """Length of the body; None: until the connection closes; -1: chunked. Source: RFC 9112, section 6.3."""
        if method == b"HEAD" or head.status in _NO_BODY:
            return 0
        if head.chunked:
            return -1
        return head.content_length

    # What reads use.

    def take(self, size: int) -> bytes:
        """Takes up to `size` bytes of what is there."""
        taken = bytes(self._buffer[:size]) if size < len(self._buffer) else bytes(self._buffer)
        del self._buffer[: len(taken)]
        if len(self._buffer) <= _READ_PAUSE_BYTES and not self._eof:
            self._transport.resume_reading()
        return taken

    def available(self) -> int:
        return len(self._buffer)

    def find(self, mark: bytes, start: int = 0) -> int:
        return self._buffer.find(mark, start)

    @property
    def at_end(self) -> bool:
        return self._eof

    async def more(self, patience: float | None) -> None:
        """Waits until more arrived, or the other side closed.

        Raises:
            httpx.ReadTimeout: Nothing came in time.
            httpx.ReadError: The connection broke.
        """
        if self._eof:
            if self._ended is not None:
                raise httpx.ReadError(str(self._ended)) from self._ended
            reason = "closed the connection in the middle of a response" if self.received else "sent no response"
            raise httpx.RemoteProtocolError(f"The server {reason}")
        self._transport.resume_reading()
        waiter = self._waiter = self._loop.create_future()
        if patience is not None:
            self._timer = self._loop.call_later(patience, self._expire, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            self._clear_timer()

    async def _take_head(self, patience: float | None) -> bytes:
        searched = 0
        while (end := self._buffer.find(b"\r\n\r\n", searched)) < 0:
            searched = max(0, len(self._buffer) - 3)
            if searched > MAX_HEAD_BYTES:
                raise httpx.RemoteProtocolError(f"The head of the response is larger than {MAX_HEAD_BYTES} bytes")
            await self.more(patience)
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        return head

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expire(self, waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_exception(httpx.ReadTimeout("The server did not answer in time"))

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ResponseHead:
    """Status and headers of a response."""

    __slots__ = ("chunked", "content_length", "headers", "keep_alive", "status")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], *, keep_alive: bool) -> None:
        self.status: int = status
        self.headers: list[tuple[bytes, bytes]] = headers
        self.keep_alive: bool = keep_alive
        self.chunked: bool = False
        self.content_length: int | None = None
        for name, value in headers:
            lowered = name.lower()
            if lowered == b"content-length":
                if not value.isdigit():
                    raise httpx.RemoteProtocolError(f"The server sent the content length {value!r}")
                self.content_length = int(value)
            elif lowered == b"transfer-encoding":
                self.chunked = value.lower().endswith(b"chunked")
            elif lowered == b"connection":
                options = value.lower()
                self.keep_alive = b"keep-alive" in options or (keep_alive and b"close" not in options)
        if self.content_length is None and not self.chunked:
            self.keep_alive = self.keep_alive and status in _NO_BODY


def parse_head(head: bytes) -> ResponseHead:
    """Reads status line and headers.

    Raises:
        httpx.RemoteProtocolError: They are not HTTP/1.
    """
    lines = head.split(b"\r\n")
    status_line = lines[0]
    if status_line[:7] != b"HTTP/1." or not status_line[9:12].isdigit():
        raise httpx.RemoteProtocolError(f"The server did not speak HTTP/1: {status_line[:80]!r}")
    headers: list[tuple[bytes, bytes]] = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise httpx.RemoteProtocolError(f"The server sent the header line {line[:80]!r}")
        headers.append((name, value.strip()))
    return ResponseHead(int(status_line[9:12]), headers, keep_alive=status_line[7:8] == b"1")


class Body(httpx.AsyncByteStream):
    """The body of a response, as it comes in."""

    def __init__(self, connection: Connection, length: int | None, patience: float | None) -> None:
        self._connection = connection
        self._length = length
        self._patience = patience
        self._release: Callable[[bool], None] | None = None
        self.done: bool = False

    def on_release(self, release: Callable[[bool], None]) -> None:
        """Says what to do with the connection at the end: called once, with whether the body was read to its end."""
        self._release = release

    def complete(self) -> bytes | None:
        """The whole body when it is already here, else None and nothing was taken."""
        length = self._length
        if length is None or length < 0 or self._connection.available() < length:
            return None
        self.done = True
        return self._connection.take(length) if length else b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._length is None:
            pieces = self._until_closed()
        elif self._length < 0:
            pieces = self._chunks()
        else:
            pieces = self._counted(self._length)
        async for piece in pieces:
            yield piece
        self.done = True
        await self.aclose()

    async def aclose(self) -> None:
        if self._release is not None:
            release, self._release = self._release, None
            release(self.done)

    async def _counted(self, left: int) -> AsyncIterator[bytes]:
        while left:
            if not self._connection.available():
                await self._connection.more(self._patience)
            piece = self._connection.take(left)
            left -= len(piece)
            if piece:
                yield piece

    async def _until_closed(self) -> AsyncIterator[bytes]:
        while self._connection.available() or not self._connection.at_end:
            if self._connection.available():
                yield self._connection.take(self._connection.available())
            else:
                await self._connection.more(self._patience)

    async def _chunks(self) -> AsyncIterator[bytes]:
        """Source: RFC 9112, section 7.1. Extensions and trailers are read and dropped."""
        while True:
            size_line = (await self._line()).partition(b";")[0].strip()
            try:
                size = int(size_line, 16)
            except ValueError as exc:
                raise httpx.RemoteProtocolError(f"The server sent the chunk size {size_line[:40]!r}") from exc
            if size == 0:
                break
            async for piece in self._counted(size):
                yield piece
            if await self._line():
                raise httpx.RemoteProtocolError("The server sent a chunk longer than its size")
        while await self._line():
            pass

    async def _line(self) -> bytes:
        while (end := self._connection.find(b"\r\n")) < 0:
            if self._connection.available() > MAX_HEAD_BYTES:
                raise httpx.RemoteProtocolError(f"The server sent a line longer than {MAX_HEAD_BYTES} bytes")
            await self._connection.more(self._patience)
        line = self._connection.take(end)
        self._connection.take(2)
        return line

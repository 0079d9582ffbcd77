"""uvicorn's HTTP protocol with a bound on the head of a request, in bytes and in time: by itself it has none.

Without one, a stranger keeps a connection for ever, or has the server gather a header without end, before anything has
asked who he is.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 << 10  # Ours have about 1 KiB; browsers with many cookies send up to 16.
HEAD_SECONDS: Final = 30.0  # From the connection, or the first byte of a further request, to the end of its head.

_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_LATE: Final = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class _HeadTooLarge(Exception):
    """Raised in the parser, which passes it on as one of its own errors."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._is_in_head = False
        self._began_now = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] - as in the base.
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._began_now = False
        super().data_received(data)
        if not self._is_in_head:
            return
        if self._began_now:  # What came before it in these bytes may have been the body of the request before.
            self._head_bytes = 0
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_SECONDS, self._give_up)
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_TOO_LARGE)

    def on_message_begin(self) -> None:
        self._is_in_head = self._began_now = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop_timer()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refuse(_TOO_LARGE)
            raise _HeadTooLarge
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._is_in_head = False
        if not self.transport.is_closing():  # Else it was refused, with its own answer.
            super().send_400_response(msg)

    def _give_up(self) -> None:
        self._head_timer = None
        if self._is_in_head:
            self._refuse(_TOO_LATE)
        elif not self.transport.is_closing():
            self.transport.close()  # It never asked for anything.

    def _refuse(self, answer: bytes) -> None:
        self._is_in_head = False
        self._stop_timer()
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

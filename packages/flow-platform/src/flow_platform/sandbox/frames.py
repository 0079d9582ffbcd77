"""Reads the harness's frames from a container that may be hostile: everything is bounded before it is kept."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from flow_platform.sandbox.base import ProtocolError
from flow_sdk.wire.harness import HEADER, Frame

EVENT_BYTES: Final = 256 << 10
RESULT_ENVELOPE_BYTES: Final = 64 << 10
"""What usage, messages, state or error may take beside the output."""

_STARTED_BYTES: Final = 256
_READ_BYTES: Final = 256 << 10
_UNREAD_FRAMES: Final = 256  # More than that unread by the caller pauses reading.


class FrameReader:
    """The frames of one container, in order: STARTED, any number of EVENT, RESULT."""

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: socket.socket) -> None:
        self._loop = loop
        self._channel = channel
        self._buffer = bytearray()
        self._frames: deque[tuple[Frame, bytes]] = deque()
        self._error: ProtocolError | None = None
        self._reading = False
        self._waiter: asyncio.Future[None] | None = None
        self._events_left = 0
        self._output_bytes = 0
        self._started = False
        self.is_ended = False
        self.dropped_events = 0

    def start(self, events: int, output_bytes: int) -> None:
        self._events_left = events
        self._output_bytes = output_bytes
        self._resume()

    async def frames(self) -> AsyncIterator[tuple[Frame, bytes]]:
        while True:
            while self._frames:
                frame = self._frames.popleft()
                if not self._frames:
                    self._resume()
                yield frame
            if self._error is not None:
                raise self._error
            if self.is_ended:
                return
            self._waiter = self._loop.create_future()
            await self._waiter

    def close(self) -> None:
        self._suspend()
        self.is_ended = True
        self._wake()

    def _on_readable(self) -> None:
        try:
            # Plain recv: descriptors that somebody tries to pass are closed by the kernel.
            data = self._channel.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            if self._buffer and self._error is None:
                self._error = ProtocolError(
                    f"the container closed its socket after {len(self._buffer)} bytes of a frame"
                )
            self.close()
            return
        self._buffer += data
        try:
            while self._take_frame():
                pass
        except ProtocolError as exc:
            self._error = exc
            self.close()
            return
        if self._frames:
            self._wake()
            if len(self._frames) > _UNREAD_FRAMES:
                self._suspend()

    def _take_frame(self) -> bool:
        buffer = self._buffer
        if len(buffer) < HEADER.size:
            return False
        number, length = HEADER.unpack_from(buffer)
        kind = self._check(number, length)
        end = HEADER.size + length
        if len(buffer) < end:
            return False
        body = bytes(memoryview(buffer)[HEADER.size : end])
        del buffer[:end]
        if kind is Frame.EVENT and self._events_left <= 0:
            self.dropped_events += 1
            return True
        if kind is Frame.EVENT:
            self._events_left -= 1
        self._started = self._started or kind is Frame.STARTED
        self._frames.append((kind, body))
        if kind is Frame.RESULT:
            buffer.clear()  # Nothing after the result is heard.
            self.close()
            return False
        return True

    def _check(self, number: int, length: int) -> Frame:
        limits = {
            Frame.STARTED: _STARTED_BYTES,
            Frame.EVENT: EVENT_BYTES,
            Frame.RESULT: self._output_bytes + RESULT_ENVELOPE_BYTES,
        }
        limit = limits.get(number)  # type: ignore[arg-type]
        if limit is None:
            raise ProtocolError(f"frame kind {number!r} is not one that a harness sends: expected 2, 3 or 4")
        kind = Frame(number)
        if kind is Frame.STARTED and self._started:
            raise ProtocolError("a second STARTED frame")
        if length > limit:
            raise ProtocolError(f"a {kind.name} frame of {length} bytes: at most {limit} are allowed")
        return kind

    def _resume(self) -> None:
        if not self._reading and not self.is_ended:
            self._reading = True
            self._loop.add_reader(self._channel.fileno(), self._on_readable)

    def _suspend(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._channel.fileno())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

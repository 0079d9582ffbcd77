"""Reads what a container writes to stdout and stderr, without letting it hurt the runner.

Kept bytes are bounded by `Limits.log_bytes`. What exceeds them is thrown away inside the kernel and counted, at a
bounded rate: a flood costs the runner next to nothing, and the component does not hang on a full pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from flow_platform.sandbox.base import LogChunk

_CHUNK_BYTES: Final = 64 << 10
_UNREAD_BYTES: Final = 256 << 10  # More than that unread by the caller pauses reading.
_DISCARD_PAUSE_SECONDS: Final = 0.01
_DISCARD_PIPE_BYTES: Final = 1 << 20  # What a pipe holds once it is discarded: 100 MB/s, so that printing never waits.


class LogReader:
    """Both streams of one container."""

    def __init__(self, loop: asyncio.AbstractEventLoop, out: int, err: int) -> None:
        self._loop = loop
        self._streams = {out: "stdout", err: "stderr"}
        self._left = 0
        self._dropped = 0
        self._limit = 0
        self._chunks: deque[LogChunk] = deque()
        self._unread = 0
        self._paused = False
        self._reading: set[int] = set()
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._nothing = -1
        self._widened: set[int] = set()

    def start(self, limit: int) -> None:
        self._limit = self._left = limit
        for descriptor in self._streams:
            self._resume(descriptor)

    async def chunks(self, last_words: Callable[[], str]) -> AsyncIterator[LogChunk]:
        """Until both streams are closed.

        Args:
            last_words: Gives a final line about what else was dropped; empty for none.
        """
        while True:
            while self._chunks:
                yield self._take()
            if not self._streams:
                break
            self._waiter = self._loop.create_future()
            await self._waiter
        words = self.dropped_line() + last_words()
        if words:
            yield LogChunk("stderr", words.encode())

    def drain(self) -> list[LogChunk]:
        """What is there now, without waiting."""
        for descriptor in list(self._streams):
            while self._left > 0 and descriptor in self._streams and self._read(descriptor):
                pass
            if descriptor in self._streams:
                self._discard(descriptor)
        drained = list(self._chunks)
        self._chunks.clear()
        self._unread = 0
        return drained

    def dropped_line(self) -> str:
        if not self._dropped:
            return ""
        return f"[flow] {self._dropped} more bytes of log were dropped: the limit log_bytes is {self._limit}\n"

    def close(self) -> None:
        """Once no writer is left: keeps what is still in the pipes for `chunks`."""
        for descriptor in list(self._streams):
            while self._left > 0 and self._read(descriptor):
                pass
            if descriptor in self._streams:
                self._discard(descriptor)
            if descriptor in self._streams:
                self._finish(descriptor)
        if self._nothing >= 0:
            os.close(self._nothing)
            self._nothing = -1
        self._wake()

    def _take(self) -> LogChunk:
        chunk = self._chunks.popleft()
        self._unread -= len(chunk.data)
        if self._paused and self._unread < _UNREAD_BYTES // 2:
            self._paused = False
            for descriptor in self._streams:
                self._resume(descriptor)
        return chunk

    def _on_readable(self, descriptor: int) -> None:
        if self._left > 0:
            self._read(descriptor)
            if self._unread > _UNREAD_BYTES:
                self._paused = True
                for other in self._streams:
                    self._suspend(other)
        else:
            self._widen(descriptor)
            self._discard(descriptor)

    def _widen(self, descriptor: int) -> None:
        if descriptor not in self._widened:
            self._widened.add(descriptor)
            with contextlib.suppress(OSError):  # The user has too many wide pipes; the narrow one does.
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _DISCARD_PIPE_BYTES)

    def _read(self, descriptor: int) -> bool:
        """Takes one chunk; False when there was none."""
        try:
            data = os.read(descriptor, min(_CHUNK_BYTES, self._left))
        except BlockingIOError:
            return False
        if not data:
            self._finish(descriptor)
            return False
        self._left -= len(data)
        self._unread += len(data)
        self._chunks.append(LogChunk(self._streams[descriptor], data))
        self._wake()
        return True

    def _discard(self, descriptor: int) -> None:
        if self._nothing < 0:
            self._nothing = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        try:
            count = os.splice(descriptor, self._nothing, _DISCARD_PIPE_BYTES)
        except BlockingIOError:
            return
        if count == 0:
            self._finish(descriptor)
            return
        self._dropped += count
        self._suspend(descriptor)
        self._timers[descriptor] = self._loop.call_later(_DISCARD_PAUSE_SECONDS, self._resume, descriptor)

    def _resume(self, descriptor: int) -> None:
        if descriptor in self._streams and descriptor not in self._reading and not self._paused:
            self._reading.add(descriptor)
            self._loop.add_reader(descriptor, self._on_readable, descriptor)

    def _suspend(self, descriptor: int) -> None:
        if descriptor in self._reading:
            self._reading.discard(descriptor)
            self._loop.remove_reader(descriptor)

    def _finish(self, descriptor: int) -> None:
        self._suspend(descriptor)
        timer = self._timers.pop(descriptor, None)
        if timer is not None:
            timer.cancel()
        del self._streams[descriptor]
        os.close(descriptor)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

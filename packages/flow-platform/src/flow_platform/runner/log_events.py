"""Reads a container's stdout and stderr and publishes them as `log` events.

Reading never waits for publishing: what is written while an event is on its way shares the next one. So the first line
is seen at once, a chatty loop gives few events, and a component that prints much is held up by nothing but the pipe.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Final

from flow_platform.runner.logs import MAX_EVENT_CHARACTERS, LogLines
from flow_platform.runner.publisher import Publisher
from flow_platform.sandbox.base import Container, LogChunk

logger = logging.getLogger(__name__)

LOG_EVENT: Final = "log"
PAUSE_SECONDS: Final = 0.05  # After an event, unless the next is full: a loop that dribbles gives 20 events/s.
MAX_PENDING_CHARACTERS: Final = 1 << 20  # Read and not yet on the bus. Beyond it, a bus that is away stops reading.
MAX_LOG_EVENTS: Final = 5_000  # Per attempt; a component that dribbles single letters must not fill the database.
MARKER_BYTES: Final = 1 << 10  # The sandbox bounds the log and says so in a last line; ours is the second bound.
THREAD_FROM_BYTES: Final = 8 << 10  # A redaction of that much would hold up the other attempts.
END_SECONDS: Final = 0.5  # For the rest of the pipe, once the container ended.


class LogEvents:
    """Starts to read at once; `finish` publishes what is left."""

    def __init__(self, container: Container, publisher: Publisher, limit_bytes: int) -> None:
        self._container = container
        self._publisher = publisher
        self._lines = LogLines(limit_bytes + MARKER_BYTES, publisher.redactor)
        self._order = asyncio.Lock()
        self._using_lines = asyncio.Lock()
        self._events = 0
        self._is_full = asyncio.Event()  # There is enough for an event that waits for no more lines.
        self._has_lines = asyncio.Event()
        self._has_room = asyncio.Event()
        self._publishing: asyncio.Task[None] | None = None  # Most components print nothing, and need none.
        self._reading = _start(self._read(), "read-logs")

    async def finish(self, rest: Iterable[LogChunk] = (), *, at_end: bool = False) -> None:
        """Publishes everything that was written so far; afterwards nothing more.

        Args:
            rest: What the container's pipe still held.
            at_end: The container ended: its pipe is read to the end first.
        """
        if at_end:
            await asyncio.wait([self._reading], timeout=END_SECONDS)
        for chunk in rest:
            await self._feed(chunk)
        async with self._using_lines:
            self._lines.finish()
        await self._flush()
        # Neither is waited for: one waits for bytes, the other pauses; the answer need not.
        self._reading.cancel()
        if self._publishing is not None:
            self._publishing.cancel()

    async def _read(self) -> None:
        async for chunk in self._container.logs():
            await self._feed(chunk)
            if not self._lines.pending_characters:
                continue
            self._has_lines.set()
            if self._publishing is None:
                self._publishing = _start(self._publish(), "publish-logs")
            if self._lines.pending_characters >= MAX_EVENT_CHARACTERS:
                self._is_full.set()
            if self._lines.pending_characters >= MAX_PENDING_CHARACTERS:
                self._has_room.clear()
                await self._has_room.wait()

    async def _feed(self, chunk: LogChunk) -> None:
        async with self._using_lines:
            if self._publisher.redactor is None or len(chunk.data) < THREAD_FROM_BYTES:
                self._lines.feed(chunk)
            else:
                await asyncio.to_thread(self._lines.feed, chunk)

    async def _publish(self) -> None:
        while True:
            await self._has_lines.wait()
            await self._flush()
            try:
                async with asyncio.timeout(PAUSE_SECONDS):
                    await self._is_full.wait()
            except TimeoutError:
                pass

    async def _flush(self) -> None:
        async with self._order:
            async with self._using_lines:
                texts = self._lines.take()
            self._has_lines.clear()
            self._is_full.clear()
            self._has_room.set()
            left = MAX_LOG_EVENTS - self._events
            self._events += len(texts)
            if left > 0 and len(texts) >= left:
                marker = f"[log truncated: more than {MAX_LOG_EVENTS} log events]"
                texts[left - 1 :] = [(texts[left - 1][0], marker)]
            if left > 0:
                await self._publisher.events(LOG_EVENT, [{"stream": stream, "text": text} for stream, text in texts])


def _start(work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_report)
    return task


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("a container's log could not be read or published", exc_info=error)

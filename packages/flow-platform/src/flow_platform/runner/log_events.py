"""Reads a container's stdout and stderr and publishes them as `log` events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from flow_platform.runner.logs import LogLines
from flow_platform.runner.publisher import Publisher
from flow_platform.sandbox.base import Container, LogChunk

logger = logging.getLogger(__name__)

LOG_EVENT: Final = "log"
PAUSE_SECONDS: Final = 0.05  # Between two events: a chatty loop gives 20 events/s with many lines, not one per line.
MAX_LOG_EVENTS: Final = 5_000  # Per attempt; a component that dribbles single letters must not fill the database.
MARKER_BYTES: Final = 1 << 10  # The sandbox bounds the log and says so in a last line; ours is the second bound.
END_SECONDS: Final = 0.5  # For the rest of the pipe, once the container ended.


class LogEvents:
    """Starts to read at once; `finish` publishes what is left."""

    def __init__(self, container: Container, publisher: Publisher, limit_bytes: int) -> None:
        self._container = container
        self._publisher = publisher
        self._lines = LogLines(limit_bytes + MARKER_BYTES)
        self._order = asyncio.Lock()
        self._events = 0
        self._task = asyncio.create_task(self._read(), name="logs")
        self._task.add_done_callback(_report)

    async def finish(self, rest: Iterable[LogChunk] = (), *, at_end: bool = False) -> None:
        """Publishes everything that was written so far; afterwards nothing more.

        Args:
            rest: What the container's pipe still held.
            at_end: The container ended: its pipe is read to the end first.
        """
        if at_end:
            await asyncio.wait([self._task], timeout=END_SECONDS)
        for chunk in rest:
            self._lines.feed(chunk)
        self._lines.finish()
        await self._flush()
        self._task.cancel()  # Not waited for: it waits for bytes, or pauses; the answer need not.

    async def _read(self) -> None:
        async for chunk in self._container.logs():
            self._lines.feed(chunk)
            if self._events < MAX_LOG_EVENTS:
                await self._flush()
                await asyncio.sleep(PAUSE_SECONDS)

    async def _flush(self) -> None:
        async with self._order:
            for stream, text in self._lines.take():
                self._events += 1
                if self._events < MAX_LOG_EVENTS:
                    await self._publisher.event(LOG_EVENT, {"stream": stream, "text": text})
                elif self._events == MAX_LOG_EVENTS:
                    marker = f"[log truncated: more than {MAX_LOG_EVENTS} log events]"
                    await self._publisher.event(LOG_EVENT, {"stream": stream, "text": marker})


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("a container's log could not be read", exc_info=error)

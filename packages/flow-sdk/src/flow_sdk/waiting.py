"""Waiting for the end of an execution: held reads where the server holds, a pause between reads where it does not."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from flow_sdk.errors import PlatformConnectionError, PlatformNotFoundError
from flow_sdk.retry import Deadline
from flow_sdk.wire.status import TERMINAL_STATUSES

HOLD_SECONDS: Final = 20
"""Below the half minute after which proxies give up on a silent answer."""

MAX_HELD_READS: Final = 256
"""Each held read occupies a connection. Beyond this, waiters take turns with shorter holds."""

MIN_READ_SECONDS: Final = 1.0
"""At least one read happens, also for a caller with less time left; it gets this long."""

ReadStatus = Callable[[Deadline, int], Awaitable[dict[str, Any]]]
"""Reads a status document: by when at the latest, and how long the server may hold the answer."""


class Waiting:
    """All waiting of one client."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(MAX_HELD_READS)
        self._waiters = 0

    async def until_terminal(
        self, read: ReadStatus, deadline: Deadline, poll_interval_seconds: float, not_found_seconds: float
    ) -> dict[str, Any]:
        """Reads the status until it is terminal, and returns that document.

        Args:
            read: Reads it once, with its own retries.
            deadline: When to give up.
            poll_interval_seconds: The pause between reads that were not held.
            not_found_seconds: For how long "not found" is tolerated.

        Raises:
            TimeoutError: The deadline came first.
            PlatformNotFoundError: There was no such execution for longer than tolerated.
            PlatformClientError: A read failed.
        """
        tolerance = Deadline.after(not_found_seconds)
        must_read = True
        self._waiters += 1
        try:
            while must_read or deadline.remaining() > 0:
                asked_at = time.monotonic()
                # The read that must happen may outlast the deadline, so its hold must not; any other ends there anyway.
                remaining = deadline.remaining()
                hold = min(self._longest_hold(), math.floor(remaining) if must_read else math.ceil(remaining))
                until = Deadline(max(deadline.at, asked_at + MIN_READ_SECONDS)) if must_read else deadline
                must_read = False
                try:
                    document = await self._read(read, until, hold)
                except PlatformNotFoundError:
                    if tolerance.remaining() <= 0:
                        raise
                    await asyncio.sleep(min(poll_interval_seconds, tolerance.remaining()))
                    must_read = True  # Only a read after the tolerance raises it.
                    continue
                except PlatformConnectionError as exc:
                    if deadline.remaining() > 0:
                        raise
                    raise TimeoutError from exc
                if str(document.get("status", "")).lower() in TERMINAL_STATUSES:
                    return document
                if hold and not _was_held(time.monotonic() - asked_at, hold, poll_interval_seconds):
                    await asyncio.sleep(min(poll_interval_seconds, deadline.remaining()))
        finally:
            self._waiters -= 1
        raise TimeoutError

    async def _read(self, read: ReadStatus, until: Deadline, hold: int) -> dict[str, Any]:
        try:
            async with asyncio.timeout(until.remaining() if self._turns.locked() else None):
                await self._turns.acquire()
        except TimeoutError as exc:
            raise PlatformConnectionError("no turn to read the status came in time") from exc
        try:
            return await read(until, hold)
        finally:
            self._turns.release()

    def _longest_hold(self) -> int:
        """Seconds. The more wait, the shorter, so that each gets its turn soon."""
        if self._waiters > MAX_HELD_READS:
            return 2
        return 5 if self._waiters > MAX_HELD_READS // 2 else HOLD_SECONDS


def _was_held(elapsed: float, hold: int, poll_interval_seconds: float) -> bool:
    """Whether the server held the answer; then the next read may follow at once.

    A server that holds for less than it was asked to counts as holding from one second on. The pause between reads is
    the lower bound in any case: no answer makes the client ask more often than the caller wants.
    """
    return elapsed >= max(min(hold, 1.0) * 0.9, poll_interval_seconds)

"""A meter that loses no call to a store that is away or full for a while: what it does not take now, it gets later."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.model_call import ModelCall
from flow_platform.gateway.ports import Meter

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
"""Calls that wait to be recorded: about 10 MB. A store that is away takes no further calls anyway: each reads first."""

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0


class PatientMeter:
    """Implements `Meter`.

    Args:
        meter: Records; of a call that it has already it says so by a Conflict.
        first_pause_seconds: Before the first repetition; the pauses double.
    """

    def __init__(self, meter: Meter, first_pause_seconds: float = FIRST_PAUSE_SECONDS) -> None:
        self._meter = meter
        self._first_pause = first_pause_seconds
        self._waiting: deque[ModelCall] = deque()
        self._repeating: asyncio.Task[None] | None = None

    async def record(self, call: ModelCall) -> None:
        """Returns when the call is recorded, or waits to be.

        Raises:
            StoreUnavailable: Too many wait already.
        """
        try:
            await self._meter.record(call)
        except errors.StoreUnavailable as error:
            if len(self._waiting) >= MAX_WAITING:
                raise
            logger.warning("a model call is recorded later: %s", error, extra={"model_call_id": call.id})
            self._waiting.append(call)
            if self._repeating is None or self._repeating.done():
                self._repeating = asyncio.create_task(self._repeat(), name="record model calls")

    async def close(self) -> None:
        """Tries once more; what is not recorded then is in the log."""
        if self._repeating is not None:
            self._repeating.cancel()
            await asyncio.gather(self._repeating, return_exceptions=True)
        for call in list(self._waiting):
            try:
                await self._recorded(call)
            except errors.StoreUnavailable:
                logger.exception("a model call could not be recorded", extra={**vars(call)})
        self._waiting.clear()

    async def _repeat(self) -> None:
        pause = self._first_pause
        while self._waiting:
            await asyncio.sleep(pause)
            try:
                while self._waiting:
                    # Taken out when it is recorded: a cancel in between leaves it for `close`.
                    await self._recorded(self._waiting[0])
                    self._waiting.popleft()
                pause = self._first_pause
            except errors.StoreUnavailable:
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _recorded(self, call: ModelCall) -> None:
        try:
            await self._meter.record(call)
        except errors.Conflict:
            pass  # The write before was done, though its answer was lost.
        except errors.StoreUnavailable:
            raise
        except Exception:
            # It would be the same the next time, and keep all behind it from being recorded.
            logger.exception("a model call could not be recorded", extra={**vars(call)})

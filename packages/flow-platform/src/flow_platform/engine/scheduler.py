"""Fires schedules when they are due: sleeps until the next instant, is woken by edits and by ends that runs wait for.

Several engines over one database each do this; see `firings` for why a run starts once all the same.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Iterable
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock, Entropy, system_entropy
from flow_platform.domain.execution import Execution
from flow_platform.engine.cancel import CancelNotices
from flow_platform.engine.claims import Claims
from flow_platform.engine.ends import Ends
from flow_platform.engine.firings import CannotStart, DecideAndFire, Fired, error_document, postpone
from flow_platform.engine.grants import Grant, Grants
from flow_platform.engine.stages import Stages
from flow_platform.engine.wakeups import WORK, Wakeups
from flow_platform.store.base import Store
from flow_platform.store.failures import RowConflict

logger = logging.getLogger(__name__)

SCHEDULES: Final = "schedules"
"""Wake-up key: a schedule was made or changed."""

BATCH: Final = 200  # Schedules looked at together; at midnight there may be many.
MAX_BLOCKERS: Final = 1_000  # Executions whose end is listened for; those beyond are found by the safety net.
LOOK_AGAIN_SECONDS: Final = 30.0  # The safety net: wake-ups may be lost, and the wall clock be set.
PAUSE_SECONDS: Final = 0.05  # At least, so that a schedule that another engine holds is not asked for without end.
RETRY_SECONDS: Final = 1.0


class Scheduler:
    def __init__(
        self,
        store: Store,
        clock: Clock,
        wakeups: Wakeups,
        stages: Stages,
        claims: Claims,
        grants: Grants,
        notices: CancelNotices,
        ends: Ends,
        entropy: Entropy = system_entropy,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._stages = stages
        self._claims = claims
        self._grants = grants
        self._notices = notices
        self._ends = ends
        self._entropy = entropy

    async def run(self) -> None:
        """Fires until cancelled."""
        while True:
            try:
                blockers = await self._store.read(lambda tx: tx.schedules.blockers(MAX_BLOCKERS))
                with self._wakeups.subscribe(SCHEDULES, *blockers) as waiter:
                    if not await self.look():
                        await waiter.wait(await self._seconds_to_next())
            except errors.FlowError as error:
                logger.warning("could not look at the schedules: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def look(self) -> bool:
        """Fires what is due, up to `BATCH` schedules. True when there may be more to do at once.

        Raises:
            FlowError: That of one schedule, after all were looked at.
        """
        now = self._clock.now()
        ids = await self._store.read(lambda tx: [*tx.schedules.due(now, BATCH), *tx.schedules.freed(BATCH)])
        each = (self.fire(schedule_id) for schedule_id in dict.fromkeys(ids))
        done = await asyncio.gather(*each, return_exceptions=True)
        for one in done:
            if isinstance(one, BaseException):
                raise one
        return any(isinstance(one, Fired) and one.firings for one in done)

    async def fire(self, schedule_id: str) -> Fired:
        """Decides one schedule now and does what was decided; returns that.

        Raises:
            StoreUnavailable: Nothing was done.
        """
        try:
            return await self._fire(schedule_id)
        except (errors.StoreUnavailable, RowConflict):
            raise
        except Exception as error:
            # A time zone that is not known any more, or a fault of ours: it must not keep the others from their times.
            logger.exception("could not decide a schedule", extra={"schedule_id": schedule_id})
            document = error_document(error)
            return await self._store.write(lambda tx: postpone(tx, schedule_id, document, self._clock.now()))

    def accepted(self, executions: Iterable[Execution], started: float, granted: list[Grant]) -> None:
        """Hands on what a committed transaction, begun at the instant `started`, accepted and granted."""
        for execution in executions:
            self._stages.accepted(execution.id, started)
        self._claims.deliver(granted)
        self._wakeups.notify_others([WORK])

    async def _fire(self, schedule_id: str) -> Fired:
        started = self._stages.now()
        operation = DecideAndFire(schedule_id, self._clock.now(), self._entropy, self._ends, self._grants)
        try:
            fired = await self._store.write(operation)
        except CannotStart as cannot:
            logger.warning("a schedule cannot start: %s", cannot, extra={"schedule_id": schedule_id})
            fired = await self._store.write(dataclasses.replace(operation, failed=cannot))
        if fired.started:
            self.accepted(fired.started, started, fired.granted)
        self._notices.send(fired.cancelled)
        return fired

    async def _seconds_to_next(self) -> float:
        next_due_at = await self._store.read(lambda tx: tx.schedules.next_due_at())
        if next_due_at is None:
            return LOOK_AGAIN_SECONDS
        seconds = (next_due_at - self._clock.now()).total_seconds()
        return min(max(seconds, PAUSE_SECONDS), LOOK_AGAIN_SECONDS)

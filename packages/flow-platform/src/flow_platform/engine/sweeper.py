"""The safety net: every non-terminal execution has a due time, and whatever is due is acted upon here.

Nothing depends on the sweeper for speed, everything depends on it for an end: deadlines, lost leases, cancels whose
runner stays silent. Leases run out only after one lease time in which heartbeats could be heard: not at once after the
process started, nor after NATS was away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain import execution as domain
from flow_platform.domain.clock import Clock
from flow_platform.domain.execution import Execution
from flow_platform.engine import outcome
from flow_platform.engine.cancel import Cancelled, CancelNotices, cancel_children
from flow_platform.engine.ends import Changes, Ends
from flow_platform.engine.heartbeats import end_attempt, lose
from flow_platform.engine.rollout_watch import failure_keys
from flow_platform.engine.turns import MATURE_BATCH
from flow_platform.engine.wakeups import WORK, Wakeups
from flow_platform.store.base import Store, Transaction
from flow_sdk.wire.status import Status

logger = logging.getLogger(__name__)

BATCH: Final = 200  # Rows per transaction, so that a backlog of due rows does not hold up submits.
INTERVAL_SECONDS: Final = 0.5
IDEMPOTENCY_RETENTION: Final = timedelta(days=2)  # Longer than any client retries one request.
HOUSEKEEPING_EVERY: Final = 600  # Sweeps.


@dataclass
class _Swept:
    changed: list[Execution] = field(default_factory=list[Execution])
    stopped: list[Execution] = field(default_factory=list[Execution])  # As they were: still with their holder.
    cancelled: Cancelled = field(default_factory=Cancelled)
    matured: int = 0
    touched: set[str] = field(default_factory=set[str])

    def add(self, changes: Changes) -> None:
        self.changed += changes.executions
        self.touched.update(execution.id for execution in changes.executions)

    def add_cancelled(self, cancelled: Cancelled) -> None:
        self.cancelled.add(cancelled)
        for executions in (cancelled.ended, cancelled.ending, cancelled.woken):
            self.touched.update(execution.id for execution in executions)


class Sweeper:
    def __init__(self, store: Store, clock: Clock, wakeups: Wakeups, notices: CancelNotices, ends: Ends) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._notices = notices
        self._ends = ends

    async def run(self, grace: timedelta, can_hear: Callable[[], bool]) -> None:
        """Sweeps until cancelled.

        Args:
            grace: How long leases count as held, heartbeat or not, since heartbeats can be heard.
            can_hear: Whether heartbeats can be heard now.
        """
        loop = asyncio.get_running_loop()
        leases_from = loop.time() + grace.total_seconds()
        sweeps = 0
        while True:
            if not can_hear():
                leases_from = loop.time() + grace.total_seconds()
            try:
                more = await self.sweep(leases=loop.time() >= leases_from)
                sweeps += 1
                if sweeps % HOUSEKEEPING_EVERY == 0:
                    await self._keep_house()
            except errors.FlowError as error:  # Conflicts with other engines, too: the next sweep looks again.
                logger.warning("could not sweep: %s", error)
                more = False
            await asyncio.sleep(0 if more else INTERVAL_SECONDS)

    async def sweep(self, *, leases: bool = True) -> bool:
        """Acts on one batch of what is due. True when there may be more."""
        swept = await self._store.write(lambda tx: self._sweep(tx, leases))
        self._notices.stop_containers(swept.stopped, "timeout")
        self._notices.send(swept.cancelled)
        if swept.changed or swept.matured:
            ids = [execution.id for execution in swept.changed]
            self._wakeups.notify([*ids, *failure_keys(swept.changed), WORK])
        return len(swept.changed) >= BATCH or swept.matured >= MATURE_BATCH

    def _sweep(self, tx: Transaction, leases: bool) -> _Swept:
        now = self._clock.now()
        # Claims do it as well, but only when they have a free slot: many that are due at once would hide others.
        swept = _Swept(matured=tx.executions.mature(now, MATURE_BATCH))
        for execution in tx.executions.due(now, BATCH):
            if execution.id in swept.touched:
                continue  # Cancelled with its parent, or woken by its child; the next sweep sees it as it is then.
            if execution.deadline_at <= now and execution.status is not Status.CANCELLING:
                self._time_out(tx, execution, swept)
            elif execution.status is Status.WAITING:
                swept.add(self._ends.wake(tx, execution, now))
            elif not leases:
                continue
            elif execution.status is Status.CANCELLING:
                after = domain.apply(execution, domain.CancelCompleted(now))
                swept.add(self._ends.change(tx, execution, after, now))
                end_attempt(tx, execution, execution.error, now)
            elif execution.status is Status.RUNNING:
                swept.add(lose(tx, self._ends, execution, now))
            if len(swept.changed) >= BATCH:
                break  # A graph that begins starts many; the rest is for the next transaction.
        return swept

    def _time_out(self, tx: Transaction, execution: Execution, swept: _Swept) -> None:
        now = self._clock.now()
        after = domain.apply(execution, domain.DeadlineReached(now, outcome.timeout_error(execution)))
        swept.add(self._ends.change(tx, execution, after, now))
        if execution.lease_holder:
            end_attempt(tx, execution, after.error, now)
            swept.stopped.append(execution)
        if execution.live_children:
            reason = f"the deadline of its parent {after.id}"
            swept.add_cancelled(cancel_children(tx, self._ends, after, reason, now))

    async def _keep_house(self) -> None:
        before = self._clock.now() - IDEMPOTENCY_RETENTION
        await self._store.write(lambda tx: tx.executions.delete_idempotent_before(before, BATCH))

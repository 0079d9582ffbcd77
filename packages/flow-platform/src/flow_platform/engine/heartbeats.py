"""Runners: who they are, which leases they keep, and what they must be told."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime

from flow_platform.domain import execution as domain
from flow_platform.domain.clock import Clock
from flow_platform.domain.execution import Execution
from flow_platform.engine import outcome
from flow_platform.engine.ends import Changes, Ends
from flow_platform.engine.grants import Grants, Leasing
from flow_platform.engine.wakeups import WORK, Wakeups
from flow_platform.store.base import Attempt, Store, Transaction
from flow_sdk.wire.runner import Heartbeat, HeartbeatReply, Register, Registered
from flow_sdk.wire.status import Status

logger = logging.getLogger(__name__)


@dataclass
class _Verdicts:
    cancel: list[str] = field(default_factory=list[str])
    lost: list[str] = field(default_factory=list[str])
    recorded: list[str] = field(default_factory=list[str])


class Heartbeats:
    def __init__(
        self, store: Store, clock: Clock, wakeups: Wakeups, grants: Grants, ends: Ends, leasing: Leasing
    ) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._grants = grants
        self._ends = ends
        self._leasing = leasing

    async def register(self, request: Register) -> Registered:
        """Notes a runner's start; what an earlier instance of the same runner held is lost at once, not by expiry."""
        self._grants.forget_earlier(request.runner_id, request.instance)  # First: then nothing more is leased to them.
        given_up = await self._store.write(lambda tx: self._register(tx, request))
        if given_up:
            logger.warning("a runner came back without its executions", extra={"executions": len(given_up)})
        self._wakeups.notify([execution.id for execution in given_up] + [WORK])
        return Registered(
            lease_seconds=self._leasing.lease.total_seconds(),
            heartbeat_seconds=self._leasing.heartbeat.total_seconds(),
            hold_seconds=self._leasing.hold.total_seconds(),
        )

    async def heartbeat(self, request: Heartbeat) -> HeartbeatReply:
        """Extends what the runner still holds and says what it does not."""
        verdicts = await self._store.write(lambda tx: self._extend(tx, request))
        if verdicts is None:
            return HeartbeatReply(error="unknown_runner")
        return HeartbeatReply(cancel=verdicts.cancel, lost=verdicts.lost, recorded=verdicts.recorded)

    def _register(self, tx: Transaction, request: Register) -> list[Execution]:
        now = self._clock.now()
        tx.runners.register(request.runner_id, request.instance, request.slots, now)
        abandoned = tx.executions.leased_to(request.runner_id, request.instance)
        return [changed for execution in abandoned for changed in lose(tx, self._ends, execution, now).executions]

    def _extend(self, tx: Transaction, request: Heartbeat) -> _Verdicts | None:
        now = self._clock.now()
        if not tx.runners.seen(request.runner_id, request.instance, now, request.completed):
            return None
        leases = [(lease.execution_id, lease.lease_epoch) for lease in request.leases]
        kept = tx.executions.extend(request.runner_id, request.instance, leases, now + self._leasing.lease)
        verdicts = _Verdicts()
        for lease in request.leases:
            if lease.execution_id in kept:
                execution = tx.executions.find(lease.execution_id)
                if execution and execution.status is Status.CANCELLING:
                    verdicts.cancel.append(lease.execution_id)
            elif lease.reported:
                verdicts.recorded.append(lease.execution_id)
            else:
                verdicts.lost.append(lease.execution_id)
        return verdicts


def lose(tx: Transaction, ends: Ends, execution: Execution, now: datetime) -> Changes:
    """Takes a lease away whose holder is gone: the execution is queued again, ends, or is a dead letter."""
    error = outcome.lost_error(execution)
    after = domain.apply(execution, domain.decide_loss(execution, error, now))
    changes = ends.change(tx, execution, after, now)
    tx.executions.record_attempt(
        Attempt(
            execution_id=execution.id,
            number=execution.attempt,
            lease_epoch=execution.lease_epoch,
            runner_id=execution.lease_holder or "",
            started_at=execution.started_at or now,
            finished_at=now,
            error=error,
        )
    )
    return changes

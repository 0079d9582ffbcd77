"""Runners: who they are, which leases they keep, and what they must be told."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.domain import execution as domain
from flow_platform.domain.clock import Clock
from flow_platform.domain.credential import digest_of_keys
from flow_platform.domain.execution import Execution
from flow_platform.engine import outcome
from flow_platform.engine.cancel import cancel_children
from flow_platform.engine.ends import Changes, Ends
from flow_platform.engine.grants import Grants, Leasing
from flow_platform.engine.replay import forgiven
from flow_platform.engine.wakeups import WORK, Wakeups
from flow_platform.store.base import Attempt, Store, Transaction
from flow_sdk.wire import subjects
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.runner import Heartbeat, HeartbeatReply, Register, Registered
from flow_sdk.wire.status import Status

logger = logging.getLogger(__name__)

ALIVE_SECONDS: Final = 2.0  # For a runner that is asked whether it lives; of one that is gone we hear at once.

Ask = Callable[[str, bytes, float], Awaitable[bytes]]
"""Sends a request over NATS and gives the answer, or raises `BusUnavailable`, at once if nobody listens."""


@dataclass
class _Verdicts:
    cancel: list[str] = field(default_factory=list[str])
    lost: list[str] = field(default_factory=list[str])
    recorded: list[str] = field(default_factory=list[str])


class Heartbeats:
    def __init__(
        self,
        store: Store,
        clock: Clock,
        wakeups: Wakeups,
        grants: Grants,
        ends: Ends,
        leasing: Leasing,
        ask: Ask,
        key_set: Callable[[], dict[str, Any]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._grants = grants
        self._ends = ends
        self._leasing = leasing
        self._ask = ask
        self._key_set = key_set

    async def register(self, request: Register) -> Registered:
        """Notes a runner's start; what an earlier instance of the same runner held is lost at once, not by expiry.

        Unless the earlier one lives: two that took turns would throw each other out for ever, so the second is refused.
        """
        registered = (await self._store.read(lambda tx: tx.runners.find(request.runner_id))).instance
        if registered not in ("", request.instance) and await self._is_alive(request.runner_id, registered):
            logger.warning("refused a second process of a runner", extra={"runner_id": request.runner_id})
            return self._registered("runner_id_taken")
        self._grants.forget_earlier(request.runner_id, request.instance)  # First: then nothing more is leased to them.
        given_up = await self._store.write(lambda tx: self._register(tx, request))
        if given_up:
            logger.warning("a runner came back without its executions", extra={"executions": len(given_up)})
        self._wakeups.notify([execution.id for execution in given_up] + [WORK])
        return self._registered()

    def _registered(self, error: str = "") -> Registered:
        return Registered(
            lease_seconds=self._leasing.lease.total_seconds(),
            heartbeat_seconds=self._leasing.heartbeat.total_seconds(),
            hold_seconds=self._leasing.hold.total_seconds(),
            keys=self._key_set(),
            error=error,
        )

    async def _is_alive(self, runner_id: str, instance: str) -> bool:
        """Asked for at that moment: a heartbeat of some seconds ago says nothing about a process that was killed."""
        try:
            await self._ask(subjects.runner_alive(runner_id, instance), b"", ALIVE_SECONDS)
        except errors.BusUnavailable:
            return False
        return True

    async def heartbeat(self, request: Heartbeat) -> HeartbeatReply:
        """Extends what the runner still holds and says what it does not."""
        verdicts = await self._store.write(lambda tx: self._extend(tx, request))
        if verdicts is None:
            return HeartbeatReply(error="unknown_runner")
        keys = self._key_set()
        others = keys if request.keys != digest_of_keys(keys) else None
        return HeartbeatReply(cancel=verdicts.cancel, lost=verdicts.lost, recorded=verdicts.recorded, keys=others)

    def _register(self, tx: Transaction, request: Register) -> list[Execution]:
        now = self._clock.now()
        offered = [rung for rung in Isolation if rung in request.capabilities]
        tx.runners.register(request.runner_id, request.instance, request.slots, now, offered)
        changed: list[Execution] = []
        for abandoned in tx.executions.leased_to(request.runner_id, request.instance):
            # As it is now: it may have been cancelled with a parent that was lost before it in this loop.
            execution = tx.executions.find(abandoned.id)
            if execution is not None and execution.lease_holder is not None:
                changed += lose(tx, self._ends, execution, now).executions
        return changed

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
    """Takes a lease away whose holder is gone: the execution is queued again, ends, or is a dead letter.

    What is cancelled with a dead letter is among the changes; runners are told of it by the answer to their heartbeat.
    """
    error = outcome.lost_error(execution)
    lost = forgiven(tx, execution)
    after = domain.apply(lost, domain.decide_loss(lost, error, now))
    changes = ends.change(tx, execution, after, now)
    end_attempt(tx, execution, error, now)
    if after.status.is_terminal:
        cancelled = cancel_children(tx, ends, after, f"the end of its parent {after.id}", now)
        changes.executions += cancelled.ended + cancelled.ending + cancelled.woken
    return changes


def end_attempt(tx: Transaction, execution: Execution, error: ErrorDocument | None, now: datetime) -> None:
    """Notes that the attempt of an execution with a lease has ended, of which its runner did not tell."""
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

"""Ending executions on request: the whole tree below, in one transaction; runners are told after the commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from flow_platform.domain import execution as domain
from flow_platform.domain.execution import Execution
from flow_platform.engine import repetition
from flow_platform.engine.ends import Ends
from flow_platform.engine.outcome import cancel_error
from flow_platform.engine.wakeups import WORK, Wakeups
from flow_platform.store.base import Transaction
from flow_sdk.wire import subjects
from flow_sdk.wire.runner import CancelNotice
from flow_sdk.wire.status import Status

logger = logging.getLogger(__name__)

CASCADING: Final = frozenset({Status.FAILED, Status.DEAD_LETTER, Status.TIMEOUT, Status.CANCELLED})
"""Ends that take the children with them: nobody is left who waits for those. What a completed parent started and did
not await goes on: it could have waited, and chose not to."""

Publish = Callable[[str, bytes], None]
"""Sends a core NATS message without waiting. It may get lost: the heartbeat's answer says the same."""


@dataclass
class Cancelled:
    """What a transaction ended: `ended` reached a terminal status, `ending` still have a container, `woken` waited."""

    ended: list[Execution] = field(default_factory=list[Execution])
    ending: list[Execution] = field(default_factory=list[Execution])
    woken: list[Execution] = field(default_factory=list[Execution])

    def add(self, other: Cancelled) -> None:
        self.ended += other.ended
        self.ending += other.ending
        self.woken += other.woken


def cancel_tree(tx: Transaction, ends: Ends, root: Execution, by: str, now: datetime) -> Cancelled:
    """Requests the cancellation of an execution and of every live one below it."""
    result = Cancelled()
    pending = [root]
    while pending:
        execution = pending.pop()
        # In this order: once the row is changed, no other engine adds a child that would be missed here.
        _request_cancel(tx, ends, execution, by, now, result)
        pending.extend(_below(tx, execution))
    return result


def cancel_children(tx: Transaction, ends: Ends, parent: Execution, by: str, now: datetime) -> Cancelled:
    """The same for everything below an execution that itself has ended, if its end is one of `CASCADING`."""
    result = Cancelled()
    if parent.status not in CASCADING:
        return result
    for child in _below(tx, parent):
        result.add(cancel_tree(tx, ends, child, by, now))
    return result


def _below(tx: Transaction, execution: Execution) -> list[Execution]:
    children = tx.executions.live_children(execution.id)
    return children + repetition.joined_children(tx, execution) if execution.retry_of_id else children


def _request_cancel(
    tx: Transaction, ends: Ends, execution: Execution, by: str, now: datetime, result: Cancelled
) -> None:
    if domain.CancelRequested not in domain.TRANSITIONS[execution.status]:
        return  # Terminal, or already cancelling: nothing to change.
    after = domain.apply(execution, domain.CancelRequested(now, cancel_error(execution, by)))
    result.woken += ends.change(tx, execution, after, now).executions[1:]
    (result.ended if after.status is Status.CANCELLED else result.ending).append(after)


class CancelNotices:
    """Tells runners and waiters after the commit."""

    def __init__(self, publish: Publish, wakeups: Wakeups) -> None:
        self._publish = publish
        self._wakeups = wakeups

    def send(self, cancelled: Cancelled) -> None:
        self.stop_containers(cancelled.ending, "cancelled")
        changed = cancelled.ended + cancelled.ending + cancelled.woken
        if changed:
            self._wakeups.notify([execution.id for execution in changed] + [WORK])

    def stop_containers(self, executions: Iterable[Execution], reason: str) -> None:
        """Tells the runners of these executions (as they were while leased) to end their containers."""
        for execution in executions:
            if execution.lease_holder is None:
                continue
            notice = CancelNotice(execution_id=execution.id, lease_epoch=execution.lease_epoch, reason=reason)
            self._publish(subjects.runner_cancel(execution.lease_holder), notice.model_dump_json().encode())
            logger.info("told the runner to end a container", extra={"execution_id": execution.id, "reason": reason})

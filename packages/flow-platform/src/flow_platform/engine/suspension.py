"""Giving a container back: a workflow's attempt ends because the workflow only waits.

The harness says so with the code `suspended`, and names what the workflow waits for. If any of it is there by now, or
nothing of it is the workflow's own, the workflow is queued again at once; nothing that happens between the container's
end and the record of it is missed, as both are decided in one transaction.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from flow_platform.domain import execution as domain
from flow_platform.domain.checkpoint import awaited_by
from flow_platform.domain.execution import Execution
from flow_platform.engine.replay import tell_mismatch
from flow_platform.store.base import Transaction
from flow_sdk.wire.durable import SUSPENDED
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.status import Kind, Status

MAX_ATTEMPTS: Final = 10_000
"""Of one execution, resumptions included: one that only pretends to wait must come to an end."""

SUSPENDING: Final = frozenset({Kind.WORKFLOW, Kind.AGENT})


def is_asked_for(execution: Execution, error: ErrorDocument) -> bool:
    """Whether the attempt ended to give its container back. What was cancelled meanwhile just ends."""
    return error.code == SUSPENDED and execution.status is Status.RUNNING and execution.kind in SUSPENDING


def objection(tx: Transaction, execution: Execution, asked: ErrorDocument, now: datetime) -> str | None:
    """Why a workflow keeps its container, which asks before it ends itself; None: it may.

    Code that did not make the same calls when it was run again shall not be run again more often than it must: what it
    did not repeat is told now, as nothing of it can come any more while the code only waits.
    """
    if execution.kind not in SUSPENDING:
        return f"a {execution.kind.value} keeps its container"
    if execution.attempt > 1 and tell_mismatch(tx, execution, now):
        return "it did not make the same calls again; see its event 'replay_mismatch'"
    if not isinstance(event_for(tx, execution, asked, now), domain.Suspended):
        return "something that it waits for is there"
    return None


def event_for(tx: Transaction, execution: Execution, error: ErrorDocument, now: datetime) -> domain.Event:
    """The event that the end of the attempt is."""
    if execution.attempt >= MAX_ATTEMPTS:
        message = f"it gave its container back {execution.attempt} times; at most {MAX_ATTEMPTS} are allowed"
        return domain.ExecutionFailed(now, ErrorDocument(code="too_many_attempts", message=message, retryable=False))
    waits, wake_at = False, None
    awaited = awaited_by(error)
    for execution_id in awaited.execution_ids:
        child = tx.executions.find(execution_id)
        if child is None or not _is_awaited(tx, execution, child):
            continue
        if child.status.is_terminal:
            return domain.AttemptReturned(now, error)
        waits = True
    for checkpoint_id in awaited.checkpoint_ids:
        checkpoint = tx.checkpoints.find(checkpoint_id)
        if checkpoint is None or checkpoint.execution_id != execution.id:
            continue
        if not checkpoint.is_open(now):
            return domain.AttemptReturned(now, error)
        waits = True
        if checkpoint.due_at is not None:
            wake_at = min(checkpoint.due_at, wake_at or checkpoint.due_at)
    return domain.Suspended(now, wake_at) if waits else domain.AttemptReturned(now, error)


def _is_awaited(tx: Transaction, execution: Execution, other: Execution) -> bool:
    """Whether its end wakes the execution: a child, or one that it joined when it repeated another."""
    return other.parent_id == execution.id or tx.executions.joined(execution.id, other.id)

"""Waits that the code gave up: a coroutine that was cancelled while it waited for an event or an approval.

Such a wait gets nothing any more, and what was on its way to it is given back, so that it goes to the next wait. When a
later attempt runs the same code, it comes to the same wait before it gives up again: then it is opened again.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime

from flow_platform.domain.checkpoint import Checkpoint
from flow_platform.domain.execution import Execution
from flow_platform.engine import sent_events
from flow_platform.store.base import Transaction
from flow_sdk.wire.durable import CheckpointKind, CheckpointStatus


def withdraw(tx: Transaction, execution: Execution, checkpoint: Checkpoint, now: datetime) -> list[Checkpoint]:
    """Closes a wait of the running attempt. Returns it as it is now, then the waits that have its event instead."""
    if checkpoint.execution_id != execution.id:
        return [checkpoint]  # Of the execution that this one repeats: an answer, which was given already.
    had_event = checkpoint.kind is CheckpointKind.EVENT and checkpoint.status is CheckpointStatus.DONE
    if not checkpoint.is_open(now) and not (had_event and not _was_seen(tx, checkpoint)):
        return [checkpoint]
    withdrawn = dataclasses.replace(checkpoint, status=CheckpointStatus.WITHDRAWN, value=None, finished_at=now)
    if not tx.checkpoints.change(withdrawn, checkpoint.status):
        return [tx.checkpoints.find(checkpoint.id) or checkpoint]
    if not had_event:
        return [withdrawn]
    tx.checkpoints.give_back(execution.id, checkpoint.id)
    return [withdrawn, *_deliver_to_others(tx, withdrawn, now)]


def reopen(tx: Transaction, checkpoint: Checkpoint, now: datetime) -> Checkpoint:
    """Opens a wait again that an earlier attempt gave up; an event that nobody read is its own."""
    opened = dataclasses.replace(checkpoint, status=CheckpointStatus.OPEN, finished_at=None)
    tx.checkpoints.change(opened, CheckpointStatus.WITHDRAWN)
    if opened.kind is not CheckpointKind.EVENT or not opened.is_open(now):
        return opened
    return sent_events.deliver_waiting(tx, opened, now)


def _was_seen(tx: Transaction, checkpoint: Checkpoint) -> bool:
    """Whether an attempt before this one may have worked with the event."""
    ended = tx.executions.attempts(checkpoint.execution_id)
    came_at = checkpoint.finished_at
    return came_at is not None and any(one.finished_at and one.finished_at >= came_at for one in ended)


def _deliver_to_others(tx: Transaction, withdrawn: Checkpoint, now: datetime) -> list[Checkpoint]:
    delivered: list[Checkpoint] = []
    for other in tx.checkpoints.open(withdrawn.execution_id, withdrawn.name):
        if other.kind is not CheckpointKind.EVENT or not other.is_open(now):
            continue
        given = sent_events.deliver_waiting(tx, other, now)
        if given.is_open(now):
            break  # Nothing is left.
        delivered.append(given)
    return delivered

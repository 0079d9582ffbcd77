"""Gives the calls of a new attempt what an earlier attempt's calls were given. Inside the calling transaction.

Source: the platform specification, section 4. What is compared, and why it needs no help of the client, says
`domain/replay.py`.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, Final

from flow_platform.domain.checkpoint import Checkpoint
from flow_platform.domain.component import Component
from flow_platform.domain.execution import Execution
from flow_platform.domain.replay import INTERRUPTED, Call, stands
from flow_platform.engine import repetition
from flow_platform.store.base import NewEvent, Payload, Transaction
from flow_sdk.wire.durable import CheckpointRequest, CheckpointStatus
from flow_sdk.wire.replay import call_key, checkpoint_key, content_of

_MISMATCH: Final = "replay_mismatch"


class _Replay:
    """One call of a running execution: of a component, or for a checkpoint."""

    def __init__(self, tx: Transaction, parent: Execution, key: str, what: str) -> None:
        self._tx = tx
        self._executions = tx.executions
        self._parent = parent
        self._what = what
        self._key = key
        self._earlier: Call | None = None
        self._occurrence = 0
        self._is_numbered = False

    def _number(self, occurrence: int) -> None:
        """Takes the client's word for how many equal calls came before."""
        self._earlier = self._executions.find_call(self._parent.id, self._key, occurrence)
        self._occurrence, self._is_numbered = occurrence, True

    def _count(self) -> None:
        """Counts the equal calls that came before."""
        parent, key = self._parent, self._key
        self._occurrence = self._executions.count_equal_calls(parent.id, parent.attempt, key)
        found = self._executions.find_call(parent.id, key, self._occurrence)
        self._earlier, self._is_numbered = found, False
        # The first attempt of an execution that repeats another has calls of that one.
        is_first = found is None and parent.attempt == 1 and parent.retry_of_id is None
        if is_first or (found is not None and found.attempt != parent.attempt and not found.is_numbered):
            return
        # Others of this attempt are numbered. Those belong to the harness, which may have been given them already; but
        # an attempt that numbers nothing, on an older runner, makes them all.
        free = self._executions.free_equal_call(parent.id, parent.attempt, key)
        if free is not None and free.is_numbered and self._executions.numbers_calls(parent.id, parent.attempt):
            free = None
        if free is None:
            last = self._executions.last_equal_call(parent.id, key)
            self._occurrence = 0 if last is None else last + 1
        else:
            self._occurrence = free.occurrence
        self._earlier = free

    def _end_of_earlier_attempt(self, earlier: Call) -> str:
        return self._executions.attempt_error(self._parent.id, earlier.attempt) or ""

    def _again(self, earlier: Call) -> None:
        again = dataclasses.replace(earlier, attempt=self._parent.attempt, is_numbered=self._is_numbered)
        self._executions.make_call_again(again)

    def _remember(self, execution_id: str | None, checkpoint_id: str | None) -> None:
        attempt = self._parent.attempt
        if self._earlier is not None:
            self._again(dataclasses.replace(self._earlier, execution_id=execution_id, checkpoint_id=checkpoint_id))
            return
        self._executions.insert_call(
            Call(
                parent_id=self._parent.id,
                key=self._key,
                occurrence=self._occurrence,
                ordinal=self._executions.count_calls(self._parent.id) + 1,
                first_attempt=attempt,
                attempt=attempt,
                execution_id=execution_id,
                component=self._what,
                checkpoint_id=checkpoint_id,
                is_numbered=self._is_numbered,
            )
        )


class ChildReplay(_Replay):
    """A call of a component.

    Args:
        occurrence: How many equal calls the attempt made before, as the client says; one that is taken is not believed.

    Attributes:
        repeated: The child that the new one goes on for: it ended without a result, below what the parent repeats.
    """

    repeated: Execution | None = None

    def __init__(
        self,
        tx: Transaction,
        parent: Execution,
        component: Component,
        payload: Payload,
        occurrence: int | None = None,
    ) -> None:
        content = content_of(payload.input_data, payload.config, payload.messages, payload.state)
        key = call_key(component.kind.value, component.id, content)
        super().__init__(tx, parent, key, f"{component.kind.value} {component.slug!r}")
        if occurrence is not None:
            self._number(occurrence)
        if occurrence is None or (self._earlier is not None and self._earlier.attempt == parent.attempt):
            self._count()

    def earlier_execution(self) -> Execution | None:
        """The child of an earlier attempt that stands for this call: finished, or still running and then joined."""
        earlier = self._earlier
        if earlier is None or earlier.execution_id is None:
            return None
        child = self._executions.find(earlier.execution_id)
        if child is None:
            return None
        if not stands(child.status, self._end_of_earlier_attempt(earlier)):
            child = repetition.newest(self._tx, child)  # It may have been retried by hand before its parent was.
            if not stands(child.status, ""):
                is_inherited = earlier.attempt == 0 and child.status.is_terminal
                self.repeated = child if is_inherited else None
                return None
        if not child.status.is_terminal:
            self._join(earlier, child)
        self._again(dataclasses.replace(earlier, execution_id=child.id))
        return child

    def _join(self, earlier: Call, child: Execution) -> None:
        """Counts an unfinished child of another execution, once, as if it was the parent's own."""
        if child.parent_id == self._parent.id or (earlier.attempt > 0 and earlier.execution_id == child.id):
            return
        # Locked: of its end at this moment in another process we hear either now or from there.
        self._executions.find(child.id, for_update=True)
        self._executions.adopt_child(self._parent.id)

    def remember(self, child: Execution) -> None:
        """Notes a call that was really made."""
        self._remember(child.id, None)


class CheckpointReplay(_Replay):
    """A call for a checkpoint."""

    def __init__(self, tx: Transaction, parent: Execution, request: CheckpointRequest) -> None:
        key = checkpoint_key(request.kind.value, request.name, request.seconds)
        super().__init__(tx, parent, key, f"{request.kind.value} {request.name!r}")
        if request.occurrence is None:
            self._count()
        else:
            self._number(request.occurrence)

    def earlier_checkpoint(self, now: datetime) -> Checkpoint | None:
        """The one that an earlier attempt asked for. A step that failed stands like a child that failed."""
        earlier = self._earlier
        if earlier is None or earlier.checkpoint_id is None:
            return None
        found = self._tx.checkpoints.find(earlier.checkpoint_id)
        if found is None or not self._stands(found, earlier, now):
            return None
        self._again(earlier)
        return found

    @property
    def is_sent_again(self) -> bool:
        """Whether this attempt asked for it before."""
        return self._earlier is not None and self._earlier.attempt == self._parent.attempt

    def remember(self, checkpoint: Checkpoint) -> None:
        self._remember(None, checkpoint.id)

    def _stands(self, checkpoint: Checkpoint, earlier: Call, now: datetime) -> bool:
        if checkpoint.execution_id == self._parent.id and self.is_sent_again:
            return True
        return checkpoint_stands(self._parent, checkpoint, self._end_of_earlier_attempt(earlier), now)


def checkpoint_stands(parent: Execution, checkpoint: Checkpoint, earlier_attempt_error: str, now: datetime) -> bool:
    """Whether a checkpoint is given again, by how the attempt ended that asked for it last."""
    if checkpoint.execution_id != parent.id:
        # Of the execution that this one repeats: nobody finishes it any more, and what failed is tried again.
        return checkpoint.status_at(now) is CheckpointStatus.DONE
    return checkpoint.stands or earlier_attempt_error in INTERRUPTED


def tell_mismatch(tx: Transaction, parent: Execution, now: datetime) -> bool:
    """Notes once, as an event, that an attempt did not make the calls of the earlier ones. Whether it ever did not."""
    if tx.executions.has_event(parent.id, _MISMATCH):
        return True
    data = mismatch(tx, parent)
    if data is not None:
        event = NewEvent(parent.id, parent.attempt, "replay_mismatch", data, now, _MISMATCH)
        tx.executions.append_events([event])
    return data is not None


def mismatch(tx: Transaction, parent: Execution) -> dict[str, Any] | None:
    """What an ended attempt did not call that an earlier one had called, and what it called instead.

    Said at the end and not refused on the way: calls that are made side by side may come in any order, so while an
    attempt runs, a missing call may still come. None if nothing was called instead: then it just did not come so far.
    """
    expected = tx.executions.first_unmade_call(parent.id, parent.attempt, _last_failure(tx, parent))
    came = tx.executions.first_new_call(parent.id, parent.attempt) if expected else None
    if expected is None:
        return None
    instead = f"it called {_which(came, expected)} instead" if came else "it called nothing instead"
    lost = f"attempt {parent.attempt} did not repeat call {expected.ordinal} to {expected.component}"
    return {
        "expected": _told(expected),
        "came": came and _told(came),
        "message": f"{lost}; {instead}. Code that is run again must make the same calls: "
        "it must not depend on time, randomness or other state",
    }


def forgiven(tx: Transaction, lost: Execution) -> Execution:
    """The execution whose attempt is lost, without the losses before that it got beyond.

    What is bounded are losses at one place, which may be the code's doing. A workflow of weeks outlives any number of
    machines, as long as each attempt makes calls that none made before; but not by calling at random.
    """
    if not lost.losses or lost.attempt <= 1 or tx.executions.first_new_call(lost.id, lost.attempt) is None:
        return lost
    return lost if mismatch(tx, lost) else dataclasses.replace(lost, losses=0)


def _last_failure(tx: Transaction, parent: Execution) -> int:
    """The last earlier attempt that failed, 0 for none: what failed was made again, so the code may go another way."""
    if not parent.failures:
        return 0
    earlier = (attempt for attempt in tx.executions.attempts(parent.id) if attempt.number < parent.attempt)
    failed = [attempt.number for attempt in earlier if attempt.error and attempt.error.code not in INTERRUPTED]
    return max(failed, default=0)


def _which(came: Call, expected: Call) -> str:
    """What came, and what is different about it: not always the component."""
    how = "" if came.component != expected.component else " once more"
    if how and came.key != expected.key:
        how = " with other arguments"
    return f"{came.component}{how} (call {came.ordinal} on record)"


def _told(call: Call) -> dict[str, Any]:
    return {"call": call.ordinal, "component": call.component, "execution_id": call.execution_id}

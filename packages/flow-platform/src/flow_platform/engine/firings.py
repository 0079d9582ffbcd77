"""Deciding a schedule and doing what was decided: one transaction, with the executions that it starts.

So a crash repeats or loses nothing: either the firing is recorded, its execution accepted and the schedule's next
instant stored, or none of it. Of several engines that find a schedule due, one gets its row and the others find it
decided; the key of the firing is unique besides.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.clock import Entropy
from flow_platform.domain.execution import Execution
from flow_platform.domain.firing import Cause, Firing, FiringStatus
from flow_platform.domain.schedule import Cancel, Skip, Start, Wait, decide, decided_until, next_due_at
from flow_platform.engine.accept import Submission, accept
from flow_platform.engine.audited import submitter_named
from flow_platform.engine.budgets import admit
from flow_platform.engine.cancel import Cancelled, cancel_tree
from flow_platform.engine.ends import Ends
from flow_platform.engine.grants import Grant, Grants
from flow_platform.engine.releases import find_ring
from flow_platform.store.base import Transaction
from flow_platform.store.failures import RowConflict
from flow_platform.store.schedule_table import StoredSchedule
from flow_sdk.wire.execution import ErrorDocument

POSTPONE: Final = timedelta(minutes=10)
"""When a schedule that could not be decided is tried again; runs within its catch-up window are made up for then."""


@dataclass
class Fired:
    """What a transaction did. `firings`: those recorded, with what became of them."""

    firings: list[Firing] = field(default_factory=list[Firing])
    started: list[Execution] = field(default_factory=list[Execution])
    cancelled: Cancelled = field(default_factory=Cancelled)
    granted: list[Grant] = field(default_factory=list[Grant])


class CannotStart(Exception):
    """No execution could be accepted for a run. `key`: the run's."""

    def __init__(self, key: str, error: ErrorDocument) -> None:
        super().__init__(error.message)
        self.key = key
        self.error = error


@dataclass(frozen=True)
class DecideAndFire:
    """The transaction for one schedule. Called again from the start when the store has to repeat it.

    Attributes:
        failed: The run that cannot be started, as the transaction before this one found out: it is recorded so.
    """

    schedule_id: str
    now: datetime
    entropy: Entropy
    ends: Ends
    grants: Grants
    failed: CannotStart | None = None

    def __call__(self, tx: Transaction) -> Fired:
        """Raises CannotStart: nothing was changed."""
        schedule = tx.schedules.acquire(self.schedule_id)
        fired = Fired()
        if schedule is None:
            return fired
        running = tx.schedules.running(schedule.id)
        waiting = tx.schedules.waiting(schedule.id)
        actions = decide(
            schedule.plan, schedule.last_fired_at, running, self.now, waiting.scheduled_at if waiting else None
        )
        fails = self.failed is not None and any(
            isinstance(action, Start) and action.key == self.failed.key for action in actions
        )
        for action in actions:
            match action:
                case Start():
                    schedule = self._start(tx, schedule, action, waiting, fired, fails=fails)
                case Wait():
                    schedule = self._record(tx, schedule, action, FiringStatus.WAITING, fired)
                case Skip():
                    schedule = record_skip(tx, schedule, action, self.now, fired)
                case Cancel() if not fails:  # Else the earlier one is all there is.
                    self._cancel(tx, schedule, action, fired)
                case Cancel():
                    continue
        last_fired_at = decided_until(actions, schedule.last_fired_at)
        tx.schedules.update(
            dataclasses.replace(schedule, last_fired_at=last_fired_at, due_at=next_due_at(schedule.plan, last_fired_at))
        )
        if fired.started:
            fired.granted = self.grants.grant_waiting(tx)
        return fired

    def _start(
        self,
        tx: Transaction,
        schedule: StoredSchedule,
        action: Start,
        waiting: Firing | None,
        fired: Fired,
        *,
        fails: bool,
    ) -> StoredSchedule:
        error = self.failed.error if fails and self.failed else None
        execution = None if error else self._accept(tx, schedule, action.key)
        status = FiringStatus.FAILED if execution is None else FiringStatus.STARTED
        execution_id = execution.id if execution else None
        if execution is not None:
            fired.started.append(execution)
        if waiting is None or waiting.key != action.key:
            return self._record(tx, schedule, action, status, fired, execution_id=execution_id, error=error)
        done = dataclasses.replace(waiting, status=status, decided_at=self.now, execution_id=execution_id, error=error)
        tx.schedules.finish_waiting(done)
        fired.firings.append(done)
        return schedule

    def _accept(self, tx: Transaction, schedule: StoredSchedule, key: str) -> Execution:
        try:
            return accept_run(tx, schedule, now=self.now, entropy=self.entropy)
        except (errors.StoreUnavailable, RowConflict):
            raise  # The run can start: only not now, or not in this transaction.
        except errors.FlowError as error:
            raise CannotStart(key, error_document(error)) from error

    def _record(
        self,
        tx: Transaction,
        schedule: StoredSchedule,
        action: Start | Wait,
        status: FiringStatus,
        fired: Fired,
        *,
        execution_id: str | None = None,
        error: ErrorDocument | None = None,
    ) -> StoredSchedule:
        firing = Firing(
            schedule_id=schedule.id,
            number=schedule.firings + 1,
            cause=Cause.SCHEDULE,
            scheduled_at=action.scheduled_at,
            decided_at=self.now,
            status=status,
            key=action.key,
            execution_id=execution_id,
            error=error,
        )
        return _insert(tx, schedule, firing, fired)

    def _cancel(self, tx: Transaction, schedule: StoredSchedule, action: Cancel, fired: Fired) -> None:
        for execution_id in action.executions:
            execution = tx.executions.find(execution_id, for_update=True)
            if execution is not None and not execution.status.is_terminal:
                by = f"schedule {schedule.id}, whose next run was due"
                fired.cancelled.add(cancel_tree(tx, self.ends, execution, by, self.now))


def accept_run(tx: Transaction, schedule: StoredSchedule, *, now: datetime, entropy: Entropy) -> Execution:
    """Accepts an execution for one run, as a submit would.

    Raises:
        NotFound, Conflict, RateLimited, BudgetExhausted: As a submit.
    """
    plan = schedule.plan
    org_id, workspace_id = schedule.org_id, schedule.workspace_id
    component = tx.catalog.find_component(org_id, workspace_id, schedule.kind, plan.component_id)
    if component is None:
        raise errors.NotFound(f"{schedule.kind.value} {plan.component_id!r} not found")
    ring = find_ring(tx, org_id, workspace_id, plan.ring_id)
    submission = Submission(
        kind=schedule.kind,
        component=component.id,
        input_data=plan.input_data,
        config=schedule.config,
        ring_id=ring.id,
        timeout_seconds=schedule.timeout_seconds,
        is_timeout_instead=True,
        submitted_by=submitter_named(f"schedule {schedule.id}", "schedule"),
    )
    admit(tx, org_id, workspace_id, now)
    return accept(tx, submission, component, ring, None, now=now, entropy=entropy)


def record_trigger(tx: Transaction, schedule: StoredSchedule, execution: Execution, key: str, now: datetime) -> Firing:
    """Records a run that somebody asked for."""
    firing = Firing(
        schedule_id=schedule.id,
        number=schedule.firings + 1,
        cause=Cause.TRIGGER,
        scheduled_at=now,
        decided_at=now,
        status=FiringStatus.STARTED,
        key=key,
        execution_id=execution.id,
    )
    tx.schedules.update(_insert(tx, schedule, firing, Fired()))
    return firing


def record_skip(
    tx: Transaction, schedule: StoredSchedule, skip: Skip, now: datetime, fired: Fired | None = None
) -> StoredSchedule:
    """Records runs that were left out together; returns the schedule with one more firing."""
    firing = Firing(
        schedule_id=schedule.id,
        number=schedule.firings + 1,
        cause=Cause.SCHEDULE,
        scheduled_at=schedule.plan.next_after(skip.after) or skip.until,
        decided_at=now,
        status=FiringStatus.SKIPPED,
        until=skip.until,
        reason=skip.reason,
    )
    return _insert(tx, schedule, firing, fired or Fired())


def postpone(tx: Transaction, schedule_id: str, error: ErrorDocument, now: datetime) -> Fired:
    """Records that a schedule could not even be decided; it is tried again later."""
    schedule = tx.schedules.acquire(schedule_id)
    if schedule is None:
        return Fired()
    if waiting := tx.schedules.waiting(schedule.id):  # Else it would be asked for again at once.
        failed = dataclasses.replace(waiting, status=FiringStatus.FAILED, decided_at=now, error=error)
        tx.schedules.finish_waiting(failed)
    firing = Firing(
        schedule_id=schedule.id,
        number=schedule.firings + 1,
        cause=Cause.SCHEDULE,
        scheduled_at=min(schedule.due_at or now, now),
        decided_at=now,
        status=FiringStatus.FAILED,
        error=error,
    )
    fired = Fired()
    schedule = _insert(tx, schedule, firing, fired)
    tx.schedules.update(dataclasses.replace(schedule, due_at=now + POSTPONE))
    return fired


def error_document(error: Exception) -> ErrorDocument:
    """What is recorded of it."""
    if not isinstance(error, errors.FlowError):
        return ErrorDocument(code=errors.FlowError.code, message=f"the schedule could not be decided: {error!r}")
    message = f"{error.message} (hint: {error.hint})" if error.hint else error.message
    return ErrorDocument(code=error.error_code, message=message, details=error.details, retryable=False)


def _insert(tx: Transaction, schedule: StoredSchedule, firing: Firing, fired: Fired) -> StoredSchedule:
    tx.schedules.insert_firing(firing)
    fired.firings.append(firing)
    return dataclasses.replace(schedule, firings=firing.number)

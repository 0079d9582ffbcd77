"""The life of an execution: one total transition table, and the rules that choose the event.

Everything that changes an execution's status is an event applied by `apply`. The table names, for each status, the
events that are allowed and where they lead; whatever is not in it is refused and changes nothing. The engine first
decides *which* event happened (`decide_failure`, `decide_loss`: does a retry still help?), then applies it. The same
two steps serve live traffic, the sweeper and recovery after a crash.

    queued ──AttemptStarted──▶ running ──AttemptSucceeded──▶ completed
       ▲                         │  ├──ExecutionFailed─────▶ failed
       ├──AttemptRetried─────────┤  ├──AttemptsExhausted───▶ dead_letter
       ├──AttemptReturned────────┘  ├──DeadlineReached─────▶ timeout
       │                            ├──CancelRequested─────▶ cancelling ──CancelCompleted──▶ cancelled
       └──Resumed── waiting ◀───────┴──Suspended

A graph workflow never runs: it waits from its first to its last step, and ends from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from flow_platform.domain import errors
from flow_sdk.wire.execution import ErrorDocument, MetricsDocument
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.status import Kind, Status

LOST_ATTEMPTS_ALLOWED: Final = 3
"""How often a container or runner may die under an execution before it is a dead letter, retry policy or not."""

CANCEL_GRACE: Final = timedelta(seconds=10)
"""A cancelling execution whose runner stays silent this long is cancelled by the sweeper; its lease is void by then."""


@dataclass(frozen=True)
class RetryPolicy:
    """When a failed attempt is repeated. The default: never; only lost attempts are.

    Source: Temporal's retry policy, whose names and meaning these are. Intervals are seconds.
    """

    max_attempts: int = 1
    initial_interval_seconds: float = 1.0
    backoff_coefficient: float = 2.0
    maximum_interval_seconds: float = 100.0
    non_retryable_errors: tuple[str, ...] = ()

    def delay(self, failures: int) -> timedelta:
        """The pause before the attempt that follows the given number of failures (1 or more).

        Never longer than the maximum, never shorter than the pause before.
        """
        try:
            seconds = self.initial_interval_seconds * max(self.backoff_coefficient, 1.0) ** (failures - 1)
        except OverflowError:
            seconds = self.maximum_interval_seconds
        return timedelta(seconds=min(seconds, self.maximum_interval_seconds))

    def allows(self, error: ErrorDocument, failures: int) -> bool:
        named = error.type in self.non_retryable_errors or error.code in self.non_retryable_errors
        return error.retryable and not named and failures < self.max_attempts


@dataclass(frozen=True)
class Execution:
    """One durable run of one version of a component. The record, not the payloads.

    Attributes:
        lease_epoch: Grows by one with each attempt that is handed out; a report with an older one is refused.
        attempt: Number of the current or last attempt; 0 before the first.
        failures: Attempts that ended in an error of the component. Bounded by the retry policy.
        losses: Attempts whose container or runner died. Bounded by `LOST_ATTEMPTS_ALLOWED`.
        available_at: Not handed out before (back-off, delayed start); while it waits: when it is woken at the latest.
        due_at: When the sweeper looks at it; set for every non-terminal status. See `due`.
        live_children: Children not terminal. While positive, the execution lends its runner slot to them.
        priority: Higher first among queued executions.
        limit_keys: What its limits are counted by; see `domain.limits`.
        retry_of_id: The execution that this one repeats by hand; its calls are replayed.
        submitted_by: Who asked for it, with which request and from where, as JSON; None below another execution.
        retried_as_id: The execution that repeats this one.
        isolation: What it runs in; decided when it was accepted.
    """

    id: str
    org_id: str
    workspace_id: str
    kind: Kind
    component_id: str
    component_slug: str
    component_name: str
    version_id: str
    version: int
    deployment_id: str | None
    ring_id: str | None
    root_id: str
    created_at: datetime
    deadline_at: datetime
    timeout_seconds: float
    parent_id: str | None = None
    depth: int = 0
    lifecycle_event: str = "workflow"
    billing_transaction_id: str | None = None
    parent_billing_transaction_id: str | None = None
    session_id: str | None = None
    priority: int = 0
    retry: RetryPolicy = RetryPolicy()
    status: Status = Status.QUEUED
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    lease_epoch: int = 0
    lease_holder: str | None = None
    lease_instance: str | None = None
    lease_expires_at: datetime | None = None
    available_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    live_children: int = 0
    error: ErrorDocument | None = None
    metrics: MetricsDocument = field(default_factory=MetricsDocument)
    limit_keys: tuple[str, ...] = ()
    retry_of_id: str | None = None
    retried_as_id: str | None = None
    submitted_by: str | None = None
    isolation: Isolation = Isolation.NAMESPACES

    @property
    def is_graph(self) -> bool:
        """Whether the engine itself takes it from step to step: what waits and was never handed out is a graph."""
        return self.status is Status.WAITING and self.attempt == 0

    @property
    def max_attempts(self) -> int:
        """The bound on attempts, failed and lost ones together. Those that were suspended or handed back are free."""
        return max(self.retry.max_attempts, LOST_ATTEMPTS_ALLOWED)

    @property
    def start_at(self) -> datetime:
        """When it was to start: as soon as it was accepted, or later on request. The deadline counts from it."""
        return max(self.created_at, self.deadline_at - timedelta(seconds=self.timeout_seconds))

    @property
    def due_at(self) -> datetime | None:
        """When the engine must act if nothing else happens; None only for terminal statuses."""
        match self.status:
            case Status.QUEUED:
                return self.deadline_at
            case Status.WAITING:
                return min(self.deadline_at, self.available_at or self.deadline_at)
            case Status.RUNNING:
                return min(self.deadline_at, self.lease_expires_at or self.deadline_at)
            case Status.CANCELLING:
                return self.lease_expires_at or self.deadline_at
            case _:
                return None


# Events: what happened. Past tense; each carries the instant, and what the new state needs.


@dataclass(frozen=True)
class Event:
    at: datetime


@dataclass(frozen=True)
class AttemptStarted(Event):
    holder: str
    instance: str
    lease_expires_at: datetime


@dataclass(frozen=True)
class AttemptSucceeded(Event):
    metrics: MetricsDocument = field(default_factory=MetricsDocument)


@dataclass(frozen=True)
class AttemptRetried(Event):
    error: ErrorDocument
    available_at: datetime
    lost: bool


@dataclass(frozen=True)
class AttemptReturned(Event):
    """A runner that stops handed the execution back: nobody's fault, so it counts for nothing."""

    error: ErrorDocument


@dataclass(frozen=True)
class ExecutionFailed(Event):
    error: ErrorDocument
    metrics: MetricsDocument = field(default_factory=MetricsDocument)


@dataclass(frozen=True)
class AttemptsExhausted(Event):
    error: ErrorDocument
    lost: bool
    metrics: MetricsDocument = field(default_factory=MetricsDocument)


@dataclass(frozen=True)
class DeadlineReached(Event):
    error: ErrorDocument


@dataclass(frozen=True)
class CancelRequested(Event):
    error: ErrorDocument
    grace: timedelta = CANCEL_GRACE


@dataclass(frozen=True)
class CancelCompleted(Event):
    pass


@dataclass(frozen=True)
class Suspended(Event):
    """A workflow gave its container back and waits. `wake_at`: for a timer; None: only for what happens elsewhere."""

    wake_at: datetime | None = None


@dataclass(frozen=True)
class Resumed(Event):
    pass


TRANSITIONS: Final[Mapping[Status, Mapping[type[Event], Status]]] = {
    Status.QUEUED: {
        AttemptStarted: Status.RUNNING,
        DeadlineReached: Status.TIMEOUT,
        CancelRequested: Status.CANCELLED,
        Suspended: Status.WAITING,  # A graph workflow, which holds no container.
        ExecutionFailed: Status.FAILED,  # It cannot even begin: a secret or another thing it needs is not there.
    },
    Status.RUNNING: {
        AttemptSucceeded: Status.COMPLETED,
        AttemptRetried: Status.QUEUED,
        AttemptReturned: Status.QUEUED,
        ExecutionFailed: Status.FAILED,
        AttemptsExhausted: Status.DEAD_LETTER,
        DeadlineReached: Status.TIMEOUT,
        CancelRequested: Status.CANCELLING,
        Suspended: Status.WAITING,
    },
    Status.WAITING: {
        Resumed: Status.QUEUED,
        AttemptSucceeded: Status.COMPLETED,
        ExecutionFailed: Status.FAILED,
        DeadlineReached: Status.TIMEOUT,
        CancelRequested: Status.CANCELLED,
    },
    Status.CANCELLING: {
        # However the attempt ends once a cancel was accepted, the execution is cancelled: cancel means it.
        CancelCompleted: Status.CANCELLED,
        DeadlineReached: Status.CANCELLED,
    },
    # Terminal: present, so that the table is total.
    Status.COMPLETED: {},
    Status.FAILED: {},
    Status.TIMEOUT: {},
    Status.DEAD_LETTER: {},
    Status.CANCELLED: {},
}


def apply(execution: Execution, event: Event) -> Execution:
    """Returns the execution after the event.

    Raises:
        IllegalTransition: The table has no such step; nothing changes.
    """
    target = TRANSITIONS[execution.status].get(type(event))
    if target is None:
        raise errors.IllegalTransition(
            f"{type(event).__name__} is not possible for execution {execution.id!r} that is {execution.status.value!r}",
        )
    changed = dataclasses.replace(execution, status=target, **_fields(execution, event))
    return _ended(changed, event.at) if target.is_terminal else changed


def _fields(execution: Execution, event: Event) -> dict[str, Any]:
    released: dict[str, Any] = {"lease_holder": None, "lease_instance": None, "lease_expires_at": None}
    match event:
        case AttemptStarted():
            return {
                "attempt": execution.attempt + 1,
                "lease_epoch": execution.lease_epoch + 1,
                "lease_holder": event.holder,
                "lease_instance": event.instance,
                "lease_expires_at": event.lease_expires_at,
                "started_at": execution.started_at or event.at,
                "available_at": None,
            }
        case AttemptRetried():
            count = {"losses": execution.losses + 1} if event.lost else {"failures": execution.failures + 1}
            return {**released, **count, "available_at": event.available_at, "error": event.error}
        case AttemptSucceeded():
            return {"error": None, "metrics": event.metrics}
        case ExecutionFailed():
            return {"failures": execution.failures + 1, "error": event.error, "metrics": event.metrics}
        case AttemptsExhausted():
            count = {"losses": execution.losses + 1} if event.lost else {"failures": execution.failures + 1}
            return {**count, "error": event.error, "metrics": event.metrics}
        case DeadlineReached() if execution.status is Status.CANCELLING:
            return {}
        case DeadlineReached():
            return {"error": event.error}
        case CancelRequested():
            return {
                "error": event.error,
                "lease_expires_at": event.at + event.grace if execution.lease_holder else None,
            }
        case AttemptReturned():
            return {**released, "error": event.error}
        case Suspended():
            started_at = execution.started_at or event.at
            # It got so far: what was lost before says nothing about what comes.
            return {**released, "available_at": event.wake_at, "started_at": started_at, "error": None, "losses": 0}
        case Resumed():
            return {"available_at": None}
        case _:
            return {}


def _ended(execution: Execution, at: datetime) -> Execution:
    return dataclasses.replace(
        execution, finished_at=at, lease_holder=None, lease_instance=None, lease_expires_at=None, available_at=None
    )


def decide_failure(
    execution: Execution, error: ErrorDocument, at: datetime, metrics: MetricsDocument | None = None
) -> Event:
    """Which event a failed attempt is: retried, failed, or out of attempts.

    A policy that never retries, or an error that no retry can help, gives `failed`; so does a retry that could only
    begin at the deadline or later: waiting for it would end in `timeout` and hide the error. A policy that was used up
    gives `dead_letter`. Source: the platform specification, section 3.
    """
    measured = metrics or MetricsDocument()
    if execution.status is Status.CANCELLING:
        return CancelCompleted(at)
    failures = execution.failures + 1
    is_last = failures >= execution.retry.max_attempts or _spent(execution) >= execution.max_attempts
    if execution.retry.allows(error, failures) and not is_last:
        available_at = at + execution.retry.delay(failures)
        if available_at >= execution.deadline_at:
            return ExecutionFailed(at, error, measured)
        return AttemptRetried(at, error, available_at, lost=False)
    if error.retryable and execution.retry.max_attempts > 1 and is_last:
        return AttemptsExhausted(at, error, lost=False, metrics=measured)
    return ExecutionFailed(at, error, measured)


def _spent(execution: Execution) -> int:
    """How many attempts are used up, the current one included."""
    return execution.failures + execution.losses + 1


def decide_loss(execution: Execution, error: ErrorDocument, at: datetime) -> Event:
    """Which event a lost attempt is: its container or runner died, so nothing is known about its end."""
    if execution.status is Status.CANCELLING:
        return CancelCompleted(at)
    losses = execution.losses + 1
    if losses < LOST_ATTEMPTS_ALLOWED and _spent(execution) < execution.max_attempts:
        # The first retry is at once: the usual cause is a runner that went away. Later ones wait, in case the
        # component itself takes its runner down.
        return AttemptRetried(at, error, at + timedelta(seconds=losses - 1), lost=True)
    return AttemptsExhausted(at, error, lost=True)

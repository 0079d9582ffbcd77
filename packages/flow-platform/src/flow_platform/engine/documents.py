"""Status documents: an execution as a client sees it, made from its record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from flow_platform.domain.checkpoint import Checkpoint
from flow_platform.domain.execution import Execution
from flow_platform.domain.replay import RETURNED
from flow_platform.engine.graph_steps import GraphView
from flow_platform.store.base import Attempt, Result
from flow_platform.store.ledger_table import Cost
from flow_sdk.wire.durable import SUSPENDED, CheckpointKind
from flow_sdk.wire.execution import (
    BillingDocument,
    ComponentRef,
    ErrorDocument,
    MetricsDocument,
    StatusDocument,
    WaitingOn,
)
from flow_sdk.wire.status import Kind, Status

SHOWN_NODES: Final = 10  # Names in one message.


def document_of(
    execution: Execution,
    now: datetime,
    *,
    result: Result | None = None,
    attempts: Sequence[Attempt] = (),
    runners_alive: int | None = None,
    checkpoints: Sequence[Checkpoint] = (),
    graph: GraphView | None = None,
    held_back: WaitingOn | None = None,
    cost: Cost | None = None,
) -> StatusDocument:
    """Builds the document.

    Args:
        result: None for lists, which carry no payloads.
        runners_alive: None when not known; only used to say why an execution is still queued.
        checkpoints: That are open, of one that may wait for them; only used to say what for.
        graph: Of a graph workflow, where that is known.
        held_back: The limit that a queued execution waits for, if one does (`blocked`).
        cost: So far.
    """
    result = result or Result()
    is_workflow = execution.kind is Kind.WORKFLOW
    return StatusDocument(
        execution_id=execution.id,
        status=execution.status,
        component=ComponentRef(
            kind=execution.kind,
            id=execution.component_id,
            version=execution.version,
            name=execution.component_name,
            slug=execution.component_slug,
        ),
        deployment_id=execution.deployment_id,
        ring_id=execution.ring_id,
        parent_execution_id=execution.parent_id,
        root_execution_id=execution.root_id,
        retry_of_execution_id=execution.retry_of_id,
        retried_as_execution_id=execution.retried_as_id,
        submitted_by=json.loads(execution.submitted_by) if execution.submitted_by else None,
        lifecycle_event=execution.lifecycle_event,
        isolation=execution.isolation,
        attempt=execution.attempt,
        max_attempts=execution.max_attempts,
        timeout_seconds=execution.timeout_seconds,
        created_at=execution.created_at,
        started_at=execution.started_at,
        finished_at=execution.finished_at,
        deadline_at=execution.deadline_at,
        output=result.output,
        outputs=result.output if is_workflow else None,
        usage=result.usage,
        messages=result.messages,
        state=result.state,
        session_id=execution.session_id,
        error=execution.error if execution.status is not Status.COMPLETED else None,
        errors=list(graph.errors) if graph else errors_of(attempts),
        metrics=_metrics(execution),
        billing=_billing(execution, cost),
        waiting_on=held_back or waiting_on(execution, now, runners_alive, checkpoints, graph),
    )


def errors_of(attempts: Sequence[Attempt]) -> list[ErrorDocument]:
    """One per attempt that did not succeed, in order."""
    return [
        attempt.error.model_copy(update={"attempt": attempt.number})
        for attempt in attempts
        if attempt.error is not None and attempt.error.code not in (SUSPENDED, RETURNED)
    ]


def waiting_on(
    execution: Execution,
    now: datetime,
    runners_alive: int | None = None,
    checkpoints: Sequence[Checkpoint] = (),
    graph: GraphView | None = None,
) -> WaitingOn | None:
    """What a non-terminal execution waits for, and until when at the latest. None for terminal ones."""
    match execution.status:
        case Status.QUEUED if execution.kind is Kind.AGENT and execution.available_at == execution.deadline_at:
            message = "Waits for the turns before it of its session"
            return WaitingOn(reason="session", until=execution.deadline_at, message=message)
        case Status.QUEUED if execution.available_at and execution.available_at > now and execution.attempt == 0:
            return WaitingOn(reason="start", until=execution.available_at, message="Starts at the time shown, as asked")
        case Status.QUEUED if execution.available_at and execution.available_at > now:
            return WaitingOn(
                reason="back_off",
                until=execution.available_at,
                message=f"Attempt {execution.attempt} did not succeed; the next one starts at the time shown",
            )
        case Status.QUEUED:
            message = (
                "No runner is connected; start one with: flow runner"
                if runners_alive == 0
                else "Waits for a free slot of a runner"
            )
            return WaitingOn(reason="runner", until=execution.deadline_at, message=message)
        case Status.RUNNING if execution.live_children:
            return WaitingOn(
                reason="children",
                until=execution.deadline_at,
                message=f"Waits for {execution.live_children} unfinished executions that it started",
            )
        case Status.RUNNING:
            return _first_awaited(execution, now, checkpoints) or WaitingOn(
                reason="container",
                until=execution.deadline_at,
                message=f"Attempt {execution.attempt} runs on runner {execution.lease_holder!r}",
            )
        case Status.CANCELLING:
            return WaitingOn(reason="cancel", until=execution.lease_expires_at, message="Its container is being ended")
        case Status.WAITING if execution.is_graph:
            return _graph_waits(execution, graph)
        case Status.WAITING:
            return _waiting(execution, now, checkpoints)
        case _:
            return None


def _waiting(execution: Execution, now: datetime, checkpoints: Sequence[Checkpoint]) -> WaitingOn:
    """What a workflow without a container waits for."""
    message = f"Holds no container; waits for {execution.live_children} unfinished executions that it started"
    return _first_awaited(execution, now, checkpoints) or WaitingOn(
        reason="children", until=execution.deadline_at, message=message
    )


def _first_awaited(execution: Execution, now: datetime, checkpoints: Sequence[Checkpoint]) -> WaitingOn | None:
    """Of the checkpoints that are open the one that ends first."""
    awaited = [one for one in checkpoints if one.kind is not CheckpointKind.STEP and one.is_open(now)]
    first = min(awaited, key=lambda one: one.due_at or execution.deadline_at, default=None)
    if first is None:
        return None
    until = min(first.due_at or execution.deadline_at, execution.deadline_at)
    match first.kind:
        case CheckpointKind.TIMER:
            return WaitingOn(reason="timer", until=until, message="Sleeps")
        case CheckpointKind.APPROVAL:
            who = ", ".join(first.approvers) or "an admin or a builder"
            asked = f": {first.message}" if first.message else ""
            return WaitingOn(
                reason="approval", until=until, message=f"Waits for approval {first.name!r} by {who}{asked}"
            )
        case _:
            return WaitingOn(reason="event", until=until, message=f"Waits for event {first.name!r}")


def _graph_waits(execution: Execution, graph: GraphView | None) -> WaitingOn:
    if execution.available_at is not None:
        return WaitingOn(reason="start", until=execution.available_at, message="Begins at the time shown")
    message = f"Waits for {execution.live_children} of its nodes"
    if graph and graph.running:
        shown = ", ".join(repr(node) for node in graph.running[:SHOWN_NODES])
        more = f" and {len(graph.running) - SHOWN_NODES} more" if len(graph.running) > SHOWN_NODES else ""
        message = f"Waits for the node{'s' if len(graph.running) > 1 else ''} {shown}{more}"
    return WaitingOn(reason="children", until=execution.deadline_at, message=message)


def _metrics(execution: Execution) -> MetricsDocument:
    """As recorded; the time in the queue is known as soon as the first attempt began."""
    metrics = execution.metrics
    if metrics.queue_ms is not None or execution.started_at is None:
        return metrics
    queued = execution.started_at - execution.start_at
    return metrics.model_copy(update={"queue_ms": round(queued.total_seconds() * 1000, 3)})


def _billing(execution: Execution, cost: Cost | None) -> BillingDocument | None:
    if execution.billing_transaction_id is None:
        return None
    return BillingDocument(
        transaction_id=execution.billing_transaction_id,
        parent_transaction_id=execution.parent_billing_transaction_id,
        credits=cost.total if cost else None,
        own_credits=cost.own if cost else None,
    )

"""Records for the tests of the store: valid ones, of which a test changes what it is about."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from flow_platform.domain import execution as domain
from flow_platform.domain.component import Component, Definition, Version
from flow_platform.domain.execution import Execution
from flow_platform.domain.release import Deployment, DeploymentState, Ring
from flow_platform.store.base import Payload, Store, Transaction
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.status import Kind, Status

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
TICK = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
ERROR = ErrorDocument(code="component_error", type="ValueError", message="no")

_numbers = itertools.count(1)


def unique(prefix: str) -> str:
    return f"{prefix}-{next(_numbers):06}"


def execution(**changes: Any) -> Execution:
    execution_id = changes.pop("id", None) or unique("execution")
    values: dict[str, Any] = {
        "id": execution_id,
        "org_id": "org",
        "workspace_id": "workspace",
        "kind": Kind.CODE_BLOCK,
        "component_id": "component",
        "component_slug": "slug",
        "component_name": "Name",
        "version_id": "version",
        "version": 1,
        "deployment_id": "deployment",
        "ring_id": "ring",
        "root_id": execution_id,
        "created_at": NOW,
        "deadline_at": NOW + timedelta(minutes=5),
        "timeout_seconds": 300.0,
        **changes,
    }
    return Execution(**values)


def child_of(parent: Execution, **changes: Any) -> Execution:
    return execution(parent_id=parent.id, root_id=parent.root_id, depth=parent.depth + 1, **changes)


def started(
    before: Execution,
    *,
    at: datetime = NOW,
    holder: str = "runner",
    instance: str = "one",
    lease: timedelta = 10 * SECOND,
) -> Execution:
    return domain.apply(before, domain.AttemptStarted(at, holder, instance, at + lease))


def completed(before: Execution, *, at: datetime = NOW) -> Execution:
    return domain.apply(before, domain.AttemptSucceeded(at))


def failed(before: Execution, *, at: datetime = NOW) -> Execution:
    return domain.apply(before, domain.ExecutionFailed(at, ERROR))


def retried(before: Execution, available_at: datetime, *, at: datetime = NOW) -> Execution:
    return domain.apply(before, domain.AttemptRetried(at, ERROR, available_at, lost=False))


def cancelling(before: Execution, *, at: datetime = NOW) -> Execution:
    return domain.apply(before, domain.CancelRequested(at, ERROR))


def cancelled(before: Execution, *, at: datetime = NOW) -> Execution:
    return domain.apply(cancelling(before, at=at), domain.CancelCompleted(at))


def suspended(before: Execution, *, at: datetime = NOW) -> Execution:
    return domain.apply(before, domain.Suspended(at))


def in_status(status: Status, **changes: Any) -> list[Execution]:
    """The way of an execution into a status: each of its states, the first one queued."""
    queued = execution(**changes)
    running = started(queued)
    match status:
        case Status.QUEUED:
            return [queued]
        case Status.RUNNING:
            return [queued, running]
        case Status.WAITING:
            return [queued, running, suspended(running)]
        case Status.CANCELLING:
            return [queued, running, cancelling(running)]
        case Status.COMPLETED:
            return [queued, running, completed(running)]
        case Status.FAILED:
            return [queued, running, failed(running)]
        case Status.TIMEOUT:
            return [queued, domain.apply(queued, domain.DeadlineReached(NOW, ERROR))]
        case Status.DEAD_LETTER:
            return [queued, running, domain.apply(running, domain.AttemptsExhausted(NOW, ERROR, lost=True))]
        case Status.CANCELLED:
            return [queued, domain.apply(queued, domain.CancelRequested(NOW, ERROR))]


def insert_history(tx: Transaction, states: list[Execution]) -> Execution:
    tx.executions.insert(states[0], Payload())
    for before, after in itertools.pairwise(states):
        tx.executions.update(before, after)
    return states[-1]


async def insert(store: Store, *executions: Execution, payload: Payload | None = None) -> None:
    def operation(tx: Transaction) -> None:
        for one in executions:
            tx.executions.insert(one, payload or Payload())

    await store.write(operation)


async def update(store: Store, before: Execution, after: Execution) -> Execution:
    await store.write(lambda tx: tx.executions.update(before, after))
    return after


async def find(store: Store, execution_id: str) -> Execution:
    found = await store.read(lambda tx: tx.executions.find(execution_id))
    assert found is not None
    return found


def component(**changes: Any) -> Component:
    component_id = changes.pop("id", None) or unique("component")
    values: dict[str, Any] = {
        "id": component_id,
        "org_id": "org",
        "workspace_id": "workspace",
        "kind": Kind.CODE_BLOCK,
        "slug": component_id,
        "name": "A component",
        "description": "",
        "tags": ("one", "two"),
        "created_at": NOW,
        **changes,
    }
    return Component(**values)


def version(of: Component, number: int = 1, **changes: Any) -> Version:
    definition = changes.pop("definition", None) or Definition(of.kind, code=f"def main(): return {number}")
    return dataclasses.replace(
        Version(unique("version"), of.id, number, definition.digest(), definition, NOW), **changes
    )


def ring(**changes: Any) -> Ring:
    values: dict[str, Any] = {
        "id": unique("ring"),
        "org_id": "org",
        "workspace_id": "workspace",
        "name": "dev",
        "order": 10,
        "auto_deploy": True,
        "created_at": NOW,
        **changes,
    }
    return Ring(**values)


def deployment(of: Version, into: Ring, **changes: Any) -> Deployment:
    values: dict[str, Any] = {
        "id": unique("deployment"),
        "org_id": into.org_id,
        "workspace_id": into.workspace_id,
        "component_id": of.component_id,
        "version_id": of.id,
        "version": of.number,
        "ring_id": into.id,
        "state": DeploymentState.QUEUED,
        "created_at": NOW,
        **changes,
    }
    return Deployment(**values)

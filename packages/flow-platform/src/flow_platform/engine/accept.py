"""Makes the record of a new execution: the one place, whoever asks for it.

A submit, a schedule, a node of a graph, a manual retry and the validation of a deployment all come here, inside the
transaction of theirs, once it is clear which component is meant, in which ring and below which parent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.domain.clock import Entropy, new_id
from flow_platform.domain.component import Component, Version
from flow_platform.domain.execution import Execution, RetryPolicy
from flow_platform.domain.release import Deployment, Ring
from flow_platform.engine import repetition
from flow_platform.engine.releases import resolve_deployment
from flow_platform.store.base import Payload, Transaction
from flow_sdk.wire.status import Kind

MAX_TIMEOUT_SECONDS: Final = 30 * 24 * 3600.0
DEFAULT_TIMEOUT_SECONDS: Final = {Kind.TRANSFORM: 30.0}
FALLBACK_TIMEOUT_SECONDS: Final = 300.0  # The contract's default.


@dataclass(frozen=True)
class Submission:
    """What a client asks for.

    Attributes:
        component: Id or slug.
        ring_id: None: the caller's (execution token, or `caller_deployment_id`), else the ring of lowest order.
        timeout_seconds: None: the component's own, else the kind's default. Counted from `start_at`, if that is given.
        start_at: Not started before; None: at once.
        concurrency_key: What the limit per key of the component's policy is counted by, e.g. a customer's id.
        priority: Higher first, within the workspace.
        deployment_id: Runs on this deployment instead of the active one; only the engine says so.
        retry: Instead of the component's own policy; only the engine says so (a node of a graph).
        retry_of_id: The execution that this one repeats, see `repetition`; only the engine says so.
    """

    kind: Kind
    component: str
    input_data: Any
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    lifecycle_event: str = "workflow"
    ring_id: str | None = None
    caller_deployment_id: str | None = None
    timeout_seconds: float | None = None
    auto_deploy: bool = True
    scope: str = "workspace"
    session_id: str | None = None
    messages: list[Any] = field(default_factory=list[Any])
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    parent_billing_transaction_id: str | None = None
    start_at: datetime | None = None
    concurrency_key: str | None = None
    priority: int = 0
    deployment_id: str | None = None
    retry: RetryPolicy | None = None
    retry_of_id: str | None = None


def accept(
    tx: Transaction,
    submission: Submission,
    component: Component,
    ring: Ring,
    parent: Execution | None,
    *,
    now: datetime,
    entropy: Entropy,
) -> Execution:
    """Writes the execution, queued, with its input; the parent has one more unfinished child.

    Raises:
        Conflict: `not_deployed`; `already_retried`.
        NotFound: The deployment that it is pinned to is unknown.
    """
    execution_id = new_id(now, entropy)
    deployment, version = _deployment(tx, submission, component, ring, execution_id, now, entropy)
    execution = _execution(submission, parent, component, deployment, version, execution_id, now, entropy)
    payload = payload_of(submission)
    tx.executions.insert(execution, payload)
    repetition.begin(tx, execution, payload)
    if parent:
        tx.executions.adopt_child(parent.id)
    return execution


def payload_of(submission: Submission) -> Payload:
    return Payload(
        submission.input_data, submission.config, submission.session_id, submission.messages, submission.state
    )


def _deployment(
    tx: Transaction,
    submission: Submission,
    component: Component,
    ring: Ring,
    execution_id: str,
    now: datetime,
    entropy: Entropy,
) -> tuple[Deployment, Version]:
    if submission.deployment_id is None:
        return resolve_deployment(
            tx,
            component,
            ring,
            execution_id=execution_id,
            auto_deploy=submission.auto_deploy,
            now=now,
            entropy=entropy,
        )
    pinned = tx.catalog.find_deployment(component.org_id, component.workspace_id, submission.deployment_id)
    if pinned is None or pinned.component_id != component.id:
        raise errors.NotFound(f"deployment {submission.deployment_id!r} not found")
    return pinned, tx.catalog.get_version(pinned.version_id)


def _execution(
    submission: Submission,
    parent: Execution | None,
    component: Component,
    deployment: Deployment,
    version: Version,
    execution_id: str,
    now: datetime,
    entropy: Entropy,
) -> Execution:
    timeout = (
        submission.timeout_seconds
        or version.definition.timeout_seconds
        or DEFAULT_TIMEOUT_SECONDS.get(component.kind, FALLBACK_TIMEOUT_SECONDS)
    )
    start_at = submission.start_at if submission.start_at and submission.start_at > now else None
    return Execution(
        id=execution_id,
        org_id=component.org_id,
        workspace_id=component.workspace_id,
        kind=component.kind,
        component_id=component.id,
        component_slug=component.slug,
        component_name=component.name,
        version_id=version.id,
        version=version.number,
        deployment_id=deployment.id,
        ring_id=deployment.ring_id,
        root_id=parent.root_id if parent else execution_id,
        parent_id=parent.id if parent else None,
        depth=parent.depth + 1 if parent else 0,
        created_at=now,
        deadline_at=(start_at or now) + timedelta(seconds=timeout),
        timeout_seconds=timeout,
        lifecycle_event=submission.lifecycle_event,
        billing_transaction_id=new_id(now, entropy),
        # A container cannot bill its children to somebody else: below an execution the parent decides.
        parent_billing_transaction_id=(
            parent.billing_transaction_id if parent else submission.parent_billing_transaction_id
        ),
        session_id=submission.session_id,
        # Before further parents: those would wait for children, too, and fill the runners with waiting.
        priority=submission.priority + (parent.priority + 1 if parent else 0),
        retry=submission.retry or version.definition.retry,
        available_at=start_at,
        retry_of_id=submission.retry_of_id,
    )

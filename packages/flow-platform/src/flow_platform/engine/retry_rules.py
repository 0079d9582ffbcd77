"""What may be repeated by hand, and as what: one transaction, from an execution that ended to the one that repeats it.

A repetition (`repetition` says what it takes over) is of the same component with the same input, config, session and
time, in the same ring, and on the version that ran, unless another is asked for: it is pinned to the old one's
deployment, active or not. It stands where the old one stood: below the same parent, billed to the same account.

What is below something that still runs is not repeated by hand: that decides itself, and nobody would see the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from flow_platform.domain import errors
from flow_platform.domain.clock import Entropy
from flow_platform.domain.component import Component
from flow_platform.domain.execution import Execution
from flow_platform.domain.release import Ring
from flow_platform.engine import repetition
from flow_platform.engine.accept import Submission, accept
from flow_platform.engine.budgets import admit
from flow_platform.engine.standing import asked_for
from flow_platform.engine.validation import invalid
from flow_platform.store.base import Transaction
from flow_sdk.wire.status import Kind, Status

MAX_DEPLOYMENTS: Final = 1000  # Of a component in a ring, newest first, among which a version is looked for.
PAGE: Final = 200
RETRYABLE: Final = (Status.DEAD_LETTER, Status.FAILED, Status.TIMEOUT, Status.CANCELLED)

VersionWish = int | Literal["active"] | None


@dataclass(frozen=True)
class NewInput:
    """Any JSON value, also null."""

    input_data: Any


@dataclass(frozen=True)
class Changed:
    """What a retry does differently.

    Attributes:
        version: A number; "active": what is active in the ring now; None: the one that ran.
        input: None: the same.
        submitted_by: Who asks for it, see `audited.submitter_of`.
    """

    version: VersionWish = None
    input: NewInput | None = None
    submitted_by: str | None = None


def repeat(tx: Transaction, old: Execution, changed: Changed, now: datetime, entropy: Entropy) -> Execution:
    """Makes the new execution.

    Raises:
        NotFound: The wanted version is unknown.
        Conflict: See `Retries.retry`.
    """
    _check(old)
    live = above(tx, old)
    if live is not None:
        raise errors.Conflict(
            f"execution {old.id!r} is below {live.id!r}, which is {live.status.value!r} and repeats what it needs",
            code="parent_decides",
            hint="wait for its end, or cancel it, or retry it when it has ended",
        )
    component = tx.catalog.find_component(old.org_id, old.workspace_id, old.kind, old.component_id)
    ring = tx.catalog.find_ring(old.org_id, old.workspace_id, old.ring_id) if old.ring_id else None
    if component is None or ring is None:
        raise errors.NotFound(f"the component or the ring of execution {old.id!r} is gone")
    parent = tx.executions.find(old.parent_id, for_update=True) if old.parent_id else None
    admit(tx, old.org_id, old.workspace_id, now)
    submission = _submission(tx, old, component, changed)
    submission = replace(submission, deployment_id=_deployment_id(tx, old, component, ring, changed.version))
    return accept(tx, submission, component, ring, parent, now=now, entropy=entropy)


def _check(old: Execution) -> None:
    if old.status not in RETRYABLE:
        expected = ", ".join(repr(status.value) for status in RETRYABLE)
        raise errors.Conflict(
            f"execution {old.id!r} is {old.status.value!r}: expected one that is {expected}",
            code="not_retryable",
            hint="submit it anew" if old.status is Status.COMPLETED else "wait for its end, or cancel it",
        )
    if old.retried_as_id is not None:
        raise repetition.already_retried(old)


def above(tx: Transaction, old: Execution, chosen: set[str] | None = None) -> Execution | None:
    """What runs above it, or is about to (`chosen`), and may repeat it; what completed above shields what it left."""
    parent_id = old.parent_id
    while parent_id is not None:
        parent = tx.executions.find(parent_id)
        if parent is None or parent.status is Status.COMPLETED:
            return None
        newest = repetition.newest(tx, parent)
        if not newest.status.is_terminal or newest.id in (chosen or ()):
            return newest
        parent_id = parent.parent_id
    return None


def _submission(tx: Transaction, old: Execution, component: Component, changed: Changed) -> Submission:
    payload = tx.executions.payload(old.id)
    input_data = changed.input.input_data if changed.input else payload.input_data
    if changed.input and old.kind is Kind.CODE_BLOCK and not isinstance(input_data, dict):
        raise invalid("input_data", input_data, "an object of keyword arguments")
    priority, concurrency_key = asked_for(tx, old)
    return Submission(
        kind=old.kind,
        component=component.id,
        input_data=input_data,
        config=payload.config,
        lifecycle_event=old.lifecycle_event,
        timeout_seconds=old.timeout_seconds,
        is_timeout_instead=True,
        auto_deploy=False,
        session_id=payload.session_id,
        messages=payload.messages,
        state=payload.state,
        parent_billing_transaction_id=old.parent_billing_transaction_id,
        priority=priority,
        concurrency_key=concurrency_key,
        retry_of_id=old.id,
        submitted_by=changed.submitted_by,
    )


def _deployment_id(
    tx: Transaction, old: Execution, component: Component, ring: Ring, version: VersionWish
) -> str | None:
    """The deployment to run on; None: the active one."""
    if version is None or version == old.version:
        return old.deployment_id
    if version == "active":
        return None
    if tx.catalog.find_version(component.id, version) is None:
        raise errors.NotFound(f"version {version!r} of {component.kind.value} {component.slug!r} not found")
    found = _newest_deployment(tx, component, ring, version)
    if found is None:
        # A version that never went through the ring's gates does not get around them by a retry.
        raise errors.Conflict(
            f"version {version} of {component.kind.value} {component.slug!r} was never active in ring {ring.name!r}",
            code="not_deployed",
            hint=f"bring it there first: flow promote {component.kind.path}/{component.slug} --to {ring.name}",
        )
    return found


def _newest_deployment(tx: Transaction, component: Component, ring: Ring, version: int) -> str | None:
    cursor: str | None = None
    for _ in range(MAX_DEPLOYMENTS // PAGE):
        page = tx.catalog.list_deployments(
            component.org_id, component.workspace_id, component.id, ring.id, cursor, PAGE
        )
        for deployment in page.items:
            if deployment.version == version and deployment.activated_at is not None:
                return deployment.id
        cursor = page.next_cursor
        if cursor is None:
            break
    return None

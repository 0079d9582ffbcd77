"""Repeating executions by hand: one by its id, or all that a filter matches.

A retry is a new execution (`repetition` says what it takes over) of the same component with the same input, config,
session and time, in the same ring, and on the version that ran, unless another is asked for: it is pinned to the old
one's deployment, active or not. It stands where the old one stood: below the same parent, billed to the same account.

What is below something that still runs is not repeated by hand: that decides itself, and nobody would see the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock, Entropy, system_entropy
from flow_platform.domain.component import Component
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.domain.release import Ring
from flow_platform.engine import repetition
from flow_platform.engine.accept import Submission, accept
from flow_platform.engine.claims import Claims
from flow_platform.engine.grants import Grant, Grants
from flow_platform.engine.releases import check_workspace
from flow_platform.engine.stages import Stages
from flow_platform.engine.standing import asked_for
from flow_platform.engine.submit import IdempotencyKey, check_key, first_answer
from flow_platform.engine.validation import invalid
from flow_platform.engine.wakeups import WORK, Wakeups
from flow_platform.store.base import ExecutionFilter, IdempotencyRecord, Store, Transaction
from flow_sdk.wire.status import Kind, Status

MAX_RETRIED: Final = 1000  # Executions that one call retries.
RETRY_BATCH: Final = 25  # Of these in one transaction: others write in between.
MAX_SCANNED: Final = 5000  # Rows that one call looks at; more of what cannot be retried now hide the rest for a while.
MAX_DEPLOYMENTS: Final = 1000  # Of a component in a ring, newest first, among which a version is looked for.
PAGE: Final = 200
RETRYABLE: Final = (Status.DEAD_LETTER, Status.FAILED, Status.TIMEOUT, Status.CANCELLED)
RETRIED_UNNAMED: Final = (Status.DEAD_LETTER, Status.FAILED, Status.TIMEOUT)
"""What a filter without a status matches. Whoever cancelled something did not want it: that has to be named."""

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
    """

    version: VersionWish = None
    input: NewInput | None = None


@dataclass(frozen=True)
class Refusal:
    execution_id: str
    error: errors.FlowError


@dataclass
class BulkRetried:
    """What a filter's retry did, or would do.

    Attributes:
        retried: Old id -> new id, None for what would be retried.
        truncated: There is more than one call retries.
    """

    retried: dict[str, str | None] = field(default_factory=dict[str, str | None])
    refused: list[Refusal] = field(default_factory=list[Refusal])
    truncated: bool = False


class Retries:
    """Retries executions."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        wakeups: Wakeups,
        stages: Stages,
        claims: Claims,
        grants: Grants,
        entropy: Entropy = system_entropy,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._stages = stages
        self._claims = claims
        self._grants = grants
        self._entropy = entropy

    async def retry(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        execution_id: str,
        changed: Changed,
        idempotency: IdempotencyKey | None,
    ) -> Execution:
        """Makes a new execution that repeats an ended one, and returns it; a repeated key returns the first one.

        Raises:
            NotFound: The execution, or the wanted version of its component, is unknown.
            Conflict: `not_retryable`: it has not ended, or completed. `already_retried`. `parent_decides`.
                `not_deployed`: the wanted version was never active in its ring. `idempotency_key_reused`.
            Forbidden: An execution asks.
        """
        require_retry(principal, org_id, workspace_id)
        check_key(idempotency)
        started, now = self._stages.now(), self._clock.now()

        def operation(tx: Transaction) -> tuple[Execution, bool, list[Grant]]:
            if idempotency and (earlier := first_answer(tx, org_id, workspace_id, idempotency)):
                return earlier, False, []
            old = tx.executions.find_in_workspace(org_id, workspace_id, execution_id)
            if old is None:
                raise errors.NotFound(f"execution {execution_id!r} not found")
            execution = _repeat(tx, old, changed, now, self._entropy)
            if idempotency:
                record = IdempotencyRecord(idempotency.key, idempotency.fingerprint, execution.id)
                tx.executions.save_idempotent(org_id, workspace_id, record, now)
            return execution, True, self._grants.grant_waiting(tx)

        execution, is_new, granted = await self._store.write(operation)
        if is_new:
            self._stages.accepted(execution.id, started)
            self._tell(granted)
        return execution

    async def retry_matching(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        where: ExecutionFilter,
        version: VersionWish,
        *,
        dry_run: bool,
    ) -> BulkRetried:
        """Retries all that match and can be retried, oldest first; what was retried before does not match.

        A child is left out when something above it is retried: that repeats it.

        Raises:
            NotFound: The organization has no such workspace.
            Forbidden: An execution asks.
        """
        require_retry(principal, org_id, workspace_id)
        ids, truncated = await self._store.read(lambda tx: _matching(tx, org_id, workspace_id, where))
        result = BulkRetried(truncated=truncated)
        if dry_run:
            result.retried = dict.fromkeys(ids)
            return result
        for start in range(0, len(ids), RETRY_BATCH):
            batch = ids[start : start + RETRY_BATCH]
            done, granted = await self._store.write(lambda tx, batch=batch: self._retry_all(tx, batch, version))
            self._tell(granted)
            result.retried |= done.retried
            result.refused += done.refused
        return result

    def _retry_all(self, tx: Transaction, ids: list[str], version: VersionWish) -> tuple[BulkRetried, list[Grant]]:
        result = BulkRetried()
        for execution_id in ids:
            old = tx.executions.find(execution_id)
            if old is None:
                continue
            try:
                new = _repeat(tx, old, Changed(version), self._clock.now(), self._entropy)
            except errors.FlowError as error:
                if type(error) not in (errors.NotFound, errors.Conflict):
                    raise  # Of the store, which runs the whole batch again.
                result.refused.append(Refusal(execution_id, error))
            else:
                result.retried[execution_id] = new.id
        return result, self._grants.grant_waiting(tx)

    def _tell(self, granted: list[Grant]) -> None:
        self._claims.deliver(granted)
        self._wakeups.notify_others([WORK])  # The runners that wait here were thought of in the transaction.


def require_retry(principal: Principal, org_id: str, workspace_id: str) -> None:
    """Who may retry: who may submit, except executions.

    Raises:
        Forbidden: An execution asks, or the role does not submit.
    """
    principal.require(Action.SUBMIT, org_id, workspace_id)
    if principal.role is Role.EXECUTION:
        raise errors.Forbidden("an execution retries nothing by id: it calls the component again")


def _repeat(tx: Transaction, old: Execution, changed: Changed, now: datetime, entropy: Entropy) -> Execution:
    _check(old)
    above = _above(tx, old)
    if above is not None:
        raise errors.Conflict(
            f"execution {old.id!r} is below {above.id!r}, which is {above.status.value!r} and repeats what it needs",
            code="parent_decides",
            hint="wait for its end, or cancel it, or retry it when it has ended",
        )
    component = tx.catalog.find_component(old.org_id, old.workspace_id, old.kind, old.component_id)
    ring = tx.catalog.find_ring(old.org_id, old.workspace_id, old.ring_id) if old.ring_id else None
    if component is None or ring is None:
        raise errors.NotFound(f"the component or the ring of execution {old.id!r} is gone")
    parent = tx.executions.find(old.parent_id, for_update=True) if old.parent_id else None
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


def _above(tx: Transaction, old: Execution, chosen: set[str] | None = None) -> Execution | None:
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
        auto_deploy=False,
        session_id=payload.session_id,
        messages=payload.messages,
        state=payload.state,
        parent_billing_transaction_id=old.parent_billing_transaction_id,
        priority=priority,
        concurrency_key=concurrency_key,
        retry_of_id=old.id,
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
            hint="deploy or promote it there first",
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


def _matching(tx: Transaction, org_id: str, workspace_id: str, where: ExecutionFilter) -> tuple[list[str], bool]:
    """Ids of those that can be retried, oldest first: parents before what they started. And whether there are more."""
    check_workspace(tx, org_id, workspace_id)
    candidates: dict[str, Execution] = {}
    truncated = False
    for status in (where.status,) if where.status else RETRIED_UNNAMED:
        cursor: str | None = None
        unretried = replace(where, status=status, retried=False)
        while len(candidates) < MAX_SCANNED:
            page = tx.executions.list(org_id, workspace_id, unretried, cursor, PAGE)
            candidates.update((execution.id, execution) for execution in page.items)
            cursor = page.next_cursor
            if cursor is None:
                break
        truncated = truncated or cursor is not None
    ids: list[str] = []
    chosen: set[str] = set()
    for execution in sorted(candidates.values(), key=lambda found: (found.created_at, found.depth, found.id)):
        if _above(tx, execution, chosen) is not None:
            continue
        if len(ids) == MAX_RETRIED:
            return ids, True
        ids.append(execution.id)
        chosen.add(execution.id)
    return ids, truncated

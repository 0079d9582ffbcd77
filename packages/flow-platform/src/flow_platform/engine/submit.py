"""Accepting an execution: one transaction, and only after its commit the answer.

The same transaction finds the idempotency key, resolves component, ring, deployment and version, checks the parent,
and writes the execution with its input. So a key can never name two executions, and an accepted execution can never
point to something that is gone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.budget import Standing
from flow_platform.domain.clock import Clock, Entropy, system_entropy
from flow_platform.domain.component import Component
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.domain.release import Ring
from flow_platform.engine.accept import MAX_DEPTH, MAX_TIMEOUT_SECONDS, Submission, accept, payload_of
from flow_platform.engine.budgets import Budgets, admit
from flow_platform.engine.claims import Claims
from flow_platform.engine.grants import Grant, Grants
from flow_platform.engine.replay import ChildReplay
from flow_platform.engine.stages import Stages
from flow_platform.engine.wakeups import WORK, Wakeups
from flow_platform.store.base import IdempotencyRecord, Store, Transaction
from flow_sdk.wire.status import Status

MAX_LIVE_CHILDREN: Final = 10_000  # Of one execution at the same time; each is a row and a container.
MAX_KEY_LENGTH: Final = 255
QUEUE_FULL_RETRY_SECONDS: Final = 1.0


@dataclass(frozen=True)
class IdempotencyKey:
    """A client's key for one logical request. `fingerprint`: digest of route and body."""

    key: str
    fingerprint: str


class Submitter:
    """Accepts executions."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        wakeups: Wakeups,
        stages: Stages,
        claims: Claims,
        grants: Grants,
        budgets: Budgets,
        entropy: Entropy = system_entropy,
    ) -> None:
        self._budgets = budgets
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._stages = stages
        self._claims = claims
        self._grants = grants
        self._entropy = entropy

    async def submit(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        submission: Submission,
        idempotency: IdempotencyKey | None,
    ) -> Execution:
        """Makes the execution durable and returns it; a repeated key returns the first one.

        Raises:
            NotFound: Component, ring or deployment is unknown in this workspace.
            Forbidden: The role may not submit, or an execution asks for another ring than its own.
            BudgetExhausted: The workspace's budget is used up.
            Conflict: `not_deployed`, `idempotency_key_reused`, or `parent_ended`.
            InvalidInput: Timeout or depth out of bounds.
            RateLimited: `queue_full`, or too many unfinished children.
            StoreUnavailable, StorageFull: Nothing was accepted.
        """
        principal.require(Action.SUBMIT, org_id, workspace_id)
        _check(submission, idempotency)
        started = self._stages.now()
        accept = _Submit(principal, org_id, workspace_id, submission, idempotency, self._clock.now(), self._entropy)

        def operation(tx: Transaction) -> tuple[_Accepted, list[Grant]]:
            accepted = accept(tx)
            return accepted, self._grants.grant_waiting(tx) if accepted.is_new else []

        accepted, granted = await self._store.write(operation)
        execution = accepted.execution
        if accepted.is_new:
            self._budgets.notice(org_id, workspace_id, accepted.standing)
            self._stages.accepted(execution.id, started)
            self._claims.deliver(granted)
            self._wakeups.notify_others([WORK])  # The runners that wait here were thought of in the transaction.
            if execution.available_at is not None:
                self._wakeups.notify_local([WORK])  # They wait until then at the longest.
        return execution


@dataclass(frozen=True)
class _Accepted:
    execution: Execution
    is_new: bool
    standing: Standing | None = None


@dataclass(frozen=True)
class _Submit:
    """The transaction. Called again from the start when the store has to repeat it."""

    principal: Principal
    org_id: str
    workspace_id: str
    submission: Submission
    idempotency: IdempotencyKey | None
    now: datetime
    entropy: Entropy

    def __call__(self, tx: Transaction) -> _Accepted:
        if self.idempotency and (earlier := first_answer(tx, self.org_id, self.workspace_id, self.idempotency)):
            return _Accepted(earlier, False)
        parent = self._parent(tx)
        ring = self._ring(tx, parent)
        component = tx.catalog.find_component(
            self.org_id, self.workspace_id, self.submission.kind, self.submission.component
        )
        if component is None:
            raise errors.NotFound(f"{self.submission.kind.value} {self.submission.component!r} not found")
        called = payload_of(self.submission)
        replay = ChildReplay(tx, parent, component, called, self.submission.occurrence) if parent else None
        if replay and (replayed := replay.earlier_execution()):
            self._save_key(tx, replayed)
            return _Accepted(replayed, False)
        standing = admit(tx, self.org_id, self.workspace_id, self.now)
        submission = self.submission
        if replay and replay.repeated:
            submission = dataclasses.replace(submission, retry_of_id=replay.repeated.id)
        _check_queue(tx, component, ring)
        execution = accept(tx, submission, component, ring, parent, now=self.now, entropy=self.entropy)
        if replay:
            replay.remember(execution)
        self._save_key(tx, execution)
        # As it is answered with the key again. A graph has taken its first step by now, and may have ended.
        if execution.status is not Status.QUEUED:
            execution = dataclasses.replace(execution, status=Status.QUEUED)
        return _Accepted(execution, True, standing)

    def _save_key(self, tx: Transaction, execution: Execution) -> None:
        if self.idempotency:
            record = IdempotencyRecord(self.idempotency.key, self.idempotency.fingerprint, execution.id)
            tx.executions.save_idempotent(self.org_id, self.workspace_id, record, self.now)

    def _parent(self, tx: Transaction) -> Execution | None:
        if self.principal.role is not Role.EXECUTION or self.principal.execution_id is None:
            return None
        parent = tx.executions.find(self.principal.execution_id, for_update=True)
        if parent is None or parent.status is not Status.RUNNING or parent.lease_epoch != self.principal.lease_epoch:
            raise errors.Conflict(
                f"execution {self.principal.execution_id!r} is no longer running: its token submits nothing",
                code="parent_ended",
            )
        if parent.depth + 1 > MAX_DEPTH:
            raise errors.InvalidInput(
                f"execution {parent.id!r} is at depth {parent.depth}: expected at most {MAX_DEPTH} levels",
                code="depth_limit",
            )
        if parent.live_children >= MAX_LIVE_CHILDREN:
            raise errors.RateLimited(
                f"execution {parent.id!r} has {parent.live_children} unfinished children: at most {MAX_LIVE_CHILDREN}",
                retry_after=1.0,
            )
        return parent

    def _ring(self, tx: Transaction, parent: Execution | None) -> Ring:
        wanted = self.submission.ring_id
        inherited = parent.ring_id if parent else self._ring_of_caller(tx)
        if parent and wanted and wanted != inherited:
            raise errors.Forbidden(
                f"an execution submits in its own ring {inherited!r}, not in {wanted!r}", code="other_ring"
            )
        named = wanted or inherited
        if named is None:
            first = tx.catalog.first_ring(self.org_id, self.workspace_id)
            if first is None:
                raise errors.NotFound("the workspace has no ring")
            return first
        ring = tx.catalog.find_ring(self.org_id, self.workspace_id, named)
        if ring is None:
            raise errors.NotFound(f"ring {named!r} not found")
        return ring

    def _ring_of_caller(self, tx: Transaction) -> str | None:
        caller = self.submission.caller_deployment_id
        if caller is None or self.submission.ring_id:
            return None
        deployment = tx.catalog.find_deployment(self.org_id, self.workspace_id, caller)
        if deployment is None:
            raise errors.NotFound(f"deployment {caller!r} not found")
        return deployment.ring_id


def first_answer(tx: Transaction, org_id: str, workspace_id: str, idempotency: IdempotencyKey) -> Execution | None:
    """The execution that the key was answered with before, as it was then.

    Raises:
        Conflict: `idempotency_key_reused`.
    """
    record = tx.executions.find_idempotent(org_id, workspace_id, idempotency.key)
    if record is None:
        return None
    if record.fingerprint != idempotency.fingerprint:
        raise errors.Conflict(
            f"idempotency key {idempotency.key!r} was used for another request: expected the same path and body",
            code="idempotency_key_reused",
        )
    found = tx.executions.find(record.execution_id)
    # The first answer, not today's: a submit is answered before anything else happened to it.
    return found and dataclasses.replace(found, status=Status.QUEUED)


def check_key(idempotency: IdempotencyKey | None) -> None:
    """Raises InvalidInput when it is empty or too long."""
    if idempotency and not 0 < len(idempotency.key) <= MAX_KEY_LENGTH:
        raise errors.InvalidInput(
            f"Idempotency-Key has {len(idempotency.key)} characters: expected 1 to {MAX_KEY_LENGTH}",
            details=[{"field": "Idempotency-Key", "message": f"expected 1 to {MAX_KEY_LENGTH} characters"}],
        )


def _check_queue(tx: Transaction, component: Component, ring: Ring) -> None:
    """Raises RateLimited when enough wait. Those that wait for a time (delayed, in back-off) do not count."""
    max_queued = tx.policies.last_seen(component.workspace_id).for_execution(component.id, ring.id).max_queued
    if max_queued is None:
        return
    if max_queued and tx.executions.count_ready(component.workspace_id, component.id, ring.id, max_queued) < max_queued:
        return
    raise errors.RateLimited(
        f"{component.kind.value} {component.slug!r} has {max_queued} executions waiting in ring {ring.name!r}:"
        " its policy allows no more (max_queued)",
        retry_after=QUEUE_FULL_RETRY_SECONDS,
        code="queue_full",
    )


def _check(submission: Submission, idempotency: IdempotencyKey | None) -> None:
    timeout = submission.timeout_seconds
    if timeout is not None and not 0 < timeout <= MAX_TIMEOUT_SECONDS:
        expected = f"more than 0 and at most {MAX_TIMEOUT_SECONDS:.0f} seconds"
        raise errors.InvalidInput(
            f"timeout_seconds {timeout!r} is not valid: expected {expected}",
            details=[{"field": "timeout_seconds", "message": f"expected {expected}"}],
        )
    check_key(idempotency)

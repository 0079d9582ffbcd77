"""Repeating executions by hand: one by its id, or all that a filter matches. What that means says `retry_rules`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock, Entropy, system_entropy
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.engine.audited import Batch, submitter_of
from flow_platform.engine.claims import Claims
from flow_platform.engine.execution_filters import with_ids
from flow_platform.engine.grants import Grant, Grants
from flow_platform.engine.retry_rules import PAGE, Changed, VersionWish, above, repeat
from flow_platform.engine.stages import Stages
from flow_platform.engine.submit import IdempotencyKey, check_key, first_answer
from flow_platform.engine.wakeups import WORK, Wakeups
from flow_platform.store.base import ExecutionFilter, IdempotencyRecord, Store, Transaction
from flow_sdk.wire.status import Status

MAX_RETRIED: Final = 1000  # Executions that one call retries.
RETRY_BATCH: Final = 25  # Of these in one transaction: others write in between.
MAX_SCANNED: Final = 5000  # Rows that one call looks at; more of what cannot be retried now hide the rest for a while.
RETRIED_UNNAMED: Final = (Status.DEAD_LETTER, Status.FAILED, Status.TIMEOUT)
"""What a filter without a status matches. Whoever cancelled something did not want it: that has to be named."""


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
        asked = replace(changed, submitted_by=submitter_of(principal))

        def operation(tx: Transaction) -> tuple[Execution, bool, list[Grant]]:
            if idempotency and (earlier := first_answer(tx, org_id, workspace_id, idempotency)):
                return earlier, False, []
            old = tx.executions.find_in_workspace(org_id, workspace_id, execution_id)
            if old is None:
                raise errors.NotFound(f"execution {execution_id!r} not found")
            execution = repeat(tx, old, asked, now, self._entropy)
            if idempotency:
                record = IdempotencyRecord(idempotency.key, idempotency.fingerprint, execution.id)
                tx.executions.save_idempotent(org_id, workspace_id, record, now)
            return execution, True, self._grants.grant_waiting(tx)

        execution, is_new, granted = await self._store.write(operation)
        if is_new:
            self._stages.accepted(execution.id, started)
            self._tell(granted)
        return replace(execution, status=Status.QUEUED)  # As a submit is answered, also for a graph, which began.

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
            NotFound: The organization has no such workspace, or that has nothing of what the filter names.
            Forbidden: An execution asks.
        """
        require_retry(principal, org_id, workspace_id)
        ids, truncated = await self._store.read(lambda tx: _matching(tx, org_id, workspace_id, where))
        result = BulkRetried(truncated=truncated)
        if dry_run:
            result.retried = dict.fromkeys(ids)
            return result
        changed = Changed(version, submitted_by=submitter_of(principal))
        for start in range(0, len(ids), RETRY_BATCH):
            batch = ids[start : start + RETRY_BATCH]
            entered = await self._store.write(lambda tx, batch=batch: self._retry_all(tx, batch, changed))
            done, granted = entered.result
            self._tell(granted)
            result.retried |= done.retried
            result.refused += done.refused
        return result

    def _retry_all(self, tx: Transaction, ids: list[str], changed: Changed) -> Batch[tuple[BulkRetried, list[Grant]]]:
        result = BulkRetried()
        for execution_id in ids:
            old = tx.executions.find(execution_id)
            if old is None:
                continue
            try:
                new = repeat(tx, old, changed, self._clock.now(), self._entropy)
            except errors.FlowError as error:
                if type(error) not in (errors.NotFound, errors.Conflict, errors.BudgetExhausted):
                    raise  # Of the store, which runs the whole batch again.
                result.refused.append(Refusal(execution_id, error))
            else:
                result.retried[execution_id] = new.id
        return Batch((result, self._grants.grant_waiting(tx)), _told(result))

    def _tell(self, granted: list[Grant]) -> None:
        self._claims.deliver(granted)
        self._wakeups.notify_others([WORK])  # The runners that wait here were thought of in the transaction.


def _told(done: BulkRetried) -> dict[str, Any]:
    """What the audit log says of a batch: each execution with the one that repeats it, or why there is none."""
    if not done.retried:
        return {}
    refused = {one.execution_id: one.error.error_code for one in done.refused}
    return {"retried": len(done.retried), "retried_as": dict(done.retried), "refused": refused}


def require_retry(principal: Principal, org_id: str, workspace_id: str) -> None:
    """Who may retry: who may submit, except executions.

    Raises:
        Forbidden: An execution asks, or the role does not submit.
    """
    principal.require(Action.SUBMIT, org_id, workspace_id)
    if principal.role is Role.EXECUTION:
        raise errors.Forbidden("an execution retries nothing by id: it calls the component again")


def _matching(tx: Transaction, org_id: str, workspace_id: str, where: ExecutionFilter) -> tuple[list[str], bool]:
    """Ids of those that can be retried, oldest first: parents before what they started. And whether there are more."""
    where = with_ids(tx, org_id, workspace_id, where)
    candidates: dict[str, Execution] = {}
    for status in (where.status,) if where.status else RETRIED_UNNAMED:
        cursor: str | None = None
        unretried = replace(where, status=status, retried=False)
        while len(candidates) < MAX_SCANNED:
            page = tx.executions.list(org_id, workspace_id, unretried, cursor, PAGE)
            candidates.update((execution.id, execution) for execution in page.items)
            cursor = page.next_cursor
            if cursor is None:
                break
    ids: list[str] = []
    chosen: set[str] = set()
    for execution in sorted(candidates.values(), key=lambda found: (found.created_at, found.depth, found.id)):
        if above(tx, execution, chosen) is not None:
            continue
        if len(ids) == MAX_RETRIED:
            return ids, True
        ids.append(execution.id)
        chosen.add(execution.id)
    return ids, len(candidates) >= MAX_SCANNED

"""Checkpoints: what a workflow asks for once, and what is sent to it. See `flow_sdk.wire.durable`.

An execution asks with its own token, and for itself only. Whoever sends it an event does so as a user, or as an
execution above it. A value is given once: the first result of a step counts, and an event is read by one wait.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from datetime import datetime, timedelta
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.domain.checkpoint import AWAITED, Checkpoint
from flow_platform.domain.clock import Clock, Entropy, new_id, system_entropy
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Action, Principal
from flow_platform.engine import json_schema, sent_events, suspension, withdrawal
from flow_platform.engine.executions import Executions
from flow_platform.engine.replay import CheckpointReplay
from flow_platform.engine.validation import invalid, missing
from flow_platform.engine.wakeups import Wakeups
from flow_platform.store.base import Store, Transaction
from flow_sdk.wire.durable import (
    MAX_CHECKPOINTS,
    MAX_VALUE_BYTES,
    SUSPENDED,
    CheckpointDocument,
    CheckpointKind,
    CheckpointRequest,
    CheckpointStatus,
    StepResult,
    SuspensionDocument,
    SuspensionRequest,
)
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.status import Status

MAX_SECONDS: Final = 30 * 24 * 3600.0  # As the longest execution.
MAX_NAME: Final = 200
MAX_MESSAGE: Final = 4_000
MAX_APPROVERS: Final = 100
LOOK_AGAIN_SECONDS: Final = 5.0  # The safety net under the wake-ups.


class Checkpoints:
    """Of all executions."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        wakeups: Wakeups,
        executions: Executions,
        entropy: Entropy = system_entropy,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._executions = executions
        self._entropy = entropy

    async def ask(
        self, principal: Principal, org_id: str, workspace_id: str, execution_id: str, request: CheckpointRequest
    ) -> CheckpointDocument:
        """Makes a checkpoint of the asking execution, or finds the one that an earlier attempt asked for.

        Raises:
            NotFound, Forbidden: Somebody else asks.
            Conflict: `parent_ended`: its attempt has ended.
            InvalidInput: A field is out of bounds; `too_many_checkpoints`.
        """
        principal.require(Action.SUBMIT, org_id, workspace_id)
        _check(request)

        def operation(tx: Transaction) -> CheckpointDocument:
            execution = _asking(tx, principal, execution_id)
            replay = CheckpointReplay(tx, execution, request)
            found = replay.earlier_checkpoint(self._clock.now())
            if found is None:
                found = self._make(tx, execution, request)
                replay.remember(found)
            elif found.status is CheckpointStatus.WITHDRAWN and not replay.is_sent_again:
                found = withdrawal.reopen(tx, found, self._clock.now())
            return self._document(found)

        return await self._store.write(operation)

    async def finish(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        execution_id: str,
        checkpoint_id: str,
        result: StepResult,
    ) -> CheckpointDocument:
        """Keeps the result of a step. One that has a result keeps it.

        Raises:
            NotFound: The execution has no such step.
            Conflict: `parent_ended`.
            InvalidInput: The value is too large.
        """
        principal.require(Action.SUBMIT, org_id, workspace_id)
        check_value("value", result.value)

        def operation(tx: Transaction) -> CheckpointDocument:
            execution = _asking(tx, principal, execution_id)
            found = _of(tx, execution, checkpoint_id)
            if found.kind is not CheckpointKind.STEP:
                raise errors.InvalidInput(f"checkpoint {checkpoint_id!r} is a {found.kind.value}: expected a step")
            status = CheckpointStatus.FAILED if result.error else CheckpointStatus.DONE
            finished = dataclasses.replace(
                found, status=status, value=result.value, error=result.error, finished_at=self._clock.now()
            )
            return self._document(finished if tx.checkpoints.finish(finished) else _of(tx, execution, checkpoint_id))

        return await self._store.write(operation)

    async def withdraw(
        self, principal: Principal, org_id: str, workspace_id: str, execution_id: str, checkpoint_id: str
    ) -> CheckpointDocument:
        """Closes a wait that the code gave up; see `withdrawal`. One that has ended otherwise stays as it is.

        Raises:
            NotFound: The execution has no such checkpoint.
            InvalidInput: It is a step or a timer, which nobody sends anything to.
            Conflict: `parent_ended`.
        """
        principal.require(Action.SUBMIT, org_id, workspace_id)

        def operation(tx: Transaction) -> list[Checkpoint]:
            execution = _asking(tx, principal, execution_id)
            found = _of(tx, execution, checkpoint_id)
            if found.kind not in AWAITED:
                raise errors.InvalidInput(
                    f"checkpoint {checkpoint_id!r} is a {found.kind.value}: expected an event or an approval"
                )
            return withdrawal.withdraw(tx, execution, found, self._clock.now())

        withdrawn, *given = await self._store.write(operation)
        if given:
            self._wakeups.notify([checkpoint.id for checkpoint in given])
        return self._document(withdrawn)

    async def wait(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        execution_id: str,
        checkpoint_id: str,
        hold_seconds: float,
    ) -> CheckpointDocument:
        """The checkpoint, as soon as it is not open any more or the hold is over."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + hold_seconds
        with self._wakeups.subscribe(checkpoint_id) as waiter:
            while True:
                found = await self._get(principal, org_id, workspace_id, execution_id, checkpoint_id)
                remaining = ends - loop.time()
                if not found.is_open(self._clock.now()) or remaining <= 0:
                    return self._document(found)
                if found.due_at is not None:
                    remaining = min(remaining, max(0.001, (found.due_at - self._clock.now()).total_seconds()))
                await waiter.wait(min(remaining, LOOK_AGAIN_SECONDS))

    async def list(
        self, principal: Principal, org_id: str, workspace_id: str, execution_id: str
    ) -> list[CheckpointDocument]:
        """All checkpoints of an execution, oldest first, with their values."""
        principal.require(Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> list[Checkpoint]:
            execution = self._executions.find(tx, principal, org_id, workspace_id, execution_id)
            return tx.checkpoints.list(execution.id, MAX_CHECKPOINTS)

        return [self._document(found) for found in await self._store.read(operation)]

    async def may_suspend(
        self, principal: Principal, org_id: str, workspace_id: str, execution_id: str, request: SuspensionRequest
    ) -> SuspensionDocument:
        """Whether the asking execution may give its container back: nothing that it waits for is there, and its code
        is known to make the same calls when it is run again.
        """
        principal.require(Action.SUBMIT, org_id, workspace_id)
        asked = ErrorDocument(code=SUSPENDED, details=request.details)

        def operation(tx: Transaction) -> SuspensionDocument:
            execution = _asking(tx, principal, execution_id)
            reason = suspension.objection(tx, execution, asked, self._clock.now())
            return SuspensionDocument(suspend=reason is None, reason=reason or "")

        return await self._store.write(operation)

    async def _get(
        self, principal: Principal, org_id: str, workspace_id: str, execution_id: str, checkpoint_id: str
    ) -> Checkpoint:
        principal.require(Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> Checkpoint:
            return _of(tx, self._executions.find(tx, principal, org_id, workspace_id, execution_id), checkpoint_id)

        return await self._store.read(operation)

    def _make(self, tx: Transaction, execution: Execution, request: CheckpointRequest) -> Checkpoint:
        count = tx.checkpoints.count(execution.id)
        if count >= MAX_CHECKPOINTS:
            raise errors.InvalidInput(
                f"execution {execution.id!r} has {count} checkpoints: expected at most {MAX_CHECKPOINTS}",
                code="too_many_checkpoints",
            )
        now = self._clock.now()
        made = Checkpoint(
            id=new_id(now, self._entropy),
            execution_id=execution.id,
            kind=request.kind,
            name=request.name,
            created_at=now,
            due_at=None if request.seconds is None else now + timedelta(seconds=request.seconds),
            value_schema=request.value_schema,
            approvers=tuple(request.approvers),
            message=request.message,
        )
        tx.checkpoints.insert(made)
        return sent_events.deliver_waiting(tx, made, now) if made.kind is CheckpointKind.EVENT else made

    def _document(self, checkpoint: Checkpoint) -> CheckpointDocument:
        return document_of_checkpoint(checkpoint, self._clock.now())


def document_of_checkpoint(checkpoint: Checkpoint, now: datetime) -> CheckpointDocument:
    remaining = None if checkpoint.due_at is None else max(0.0, (checkpoint.due_at - now).total_seconds())
    return CheckpointDocument(
        checkpoint_id=checkpoint.id,
        kind=checkpoint.kind,
        name=checkpoint.name,
        status=checkpoint.status_at(now),
        value=checkpoint.value,
        error=checkpoint.error,
        due_at=checkpoint.due_at,
        finished_at=checkpoint.finished_at or (None if checkpoint.is_open(now) else checkpoint.due_at),
        remaining_seconds=remaining,
        message=checkpoint.message,
        approvers=list(checkpoint.approvers),
        created_at=checkpoint.created_at,
    )


def check_value(name: str, value: Any) -> None:
    """Raises InvalidInput when a value is too large to be kept as a checkpoint."""
    size = len(json.dumps(value, separators=(",", ":"), ensure_ascii=True))
    if size > MAX_VALUE_BYTES:
        raise invalid(
            name, f"{size} bytes as JSON", f"at most {MAX_VALUE_BYTES}; larger things are results of components"
        )


def _check(request: CheckpointRequest) -> None:
    if not 0 < len(request.name) <= MAX_NAME or "\0" in request.name:
        raise invalid("name", request.name, f"1 to {MAX_NAME} characters without NUL")
    if request.kind is CheckpointKind.TIMER and request.seconds is None:
        raise missing("seconds", "how long the timer runs")
    if request.seconds is not None and not 0 <= request.seconds <= MAX_SECONDS:
        raise invalid("seconds", request.seconds, f"0 to {MAX_SECONDS:.0f}")
    if request.kind not in AWAITED and (request.value_schema or request.approvers):
        raise invalid("kind", request.kind.value, "event or approval, if a schema or approvers are given")
    if len(request.message) > MAX_MESSAGE or "\0" in request.message:
        raise invalid("message", request.message, f"at most {MAX_MESSAGE} characters without NUL")
    if len(request.approvers) > MAX_APPROVERS:
        raise invalid("approvers", len(request.approvers), f"at most {MAX_APPROVERS}")
    if request.value_schema is not None:
        json_schema.check_schema("value_schema", request.value_schema)


def _asking(tx: Transaction, principal: Principal, execution_id: str) -> Execution:
    """The execution whose container asks for itself; locked, so that its calls are counted one after the other."""
    if principal.execution_id != execution_id:
        raise errors.Forbidden(f"only execution {execution_id!r} itself asks for its checkpoints, with its own token")
    execution = tx.executions.find(execution_id, for_update=True)
    if execution is None or execution.status is not Status.RUNNING or execution.lease_epoch != principal.lease_epoch:
        raise errors.Conflict(
            f"execution {execution_id!r} is no longer running: its token asks for nothing", code="parent_ended"
        )
    return execution


def _of(tx: Transaction, execution: Execution, checkpoint_id: str) -> Checkpoint:
    """A checkpoint of the execution, or of the one that it repeats: its calls may be answered with those."""
    found = tx.checkpoints.find(checkpoint_id)
    if found is None or (found.execution_id != execution.id and found.execution_id != execution.retry_of_id):
        raise errors.NotFound(f"checkpoint {checkpoint_id!r} not found")
    return found

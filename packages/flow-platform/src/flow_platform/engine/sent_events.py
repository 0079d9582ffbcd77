"""Events that are sent to executions from outside, and the answers to approvals.

An event goes to the oldest wait for its name that is open, else it is kept for the next one; each is read once. An
approval is answered only while it is asked for, by those who may, and the platform says who it was.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, Final, cast

from flow_platform.domain import errors
from flow_platform.domain.checkpoint import AWAITED, Checkpoint, SentEvent
from flow_platform.domain.clock import Clock, Entropy, new_id, system_entropy
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.engine import json_schema
from flow_platform.engine.claims import Claims
from flow_platform.engine.ends import Changes, Ends
from flow_platform.engine.executions import Executions
from flow_platform.engine.grants import Grant, Grants
from flow_platform.engine.validation import invalid, missing
from flow_platform.engine.wakeups import WORK, Wakeups
from flow_platform.store.base import NewEvent, Store, Transaction
from flow_sdk.wire.durable import (
    MAX_UNREAD_EVENTS,
    ApprovalDocument,
    CheckpointKind,
    CheckpointStatus,
    SentDocument,
)

MAX_NAME: Final = 200
MAX_COMMENT: Final = 4_000
ANSWERING: Final = frozenset({Role.ADMIN, Role.BUILDER})
"""Who answers an approval that names nobody."""


class SentEvents:
    """Sends events to executions."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        wakeups: Wakeups,
        executions: Executions,
        ends: Ends,
        grants: Grants,
        claims: Claims,
        entropy: Entropy = system_entropy,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups
        self._executions = executions
        self._ends = ends
        self._grants = grants
        self._claims = claims
        self._entropy = entropy

    async def send(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        execution_id: str,
        name: str,
        payload: Any,
        key: str = "",
    ) -> SentDocument:
        """Sends one event. The same key a second time changes nothing.

        Raises:
            NotFound: There is no such execution, or the sender does not see it.
            Conflict: `execution_ended`.
            Forbidden: An approval is asked for, and the sender may not answer it.
            InvalidInput: The payload does not fit what is waited for, with the place; `too_many_unread_events`.
        """
        principal.require(Action.SUBMIT, org_id, workspace_id)
        if not 0 < len(name) <= MAX_NAME or "\0" in name:
            raise invalid("name", name, f"1 to {MAX_NAME} characters without NUL")

        def operation(tx: Transaction) -> tuple[SentDocument, str | None, Changes, list[Grant]]:
            self._executions.find(tx, principal, org_id, workspace_id, execution_id)
            # Locked: what is sent and who begins to wait at the same moment must see each other.
            execution = tx.executions.find(execution_id, for_update=True)
            if execution is None:
                raise errors.NotFound(f"execution {execution_id!r} not found")
            earlier = tx.checkpoints.find_sent(execution.id, key) if key else None
            if earlier is not None:
                return _document(earlier), None, Changes(), []
            if execution.status.is_terminal:
                raise errors.Conflict(
                    f"execution {execution.id!r} is {execution.status.value!r}: it waits for nothing any more",
                    code="execution_ended",
                )
            sent = self._record(tx, execution, principal, name, payload, key)
            if sent.checkpoint_id is None:
                return _document(sent), None, Changes(), []
            changes = self._ends.wake(tx, execution, self._clock.now())
            return _document(sent), sent.checkpoint_id, changes, self._grants.grant_waiting(tx)

        document, delivered_to, changes, granted = await self._store.write(operation)
        self._claims.deliver(granted)
        if delivered_to is not None:
            woken = [WORK] if changes.has_queued else []
            self._wakeups.notify([delivered_to, execution_id, *woken])
        return document

    def _record(
        self, tx: Transaction, execution: Execution, principal: Principal, name: str, payload: Any, key: str
    ) -> SentEvent:
        now = self._clock.now()
        position = tx.checkpoints.count_sent(execution.id) + 1
        sent = SentEvent(new_id(now, self._entropy), execution.id, position, name, payload, principal.subject, now, key)
        opened = tx.checkpoints.open(execution.id, name)
        # A step or a timer of the same name gets nothing from outside.
        waiting = [found for found in opened if found.kind in AWAITED and found.is_open(now)]
        for checkpoint in waiting:
            value = _value_for(checkpoint, principal, payload, now)
            done = dataclasses.replace(checkpoint, status=CheckpointStatus.DONE, value=value, finished_at=now)
            if tx.checkpoints.finish(done):
                sent = dataclasses.replace(sent, checkpoint_id=checkpoint.id)
                _tell(tx, execution, done, principal, now)
                break
        if sent.checkpoint_id is None and tx.checkpoints.count_unread(execution.id) >= MAX_UNREAD_EVENTS:
            raise errors.InvalidInput(
                f"execution {execution.id!r} has {MAX_UNREAD_EVENTS} events that nobody waited for yet: "
                "expected fewer before another one is sent",
                code="too_many_unread_events",
            )
        tx.checkpoints.insert_sent(sent)
        return sent


def deliver_waiting(tx: Transaction, checkpoint: Checkpoint, now: datetime) -> Checkpoint:
    """Gives a new wait the oldest event of its name that came before it."""
    sent = tx.checkpoints.oldest_unread(checkpoint.execution_id, checkpoint.name)
    if sent is None:
        return checkpoint
    done = dataclasses.replace(checkpoint, status=CheckpointStatus.DONE, value=sent.payload, finished_at=now)
    tx.checkpoints.finish(done)
    tx.checkpoints.mark_read(sent.id, checkpoint.id)
    return done


def _value_for(checkpoint: Checkpoint, principal: Principal, payload: Any, now: datetime) -> Any:
    if checkpoint.kind is CheckpointKind.APPROVAL:
        return _answer(checkpoint, principal, payload, now).model_dump(mode="json")
    if checkpoint.value_schema is not None:
        json_schema.check_value("payload", checkpoint.value_schema, payload)
    return payload


def _answer(checkpoint: Checkpoint, principal: Principal, payload: Any, now: datetime) -> ApprovalDocument:
    named = checkpoint.approvers
    is_user = principal.role is not Role.EXECUTION
    may = principal.subject in named or principal.role_name in named if named else principal.role in ANSWERING
    if not (is_user and may):
        expected = ", ".join(repr(name) for name in named) or "an admin or a builder"
        raise errors.Forbidden(
            f"{principal.subject!r} ({principal.role_name}) may not answer approval {checkpoint.name!r}: "
            f"expected {expected}",
            code="not_an_approver",
        )
    answer = cast("dict[str, Any]", payload) if isinstance(payload, dict) else {}
    approved, comment = answer.get("approved"), answer.get("comment") or ""
    if not isinstance(approved, bool):
        raise missing("approved", "true or false")
    if not isinstance(comment, str) or len(comment) > MAX_COMMENT:
        raise invalid("comment", comment, f"text of at most {MAX_COMMENT} characters")
    return ApprovalDocument(approved=approved, comment=comment, by=principal.subject, at=now)


def _tell(tx: Transaction, execution: Execution, checkpoint: Checkpoint, principal: Principal, now: datetime) -> None:
    """Notes who sent what: the audit trail of approvals, and for people who read the events."""
    is_approval = checkpoint.kind is CheckpointKind.APPROVAL
    data = {"name": checkpoint.name, "by": principal.subject, "role": principal.role_name}
    if is_approval:
        data |= {name: checkpoint.value[name] for name in ("approved", "comment")}
    kind = "approval" if is_approval else "event_received"
    event = NewEvent(execution.id, execution.attempt, kind, data, now, f"checkpoint:{checkpoint.id}")
    tx.executions.append_events([event])


def _document(sent: SentEvent) -> SentDocument:
    return SentDocument(event_id=sent.id, delivered=sent.checkpoint_id is not None)

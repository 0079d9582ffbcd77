"""Checkpoints: values that a workflow gets once and keeps. What they are for says `flow_sdk.wire.durable`.

A checkpoint is open until its value is there. What only the clock decides, that a timer ended or that an event came
too late, is never written: it follows from `due_at`, so that a thousand sleeping workflows cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from flow_sdk.wire.durable import CheckpointKind, CheckpointStatus
from flow_sdk.wire.execution import ErrorDocument

AWAITED: Final = frozenset({CheckpointKind.EVENT, CheckpointKind.APPROVAL})
"""Get their value from outside."""


@dataclass(frozen=True)
class Checkpoint:
    """One value of one execution.

    Attributes:
        status: As recorded; see `status_at`.
        due_at: When a timer ends or an awaited value expires; None: with the execution.
        approvers: Subjects or roles; empty: every admin and builder.
    """

    id: str
    execution_id: str
    kind: CheckpointKind
    name: str
    created_at: datetime
    due_at: datetime | None = None
    value_schema: dict[str, Any] | None = None
    approvers: tuple[str, ...] = ()
    message: str = ""
    status: CheckpointStatus = CheckpointStatus.OPEN
    value: Any = None
    error: ErrorDocument | None = None
    finished_at: datetime | None = None

    def status_at(self, now: datetime) -> CheckpointStatus:
        """The status, with what the clock decided."""
        if self.status is not CheckpointStatus.OPEN or self.due_at is None or now < self.due_at:
            return self.status
        return CheckpointStatus.DONE if self.kind is CheckpointKind.TIMER else CheckpointStatus.EXPIRED

    def is_open(self, now: datetime) -> bool:
        return self.status_at(now) is CheckpointStatus.OPEN

    @property
    def stands(self) -> bool:
        """Whether a repetition after a failure keeps it; a step that failed is tried again."""
        return self.status is not CheckpointStatus.FAILED


@dataclass(frozen=True)
class SentEvent:
    """Something that was sent to an execution from outside.

    Attributes:
        position: Among all that was sent to it, from 1.
        key: Makes a second sending of it a no-op.
        checkpoint_id: Of the wait that read it.
    """

    id: str
    execution_id: str
    position: int
    name: str
    payload: Any
    sent_by: str
    sent_at: datetime
    key: str = ""
    checkpoint_id: str | None = None


@dataclass(frozen=True)
class Awaited:
    """What an attempt that gave its container back waits for."""

    execution_ids: tuple[str, ...] = field(default=())
    checkpoint_ids: tuple[str, ...] = field(default=())


def awaited_by(error: ErrorDocument) -> Awaited:
    """Reads the document that ended the attempt; what is not understood waits for nothing."""
    return Awaited(
        tuple(_named(error, "execution_id")),
        tuple(_named(error, "checkpoint_id")),
    )


def _named(error: ErrorDocument, name: str) -> Iterable[str]:
    for detail in error.details:
        value = detail.get("message")
        if detail.get("field") == name and isinstance(value, str):
            yield value

"""What a workflow gets once and keeps, whatever happens to its container: the documents of checkpoints.

A *checkpoint* is a value that a workflow asks the platform for besides the results of its calls: the result of a step,
the end of a timer, an event from outside, an approval. It is found again by the code's next attempt as a call is: by
what was asked for, and how often before.

    POST {W}/executions/{id}/checkpoints                 CheckpointRequest -> CheckpointDocument
    GET  {W}/executions/{id}/checkpoints/{checkpoint_id} held by `Prefer: wait=N` until it is not open any more
    POST {W}/executions/{id}/checkpoints/{checkpoint_id}/result   StepResult -> CheckpointDocument
    POST {W}/executions/{id}/checkpoints/{checkpoint_id}/withdrawal       -> CheckpointDocument
    POST {W}/executions/{id}/suspension                  SuspensionRequest -> SuspensionDocument
    POST {W}/executions/{id}/events/{name}               any JSON -> SentDocument
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any, Final

from pydantic import Field

from flow_sdk.wire.execution import Document, ErrorDocument, StatusDocument

SUSPENDED: Final = "suspended"
"""Code of the ErrorDocument by which a workflow's attempt ends to give its container back.

Its details name what the workflow waits for: `{"field": "execution_id" | "checkpoint_id", "message": id}`.
"""

MAX_VALUE_BYTES: Final = 1 << 20  # Of a step's result or an event, as JSON; larger things are results of components.
MAX_CHECKPOINTS: Final = 10_000  # Of one execution; each is a row and a part of every replay.
MAX_UNREAD_EVENTS: Final = 10_000  # Sent to one execution and not waited for yet.


class CheckpointKind(enum.StrEnum):
    STEP = "step"
    TIMER = "timer"
    EVENT = "event"
    APPROVAL = "approval"


class CheckpointStatus(enum.StrEnum):
    OPEN = "open"
    DONE = "done"
    FAILED = "failed"  # A step that raised.
    EXPIRED = "expired"  # Nobody sent the event, or answered, in time.
    WITHDRAWN = "withdrawn"  # The code gave up waiting; a later attempt that asks for it again opens it again.


class CheckpointRequest(Document):
    """Asks for a value, or finds it again.

    Attributes:
        name: Of the step, or of the event; of a timer for people only.
        seconds: How long: a timer must have it; for event and approval the time-out, None: until the deadline.
        value_schema: JSON Schema of the event's payload; what does not fit is refused when it is sent.
        approvers: Who may answer an approval: subjects or roles. Empty: every admin and builder.
        message: Of an approval: what is asked, for people.
        occurrence: How many equal ones this attempt asked for before; so a request that is sent twice is one. None:
            the platform counts.
    """

    kind: CheckpointKind
    name: str
    seconds: float | None = None
    value_schema: dict[str, Any] | None = None
    approvers: list[str] = Field(default_factory=list[str])
    message: str = ""
    occurrence: int | None = None


class CheckpointDocument(Document):
    """Attributes:
    due_at: When a timer ends, or an event or approval expires.
    finished_at: When it came to its end: the step, the timer, the event, the answer, or the time-out.
    remaining_seconds: Until then, by the platform's clock; clocks of containers need not agree with it.
    value: Of a step: what it returned. Of an event: its payload. Of an approval: an `ApprovalDocument`.
    """

    checkpoint_id: str
    kind: CheckpointKind
    name: str
    status: CheckpointStatus
    value: Any = None
    error: ErrorDocument | None = None
    due_at: datetime | None = None
    finished_at: datetime | None = None
    remaining_seconds: float | None = None
    message: str = ""
    approvers: list[str] = Field(default_factory=list[str])
    created_at: datetime


class StepResult(Document):
    """How a step ended: a value, or an error."""

    value: Any = None
    error: ErrorDocument | None = None


class SuspensionRequest(Document):
    """Asks whether the container may be given back. `details`: as in the ErrorDocument that then ends the attempt."""

    details: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])


class SuspensionDocument(Document):
    """`suspend` False: something is there already, or the code is not to be run again; `reason` says which."""

    suspend: bool
    reason: str = ""


class ApprovalDocument(Document):
    """The answer to an approval. `by` and `at` are the platform's word, not the sender's."""

    approved: bool
    comment: str = ""
    by: str = ""
    at: datetime | None = None


class SentDocument(Document):
    """The answer to an event that was sent. `delivered`: a wait for it was open and has it now."""

    event_id: str
    delivered: bool


class AheadCall(Document):
    """A call of an earlier attempt, with what it is answered with: an execution or a checkpoint.

    Attributes:
        ordinal: Its place among all calls, by which it is told as made.
        key: See `wire.replay`.
    """

    ordinal: int
    key: str
    occurrence: int
    execution: StatusDocument | None = None
    checkpoint: CheckpointDocument | None = None


class AheadDocument(Document):
    """Ended calls that the code makes next, if it does the same again: `ahead` in the answer to who asked for them.

    Attributes:
        after: What to ask for next; None: there are no more.
    """

    calls: list[AheadCall] = Field(default_factory=list[AheadCall])
    after: int | None = None

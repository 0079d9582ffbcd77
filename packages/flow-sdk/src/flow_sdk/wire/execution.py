"""What a client sees of an execution. Source: the platform specification, section 2."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.status import Kind, Status


class Document(BaseModel):
    """Base of everything on the wire. Unknown fields are ignored: old and new processes understand each other."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ComponentRef(Document):
    kind: Kind
    id: str
    version: int
    name: str
    slug: str = ""


class ErrorDocument(Document):
    """Why an attempt or an execution did not complete.

    Attributes:
        code: Stable and machine-readable, e.g. `component_error`, `invalid_input`, `out_of_memory`.
        type: The exception's class name for errors of the component, else empty.
        message: One paragraph for people, with the offending value.
        retryable: False when another attempt of the same version with the same input cannot help.
        details: Per field: `{"field", "message"}`.
        attempt: Which attempt it was; 0 for the execution as a whole.
    """

    code: str
    type: str = ""
    message: str = ""
    traceback: str | None = None
    retryable: bool = True
    details: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    attempt: int = 0


class MetricsDocument(Document):
    """None until known. `queue_ms`: until claimed; `start_ms`: until user code; `run_ms`: of user code.

    Of a graph workflow: the sums over its nodes, the largest `max_rss_bytes`; `nodes` counts what became of them.
    """

    queue_ms: float | None = None
    start_ms: float | None = None
    run_ms: float | None = None
    cpu_ms: float | None = None
    max_rss_bytes: int | None = None
    stages: dict[str, float] = Field(default_factory=dict[str, float])
    nodes: dict[str, int] | None = None


class BillingDocument(Document):
    """Attributes:
    credits: Micro-credits so far, with all that it started; None in lists.
    own_credits: Micro-credits so far of its own attempts and model calls.
    """

    transaction_id: str
    parent_transaction_id: str | None = None
    credits: int | None = None
    own_credits: int | None = None


class WaitingOn(Document):
    """What a non-terminal execution waits for, and until when at the latest.

    Attributes:
        reason: `start`, `runner`, `isolation`, `concurrency`, `rate`, `children`, `back_off`, `container`, `cancel`,
            `event`, `timer`, `approval`.
        until: When the engine acts by itself if nothing happens before.
        message: The same for people.
    """

    reason: str
    until: datetime | None = None
    message: str = ""


class Handle(Document):
    """The answer 202 to a submit."""

    execution_id: str
    status: Status
    status_url: str
    events_url: str
    deployment_id: str | None
    ring_id: str | None
    created_at: datetime


class StatusDocument(Document):
    """Attributes:
    retry_of_execution_id: The one that this repeats, by hand or because what started it was repeated by hand.
    retried_as_execution_id: The one that repeats this.
    submitted_by: `subject`, `role`, `request_id` and `address` of who asked for it; None below another execution.
    isolation: What its container is at least; decided when it was accepted.
    """

    execution_id: str
    status: Status
    component: ComponentRef
    deployment_id: str | None = None
    ring_id: str | None = None
    parent_execution_id: str | None = None
    root_execution_id: str | None = None
    retry_of_execution_id: str | None = None
    retried_as_execution_id: str | None = None
    submitted_by: dict[str, str] | None = None
    lifecycle_event: str = "workflow"
    isolation: Isolation = Isolation.NAMESPACES
    attempt: int = 0
    max_attempts: int = 1
    timeout_seconds: float = 300
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    output: Any = None
    outputs: Any = None
    usage: Any = None
    messages: Any = None
    state: Any = None
    session_id: str | None = None
    error: ErrorDocument | None = None
    errors: list[ErrorDocument] = Field(default_factory=list[ErrorDocument])
    metrics: MetricsDocument = MetricsDocument()
    billing: BillingDocument | None = None
    waiting_on: WaitingOn | None = None


class ReplayedHandle(Handle):
    """The answer to a call of a workflow that runs again, whose execution has ended: with its document."""

    execution: StatusDocument


class EventDocument(Document):
    """One event as stored: `position` counts from 1 per execution without gaps, over all attempts."""

    position: int
    execution_id: str
    attempt: int
    event_type: str
    event_data: Any = None
    timestamp: datetime


class ErrorBody(Document):
    """The body of every refused request."""

    code: str
    message: str
    details: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    request_id: str = ""

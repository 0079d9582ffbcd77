"""What is asked for when an execution is asked for, whoever asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flow_platform.domain.execution import RetryPolicy
from flow_platform.store.base import Payload
from flow_sdk.wire.status import Kind


@dataclass(frozen=True)
class Submission:
    """What a client asks for.

    Attributes:
        component: Id or slug.
        ring_id: None: the caller's (execution token, or `caller_deployment_id`), else the ring of lowest order.
        timeout_seconds: None: the component's own, else the kind's default. Counted from `start_at`, if that is given.
            One that is longer than the component's own does not count.
        is_timeout_instead: It counts instead of the component's own, whichever is longer; only the engine says so, for
            those who configure how a component is called: a node of a graph, a schedule, an endpoint of a service.
        start_at: Not started before; None: at once.
        concurrency_key: What the limit per key of the component's policy is counted by, e.g. a customer's id.
        priority: Higher first, within the workspace.
        deployment_id: Runs on this deployment instead of the active one; only the engine says so.
        retry: Instead of the component's own policy; only the engine says so (a node of a graph).
        retry_of_id: The execution that this one repeats, see `repetition`; only the engine says so.
        submitted_by: Who asks, see `audited.submitter_of`; of no meaning below another execution.
        occurrence: How many equal calls the asking execution's attempt made before this one, as its harness says.
    """

    kind: Kind
    component: str
    input_data: Any
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    lifecycle_event: str = "workflow"
    ring_id: str | None = None
    caller_deployment_id: str | None = None
    timeout_seconds: float | None = None
    is_timeout_instead: bool = False
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
    submitted_by: str | None = None
    occurrence: int | None = None


def payload_of(submission: Submission) -> Payload:
    return Payload(
        submission.input_data, submission.config, submission.session_id, submission.messages, submission.state
    )

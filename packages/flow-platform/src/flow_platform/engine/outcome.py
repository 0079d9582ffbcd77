"""What a reported end of an attempt means for its execution. Pure: chooses the event, touches nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from flow_platform.domain import execution as domain
from flow_platform.domain.execution import Execution
from flow_platform.domain.replay import LOST, RETURNED
from flow_platform.engine.reports import OutputReport
from flow_sdk.wire.execution import ErrorDocument, MetricsDocument
from flow_sdk.wire.status import Status

LOSS_CODES: Final = LOST - {"runner_lost"}
"""The attempt's container died or was never there: repeated by default, as nothing says the component is to blame."""


def is_loss(report: OutputReport) -> bool:
    return report.error is not None and report.error.code in LOSS_CODES


def event_for(execution: Execution, report: OutputReport, metrics: MetricsDocument, at: datetime) -> domain.Event:
    """Chooses the event for a report that carries the execution's current epoch."""
    error = report.error
    if execution.status is Status.CANCELLING:
        return domain.CancelCompleted(at)
    if error is None:
        return domain.AttemptSucceeded(at, metrics)
    if error.code == "timeout":
        return domain.DeadlineReached(at, timeout_error(execution))
    if error.code == RETURNED:
        return domain.AttemptReturned(at, error)
    if error.code in LOSS_CODES:
        return domain.decide_loss(execution, error, at)
    return domain.decide_failure(execution, error, at, metrics)


def timeout_error(execution: Execution) -> ErrorDocument:
    since = "it was to start" if execution.start_at > execution.created_at else "it was accepted"
    return ErrorDocument(
        code="timeout",
        message=f"Not finished {execution.timeout_seconds:g} s after {since} (queue time included)",
        retryable=False,
        attempt=execution.attempt,
    )


def lost_error(execution: Execution) -> ErrorDocument:
    return ErrorDocument(
        code="runner_lost",
        message=f"Runner {execution.lease_holder!r} stopped answering during attempt {execution.attempt}",
        attempt=execution.attempt,
    )


def cancel_error(execution: Execution, by: str) -> ErrorDocument:
    return ErrorDocument(code="cancelled", message=f"Cancelled by {by}", retryable=False, attempt=execution.attempt)


def metrics_of(execution: Execution, report: OutputReport, stages: dict[str, float]) -> MetricsDocument:
    """The figures of the last attempt; `queue_ms` counts from when it was to start to the first attempt."""
    measured = report.metrics
    queued = execution.started_at - execution.start_at if execution.started_at else None
    return MetricsDocument(
        queue_ms=round(queued.total_seconds() * 1000, 3) if queued else None,
        start_ms=measured.start_ms,
        run_ms=measured.run_ms,
        cpu_ms=measured.cpu_ms,
        max_rss_bytes=measured.max_rss_bytes,
        stages=stages,
    )

"""What a reported end of an attempt means: every pair of status and error code leads where the specification says."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from flow_platform.domain import execution as domain
from flow_platform.domain.clock import ManualClock
from flow_platform.domain.execution import Execution, RetryPolicy
from flow_platform.engine import outcome
from flow_platform.engine.reports import Origin, OutputReport
from flow_sdk.wire.execution import ErrorDocument, MetricsDocument
from flow_sdk.wire.runner import AttemptMetrics
from flow_sdk.wire.status import Kind, Status

NOW = ManualClock().now()


def running(**changes: object) -> Execution:
    queued = Execution(
        id="e1",
        org_id="o1",
        workspace_id="w1",
        kind=Kind.CODE_BLOCK,
        component_id="c1",
        component_slug="slug",
        component_name="Slug",
        version_id="v1",
        version=1,
        deployment_id="d1",
        ring_id="r1",
        root_id="e1",
        created_at=NOW,
        deadline_at=NOW + timedelta(seconds=300),
        timeout_seconds=300,
    )
    queued = dataclasses.replace(queued, **changes)
    return domain.apply(queued, domain.AttemptStarted(NOW, "runner", "i1", NOW + timedelta(seconds=10)))


def report(error: ErrorDocument | None) -> OutputReport:
    return OutputReport(Origin("e1", 1, 1, "runner"), {"ok": True}, None, None, None, error, AttemptMetrics())


def after(execution: Execution, error: ErrorDocument | None) -> Execution:
    event = outcome.event_for(execution, report(error), MetricsDocument(), NOW)
    return domain.apply(execution, event)


def test_a_result_completes() -> None:
    assert after(running(), None).status is Status.COMPLETED


def test_an_error_without_a_retry_policy_fails() -> None:
    ended = after(running(), ErrorDocument(code="component_error", type="ValueError", message="no"))
    assert ended.status is Status.FAILED
    assert ended.error is not None
    assert ended.error.type == "ValueError"


def test_a_retry_policy_that_is_used_up_is_a_dead_letter() -> None:
    execution = running(retry=RetryPolicy(max_attempts=2))
    error = ErrorDocument(code="component_error", type="OSError", message="no")
    retried = after(execution, error)
    assert retried.status is Status.QUEUED
    assert retried.available_at == NOW + timedelta(seconds=1)
    again = domain.apply(retried, domain.AttemptStarted(NOW, "runner", "i1", NOW + timedelta(seconds=10)))
    assert after(again, error).status is Status.DEAD_LETTER


def test_a_named_error_is_not_retried() -> None:
    execution = running(retry=RetryPolicy(max_attempts=5, non_retryable_errors=("KeyError",)))
    assert after(execution, ErrorDocument(code="component_error", type="KeyError")).status is Status.FAILED


def test_invalid_input_is_not_retried() -> None:
    execution = running(retry=RetryPolicy(max_attempts=5))
    assert after(execution, ErrorDocument(code="invalid_input", retryable=False)).status is Status.FAILED


@pytest.mark.parametrize("code", sorted(outcome.LOSS_CODES))
def test_a_lost_container_is_retried_then_a_dead_letter(code: str) -> None:
    execution = running()
    for _ in range(domain.LOST_ATTEMPTS_ALLOWED - 1):
        execution = after(execution, ErrorDocument(code=code))
        assert execution.status is Status.QUEUED
        execution = domain.apply(execution, domain.AttemptStarted(NOW, "runner", "i1", NOW + timedelta(seconds=10)))
    ended = after(execution, ErrorDocument(code=code))
    assert ended.status is Status.DEAD_LETTER
    assert ended.attempt == domain.LOST_ATTEMPTS_ALLOWED


def test_a_deadline_in_the_container_is_a_timeout() -> None:
    ended = after(running(), ErrorDocument(code="timeout"))
    assert ended.status is Status.TIMEOUT
    assert ended.error is not None
    assert "300 s" in ended.error.message


@pytest.mark.parametrize("error", [None, ErrorDocument(code="cancelled"), ErrorDocument(code="process_crashed")])
def test_however_an_attempt_ends_after_a_cancel_it_is_cancelled(error: ErrorDocument | None) -> None:
    execution = running()
    cancelling = domain.apply(execution, domain.CancelRequested(NOW, outcome.cancel_error(execution, "ada")))
    assert cancelling.status is Status.CANCELLING
    assert after(cancelling, error).status is Status.CANCELLED

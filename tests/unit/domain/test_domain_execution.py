"""The rules of an execution's life. What holds for every sequence of events is in tests/property."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from flow_platform.domain import errors
from flow_platform.domain.execution import (
    CANCEL_GRACE,
    LOST_ATTEMPTS_ALLOWED,
    AttemptRetried,
    AttemptsExhausted,
    AttemptStarted,
    CancelCompleted,
    CancelRequested,
    DeadlineReached,
    ExecutionFailed,
    Resumed,
    RetryPolicy,
    apply,
    decide_failure,
    decide_loss,
)
from flow_sdk.wire.execution import ErrorDocument, MetricsDocument
from flow_sdk.wire.status import Status
from tests.support.store_records import (
    ERROR,
    NOW,
    SECOND,
    TICK,
    cancelling,
    completed,
    execution,
    failed,
    retried,
    started,
    suspended,
)

FINAL = ErrorDocument(code="invalid_input", retryable=False)
LOST = ErrorDocument(code="runner_lost")


def running(**changes: object):
    return started(execution(**changes))


def test_a_start_takes_a_lease_with_a_new_epoch() -> None:
    one = started(execution(available_at=NOW), holder="r", instance="i", lease=10 * SECOND)

    assert (one.status, one.attempt, one.lease_epoch) == (Status.RUNNING, 1, 1)
    assert (one.lease_holder, one.lease_instance, one.lease_expires_at) == ("r", "i", NOW + 10 * SECOND)
    assert (one.started_at, one.available_at) == (NOW, None)


def test_started_at_is_the_first_attempts() -> None:
    second = started(retried(running(), NOW + SECOND), at=NOW + SECOND)

    assert (second.started_at, second.attempt, second.lease_epoch) == (NOW, 2, 2)


def test_an_end_gives_the_lease_back() -> None:
    for ended in (completed(running()), failed(running())):
        assert ended.finished_at == NOW
        assert (ended.lease_holder, ended.lease_instance, ended.lease_expires_at) == (None, None, None)
        assert ended.due_at is None


def test_what_the_table_does_not_name_is_refused_with_both_words() -> None:
    done = completed(running())

    with pytest.raises(errors.IllegalTransition, match=r"CancelRequested .* 'completed'"):
        apply(done, CancelRequested(NOW, ERROR))


def test_due_is_the_earlier_of_lease_and_deadline() -> None:
    assert execution().due_at == execution().deadline_at
    assert running().due_at == NOW + 10 * SECOND
    assert running(deadline_at=NOW + SECOND).due_at == NOW + SECOND
    assert suspended(running()).due_at == execution().deadline_at


def test_a_cancelling_execution_is_due_after_its_grace_even_behind_the_deadline() -> None:
    one = cancelling(running(deadline_at=NOW + SECOND))

    assert one.due_at == NOW + CANCEL_GRACE


def test_cancel_means_it_however_the_attempt_ends() -> None:
    one = cancelling(running(retry=RetryPolicy(max_attempts=9)))

    assert decide_failure(one, ERROR, NOW) == CancelCompleted(NOW)
    assert decide_loss(one, LOST, NOW) == CancelCompleted(NOW)
    late = apply(one, DeadlineReached(NOW, ErrorDocument(code="timeout")))
    assert (late.status, late.error) == (Status.CANCELLED, ERROR)


def test_cancelling_what_holds_no_lease_ends_it_at_once() -> None:
    for one in (execution(), suspended(running())):
        assert apply(one, CancelRequested(NOW, ERROR)).status is Status.CANCELLED


def test_without_a_policy_a_failure_is_final() -> None:
    metrics = MetricsDocument(run_ms=1.0)

    assert decide_failure(running(), ERROR, NOW, metrics) == ExecutionFailed(NOW, ERROR, metrics)


def test_a_policy_repeats_until_it_is_used_up() -> None:
    one = execution(retry=RetryPolicy(max_attempts=3, initial_interval_seconds=2))
    pauses = []
    while True:
        one = started(one)
        event = decide_failure(one, ERROR, NOW)
        one = apply(one, event)
        if not isinstance(event, AttemptRetried):
            break
        pauses.append((event.available_at - NOW).total_seconds())
        assert not event.lost

    assert isinstance(event, AttemptsExhausted)
    assert (one.status, one.attempt, one.failures, pauses) == (Status.DEAD_LETTER, 3, 3, [2.0, 4.0])


@pytest.mark.parametrize(
    "error",
    [FINAL, ErrorDocument(code="x", type="ValueError"), ErrorDocument(code="out_of_memory", type="MemoryError")],
)
def test_an_error_that_no_retry_can_help_fails_at_once(error: ErrorDocument) -> None:
    policy = RetryPolicy(max_attempts=5, non_retryable_errors=("ValueError", "out_of_memory"))

    assert decide_failure(running(retry=policy), error, NOW) == ExecutionFailed(NOW, error)


def test_a_final_error_in_the_last_attempt_is_failed_not_dead_letter() -> None:
    one = dataclasses.replace(running(retry=RetryPolicy(max_attempts=2)), failures=1)

    assert isinstance(decide_failure(one, FINAL, NOW), ExecutionFailed)
    assert isinstance(decide_failure(one, ERROR, NOW), AttemptsExhausted)


def test_a_retry_that_could_only_begin_at_the_deadline_is_not_waited_for() -> None:
    policy = RetryPolicy(max_attempts=3, initial_interval_seconds=5)

    assert isinstance(decide_failure(running(retry=policy, deadline_at=NOW + 5 * SECOND), ERROR, NOW), ExecutionFailed)
    just = running(retry=policy, deadline_at=NOW + 5 * SECOND + TICK)
    assert isinstance(decide_failure(just, ERROR, NOW), AttemptRetried)


def test_lost_attempts_are_repeated_without_a_policy_and_end_as_a_dead_letter() -> None:
    one = execution()
    pauses = []
    while True:
        one = started(one)
        event = decide_loss(one, LOST, NOW)
        one = apply(one, event)
        if not isinstance(event, AttemptRetried):
            break
        pauses.append(event.available_at - NOW)

    assert (one.status, one.losses, one.failures) == (Status.DEAD_LETTER, LOST_ATTEMPTS_ALLOWED, 0)
    assert pauses == [timedelta(0), SECOND]
    assert one.attempt == one.max_attempts


def test_losses_and_failures_are_counted_apart_and_bounded_together() -> None:
    one = execution(retry=RetryPolicy(max_attempts=2, initial_interval_seconds=0))
    for _ in range(2):
        one = started(one)
        one = apply(one, decide_loss(one, LOST, NOW))
    assert (one.losses, one.failures) == (2, 0)
    one = started(one)
    one = apply(one, decide_failure(one, ERROR, NOW))

    assert (one.status, one.attempt, one.max_attempts) == (Status.DEAD_LETTER, 3, 3)


def test_a_resumed_workflow_starts_a_new_attempt() -> None:
    resumed = started(apply(suspended(running()), Resumed(NOW)))

    assert (resumed.status, resumed.attempt, resumed.lease_epoch) == (Status.RUNNING, 2, 2)


def test_success_clears_the_error_of_earlier_attempts() -> None:
    assert completed(started(retried(running(), NOW))).error is None


def test_a_delay_survives_a_policy_that_would_overflow() -> None:
    policy = RetryPolicy(max_attempts=10_000, backoff_coefficient=1e9, maximum_interval_seconds=60)

    assert policy.delay(10_000) == timedelta(seconds=60)


def test_a_start_event_carries_who_holds_the_lease() -> None:
    event = AttemptStarted(NOW, "runner", "instance", NOW + SECOND)

    assert apply(execution(), event).lease_holder == event.holder

"""What holds for every execution, whatever happens to it in whatever order."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow_platform.domain import errors
from flow_platform.domain.execution import (
    LOST_ATTEMPTS_ALLOWED,
    TRANSITIONS,
    AttemptRetried,
    AttemptReturned,
    AttemptsExhausted,
    AttemptStarted,
    AttemptSucceeded,
    CancelCompleted,
    CancelRequested,
    DeadlineReached,
    Event,
    Execution,
    ExecutionFailed,
    Resumed,
    RetryPolicy,
    Suspended,
    apply,
    decide_failure,
    decide_loss,
)
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.status import TERMINAL_STATUSES, Status
from tests.support.store_records import ERROR, NOW, SECOND, execution, in_status

EVENTS: list[Event] = [
    AttemptStarted(NOW, "runner", "one", NOW + SECOND),
    AttemptSucceeded(NOW),
    AttemptRetried(NOW, ERROR, NOW, lost=False),
    AttemptRetried(NOW, ERROR, NOW, lost=True),
    AttemptReturned(NOW, ERROR),
    ExecutionFailed(NOW, ERROR),
    AttemptsExhausted(NOW, ERROR, lost=True),
    DeadlineReached(NOW, ERROR),
    CancelRequested(NOW, ERROR),
    CancelCompleted(NOW),
    Suspended(NOW),
    Resumed(NOW),
]
policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 6),
    initial_interval_seconds=st.floats(0, 3600),
    backoff_coefficient=st.floats(0, 1e9),
    maximum_interval_seconds=st.floats(0, 86_400),
    non_retryable_errors=st.sampled_from([(), ("ValueError",), ("component_error",)]),
)


def test_the_table_is_total_and_its_events_are_all_there_are() -> None:
    assert set(TRANSITIONS) == set(Status)
    named = {event for events in TRANSITIONS.values() for event in events}
    assert named == set(Event.__subclasses__()) == {type(event) for event in EVENTS}


def test_every_state_can_be_reached_and_only_terminal_ones_are_dead_ends() -> None:
    reached, frontier = {Status.QUEUED}, [Status.QUEUED]
    while frontier:
        for target in TRANSITIONS[frontier.pop()].values():
            if target not in reached:
                reached.add(target)
                frontier.append(target)

    assert reached == set(Status)
    assert {status for status, events in TRANSITIONS.items() if not events} == set(TERMINAL_STATUSES)


@pytest.mark.parametrize("status", list(Status))
def test_each_pair_of_status_and_event_is_in_the_table_or_refused_with_nothing_changed(status: Status) -> None:
    for event in EVENTS:
        before = in_status(status)[-1]
        snapshot = dataclasses.asdict(before)
        target = TRANSITIONS[status].get(type(event))
        if target is None:
            with pytest.raises(errors.IllegalTransition) as refused:
                apply(before, event)
            assert repr(status.value) in refused.value.message
        else:
            require_sound(apply(before, event), target)
        assert dataclasses.asdict(before) == snapshot


def require_sound(one: Execution, status: Status) -> None:
    """What must be true of an execution in each status."""
    assert one.status is status
    assert (one.due_at is None) == status.is_terminal, "every unfinished execution has an instant when the engine acts"
    assert (one.finished_at is not None) == status.is_terminal
    holds_lease = status in (Status.RUNNING, Status.CANCELLING)
    assert all(
        (value is not None) == holds_lease for value in (one.lease_holder, one.lease_instance, one.lease_expires_at)
    )
    if status.is_terminal:
        assert one.available_at is None


@given(policies, st.lists(st.sampled_from(EVENTS), max_size=40))
def test_whatever_happens_terminal_is_for_ever_and_the_epoch_only_grows(
    policy: RetryPolicy, happenings: list[Event]
) -> None:
    one = execution(retry=policy)
    for event in happenings:
        before = one
        try:
            one = apply(before, event)
        except errors.IllegalTransition:
            continue
        assert not before.status.is_terminal
        require_sound(one, TRANSITIONS[before.status][type(event)])
        grown = 1 if isinstance(event, AttemptStarted) else 0
        assert (one.lease_epoch, one.attempt) == (before.lease_epoch + grown, before.attempt + grown)
        begins = grown or isinstance(event, Suspended)
        assert one.started_at == (before.started_at or (NOW if begins else None))


@given(
    policies,
    st.lists(st.sampled_from(["fails", "fails for good", "is lost"]), min_size=20, max_size=20),
    st.floats(0.001, 1e6),
)
def test_the_engines_decisions_end_every_execution_within_its_attempts(
    policy: RetryPolicy, fates: list[str], timeout: float
) -> None:
    one = execution(retry=policy, deadline_at=NOW + timedelta(seconds=timeout))
    at = NOW
    for fate in fates:
        if one.status.is_terminal:
            break
        at = max(at, one.available_at or at)
        one = apply(one, AttemptStarted(at, "runner", "one", at + SECOND))
        assert one.attempt <= one.max_attempts
        if fate == "is lost":
            event = decide_loss(one, ErrorDocument(code="runner_lost"), at)
        else:
            event = decide_failure(one, ErrorDocument(code="e", retryable=fate == "fails"), at)
        if isinstance(event, AttemptRetried):
            assert event.available_at >= at
            assert event.lost or event.available_at < one.deadline_at
        one = apply(one, event)

    assert one.status.is_terminal
    assert one.attempt == one.failures + one.losses
    assert one.failures <= policy.max_attempts
    assert one.losses <= LOST_ATTEMPTS_ALLOWED


@given(policies, st.integers(1, 200))
def test_a_delay_is_bounded_and_never_shorter_than_the_one_before(policy: RetryPolicy, failures: int) -> None:
    delay = policy.delay(failures)

    assert timedelta(0) <= delay <= timedelta(seconds=policy.maximum_interval_seconds)
    assert delay <= policy.delay(failures + 1)


def test_the_picture_in_the_docs_is_drawn_from_the_table() -> None:
    script = Path(__file__).parents[2] / "scripts" / "state-diagram"

    checked = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stderr

"""Every execution that has not ended says what it waits for and until when; one that has ended waits for nothing."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from flow_platform.domain.clock import ManualClock
from flow_platform.domain.execution import Execution
from flow_platform.engine.documents import waiting_on
from flow_sdk.wire.status import Kind, Status

NOW = ManualClock().now()
DEADLINE = NOW + timedelta(seconds=300)


def execution(**changes: object) -> Execution:
    made = Execution(
        id="e1",
        org_id="o1",
        workspace_id="w1",
        kind=Kind.WORKFLOW,
        component_id="c1",
        component_slug="index",
        component_name="Index",
        version_id="v1",
        version=1,
        deployment_id="d1",
        ring_id="r1",
        root_id="e1",
        created_at=NOW,
        deadline_at=DEADLINE,
        timeout_seconds=300,
        lease_holder="runner-1",
        lease_expires_at=NOW + timedelta(seconds=10),
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize("status", list(Status))
def test_exactly_the_live_ones_wait_and_all_have_a_time(status: Status) -> None:
    waits = waiting_on(execution(status=status), NOW)
    assert (waits is None) == status.is_terminal
    if waits:
        assert waits.until is not None
        assert waits.message


def test_queued_without_a_runner_says_how_to_start_one() -> None:
    waits = waiting_on(execution(status=Status.QUEUED), NOW, runners_alive=0)
    assert waits is not None
    assert "flow runner" in waits.message


def test_back_off_is_shown_with_its_end() -> None:
    again_at = NOW + timedelta(seconds=4)
    waits = waiting_on(execution(status=Status.QUEUED, attempt=1, available_at=again_at), NOW)
    assert waits is not None
    assert (waits.reason, waits.until) == ("back_off", again_at)


def test_a_start_that_was_asked_for_later_is_shown_with_its_time() -> None:
    starts_at = NOW + timedelta(hours=4)
    delayed = execution(status=Status.QUEUED, available_at=starts_at, deadline_at=starts_at + timedelta(seconds=300))
    waits = waiting_on(delayed, NOW)
    assert waits is not None
    assert (waits.reason, waits.until, delayed.start_at) == ("start", starts_at, starts_at)
    due = waiting_on(delayed, starts_at)
    assert due is not None
    assert due.reason == "runner"


def test_a_parent_waits_for_its_children() -> None:
    waits = waiting_on(execution(status=Status.RUNNING, live_children=3), NOW)
    assert waits is not None
    assert waits.reason == "children"
    assert "3 unfinished" in waits.message

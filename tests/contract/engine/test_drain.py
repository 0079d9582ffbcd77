"""Attempts that a runner hands back because it stops: nobody's fault, so they count for nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flow_platform.domain.execution import LOST_ATTEMPTS_ALLOWED
from flow_platform.runner import ending
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Kind, Status
from tests.support.eventually import eventually
from tests.support.stage import Stage

pytestmark = pytest.mark.timeout(120)

DRAINED = ending.drained("scripted").model_dump(mode="json")


async def drain(stage: Stage, assignment: Assignment) -> Assignment:
    """Hands an attempt back; gives the next one, which needs no pause."""
    await stage.runner.report(assignment, error=DRAINED)
    await eventually(lambda: stage.get(assignment.execution_id), lambda it: it.status is Status.QUEUED)
    return await stage.claim(assignment.execution_id)


async def test_no_number_of_drains_makes_a_dead_letter(stage: Stage) -> None:
    execution = await stage.submit(timeout_seconds=1000)
    assignment = await stage.claim(execution.id)
    for number in range(LOST_ATTEMPTS_ALLOWED + 2):
        assert assignment.attempt == number + 1
        assignment = await drain(stage, assignment)
    await stage.end(assignment, "at last")
    document = await stage.get(execution.id)
    assert (document.status, document.output, document.errors) == (Status.COMPLETED, "at last", [])


async def test_what_was_handed_back_leaves_all_attempts_to_errors_and_losses(stage: Stage) -> None:
    await stage.publish("retried", retry={"max_attempts": 2, "initial_interval_seconds": 1})
    execution = await stage.submit("retried", timeout_seconds=1000)
    assignment = await stage.claim(execution.id)
    for _ in range(3):
        assignment = await drain(stage, assignment)
    for _ in range(2):
        await stage.runner.report(assignment, error={"code": "component_error", "message": "no"})
        ended = await eventually(lambda: stage.get(execution.id), lambda it: it.status is not Status.RUNNING)
        if not ended.status.is_terminal:
            stage.clock.advance(timedelta(seconds=2))
            assignment = await stage.claim(execution.id)
    assert ended.status is Status.DEAD_LETTER
    assert [(error.code, error.attempt) for error in ended.errors] == [("component_error", 4), ("component_error", 5)]


async def test_a_drained_workflow_goes_on_where_it_was(stage: Stage) -> None:
    stage.runner.slots = 100
    await stage.publish("flow", Kind.WORKFLOW)
    assignment = await stage.claim((await stage.submit("flow", kind=Kind.WORKFLOW)).id)

    async def call(n: int) -> str:
        return (await stage.submit(principal=stage.inside(assignment), input_data={"n": n})).id

    completed, failed, running = await call(1), await call(2), await call(3)
    await stage.end(await stage.claim(completed), "one")
    await stage.end(await stage.claim(failed), error={"code": "component_error", "message": "no"})
    at_work = await stage.claim(running)
    assignment = await drain(stage, assignment)
    assert [await call(n) for n in (1, 2, 3)] == [completed, failed, running]
    await stage.end(at_work, "three")
    assert (await stage.get(running)).attempt == 1, "its own runner was not stopped"


async def test_a_cancelled_attempt_that_is_handed_back_is_cancelled(stage: Stage) -> None:
    execution = await stage.submit()
    assignment = await stage.claim(execution.id)
    await stage.cancel(execution.id)
    await stage.end(assignment, error=DRAINED)
    assert (await stage.get(execution.id)).status is Status.CANCELLED

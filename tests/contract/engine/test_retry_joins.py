"""A retry of a workflow with children that still run, since they were retried alone before: they are joined, and wake
whoever joined them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flow_platform.domain.execution import Execution
from flow_sdk.wire.durable import SUSPENDED
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Status
from tests.support.eventually import eventually
from tests.support.retries import ERROR, call, end, retry, workflow
from tests.support.stage import Stage

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def database_url(store_url: str) -> str:
    """On each database."""
    return store_url


@pytest.fixture(autouse=True)
def room(stage: Stage) -> None:
    stage.runner.slots = 100


def suspended_on(execution_id: str) -> dict[str, Any]:
    return {"code": SUSPENDED, "message": "", "details": [{"field": "execution_id", "message": execution_id}]}


async def left_with(stage: Stage, *numbers: int) -> tuple[Assignment, list[Execution]]:
    """A workflow that failed, and its children, which were retried by hand since."""
    old = await workflow(stage)
    children = [await call(stage, old, number) for number in numbers]
    for child in children:
        await end(stage, child, error=ERROR)
    await end(stage, old, error=ERROR)
    return old, [await retry(stage, child.id) for child in children]


async def test_a_child_that_still_runs_is_joined_and_wakes_who_joined_it(stage: Stage) -> None:
    old, [child] = await left_with(stage, 1)
    running = await stage.claim(child.id)
    new = await stage.claim((await retry(stage, old.execution_id)).id)
    assert (await live_children(stage, new)) == 0
    for _ in range(2):  # The same call again, in a second attempt.
        assert (await call(stage, new, 1)).id == child.id
        assert (await live_children(stage, new)) == 1, "it lends its slot to what it waits for"
        await stage.runner.report(new, error={"code": "process_crashed", "message": "signal 9"})
        await eventually(lambda: stage.get(new.execution_id), lambda it: it.status is Status.QUEUED)  # noqa: B023
        stage.clock.advance(timedelta(seconds=3))  # Past the back-off, within the leases.
        new = await stage.claim(new.execution_id)
    await call(stage, new, 1)
    await stage.runner.report(new, error=suspended_on(child.id))
    await eventually(lambda: stage.get(new.execution_id), lambda it: it.status is Status.WAITING)
    await end(stage, running, "one")
    new = await stage.claim(new.execution_id)
    assert (await live_children(stage, new)) == 0
    assert (await call(stage, new, 1)).status is Status.COMPLETED


async def live_children(stage: Stage, assignment: Assignment) -> int:
    found = await stage.engine.store.read(lambda tx: tx.executions.find(assignment.execution_id))
    assert found is not None
    return found.live_children


async def test_a_repetition_of_a_repetition_is_woken_too(stage: Stage) -> None:
    old, [child] = await left_with(stage, 1)
    second = await stage.claim((await retry(stage, old.execution_id)).id)
    assert (await call(stage, second, 1)).id == child.id
    await end(stage, child, error=ERROR)
    await end(stage, second, error=ERROR)
    child = await retry(stage, child.id)
    running = await stage.claim(child.id)
    third = await stage.claim((await retry(stage, second.execution_id)).id)
    assert (await call(stage, third, 1)).id == child.id
    await stage.runner.report(third, error=suspended_on(child.id))
    await eventually(lambda: stage.get(third.execution_id), lambda it: it.status is Status.WAITING)
    await end(stage, running, "one")
    await stage.claim(third.execution_id)


async def test_cancelling_a_repetition_cancels_what_it_joined_and_only_that(stage: Stage) -> None:
    old, [joined, left] = await left_with(stage, 1, 2)
    new = await stage.claim((await retry(stage, old.execution_id)).id)
    await call(stage, new, 1)
    await stage.cancel(new.execution_id)
    assert (await stage.get(joined.id)).status in (Status.CANCELLED, Status.CANCELLING)
    assert (await stage.get(left.id)).status in (Status.QUEUED, Status.RUNNING)


async def test_a_child_that_is_being_cancelled_is_not_joined(stage: Stage) -> None:
    old, [child] = await left_with(stage, 1)
    await stage.claim(child.id)
    assert (await stage.cancel(child.id)).status is Status.CANCELLING
    new = await stage.claim((await retry(stage, old.execution_id)).id)
    assert (await call(stage, new, 1)).id != child.id

"""What becomes of children whose parent ended first."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flow_platform.domain.execution import Execution
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Kind, Status
from tests.support.eventually import eventually
from tests.support.retries import ERROR, call, retry, workflow
from tests.support.stage import Stage

pytestmark = pytest.mark.timeout(120)

LOST = {"code": "process_crashed", "message": "signal 9"}


@pytest.fixture
def database_url(store_url: str) -> str:
    """On each database."""
    return store_url


@pytest.fixture(autouse=True)
def room(stage: Stage) -> None:
    stage.runner.slots = 100


async def family(stage: Stage) -> tuple[Assignment, Assignment, Execution, Execution]:
    """A workflow that runs, a child of it that runs, one that is queued, and a grandchild."""
    parent = await workflow(stage)
    await stage.publish("inner", Kind.WORKFLOW)
    running = await stage.claim((await call(stage, parent, 1, "inner", kind=Kind.WORKFLOW)).id)
    grandchild = await call(stage, running, 2)
    queued = await call(stage, parent, 3)
    return parent, running, queued, grandchild


async def statuses(stage: Stage, *executions: Any) -> list[Status]:
    ids = [one.execution_id if isinstance(one, Assignment) else one.id for one in executions]
    return [(await stage.get(execution_id)).status for execution_id in ids]


async def test_a_failed_parent_takes_all_that_is_below_it_with_it(stage: Stage) -> None:
    parent, running, queued, grandchild = await family(stage)
    await stage.end(parent, error=ERROR)
    assert (await statuses(stage, running))[0] is Status.CANCELLING
    assert await statuses(stage, grandchild) == [Status.CANCELLED]
    ended = await stage.get(queued.id)
    assert (ended.status, ended.error and ended.error.message) == (
        Status.CANCELLED,
        f"Cancelled by the end of its parent {parent.execution_id}",
    )

    async def told() -> list[str]:
        return stage.runner.cancelled

    assert await eventually(told, bool) == [running.execution_id]


async def test_a_parent_that_is_tried_again_keeps_its_children(stage: Stage) -> None:
    await stage.publish("flow", Kind.WORKFLOW, retry={"max_attempts": 2, "initial_interval_seconds": 0})
    parent = await stage.claim((await stage.submit("flow", kind=Kind.WORKFLOW)).id)
    child = await stage.claim((await call(stage, parent, 1)).id)
    await stage.runner.report(parent, error=ERROR)
    again = await stage.claim(parent.execution_id)
    assert (await call(stage, again, 1)).id == child.execution_id
    assert await statuses(stage, child) == [Status.RUNNING]
    await stage.end(again, error=ERROR)
    assert (await stage.get(parent.execution_id)).status is Status.DEAD_LETTER
    assert await statuses(stage, child) == [Status.CANCELLING]


async def lost_twice(stage: Stage) -> tuple[Assignment, Assignment]:
    """A workflow in its last attempt, and a child of it, which runs."""
    parent = await workflow(stage)
    execution_id = parent.execution_id
    child = await stage.claim((await call(stage, parent, 1)).id)
    for _ in range(2):
        await stage.runner.report(parent, error=LOST)
        await eventually(lambda: stage.get(execution_id), lambda it: it.status is Status.QUEUED)
        stage.clock.advance(timedelta(seconds=3))
        parent = await stage.claim(execution_id)
        assert (await call(stage, parent, 1)).id == child.execution_id
    return parent, child


async def test_a_parent_that_is_lost_for_good_takes_them_with_it(stage: Stage) -> None:
    parent, child = await lost_twice(stage)
    await stage.end(parent, error=LOST)
    assert await statuses(stage, parent, child) == [Status.DEAD_LETTER, Status.CANCELLING]


async def test_a_runner_that_comes_back_empty_ends_parent_and_child_alike(stage: Stage) -> None:
    parent, child = await lost_twice(stage)
    stage.runner.instance = "another"
    await stage.runner.register()
    assert await statuses(stage, parent, child) == [Status.DEAD_LETTER, Status.CANCELLED]


async def test_what_a_completed_parent_did_not_await_goes_on_and_stays_below_it(stage: Stage) -> None:
    parent = await workflow(stage)
    child = await stage.claim((await call(stage, parent, 1)).id)
    await stage.end(parent, "done")
    assert await statuses(stage, parent, child) == [Status.COMPLETED, Status.RUNNING]
    await stage.end(child, "later")
    assert await statuses(stage, child) == [Status.COMPLETED]
    tree = await stage.engine.executions.tree(stage.admin, stage.org_id, stage.workspace_id, parent.execution_id)
    assert [one["execution"]["execution_id"] for one in tree["children"]] == [child.execution_id]


async def test_a_retry_by_hand_repeats_what_was_cancelled_with_the_parent(stage: Stage) -> None:
    parent = await workflow(stage)
    child = await call(stage, parent, 1)
    await stage.end(parent, error=ERROR)
    assert await statuses(stage, child) == [Status.CANCELLED]
    again = await stage.claim((await retry(stage, parent.execution_id)).id)
    repeated = await call(stage, again, 1)
    assert (repeated.retry_of_id, repeated.status) == (child.id, Status.QUEUED)

"""A new attempt of a workflow is given what the earlier one was given; no child runs twice."""

from __future__ import annotations

import random

import pytest

from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Status
from tests.support.played_workflow import Workflow
from tests.support.scripted_runner import ScriptedRunner
from tests.support.stage import Stage

pytestmark = pytest.mark.timeout(120)


async def children(stage: Stage, workflow: Workflow) -> int:
    tree = await stage.engine.executions.tree(stage.admin, stage.org_id, stage.workspace_id, workflow.id)
    return len(tree["children"])


async def test_finished_calls_return_what_they_returned_and_running_ones_are_joined(stage: Stage) -> None:
    workflow = await Workflow.start(stage, timeout_seconds=3000)
    first = await workflow.call({"n": 1})
    await workflow.end_child(first, "one")
    running = await workflow.call({"n": 2})
    await stage.runner.claim()
    await workflow.lose()
    assert (await workflow.call({"n": 1})).id == first.id
    assert (await workflow.call({"n": 2})).id == running.id
    assert (await workflow.call({"n": 3})).id not in {first.id, running.id}
    assert await children(stage, workflow) == 3


async def test_equal_calls_are_told_apart_by_their_number(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    made = [(await workflow.call({"n": 1})).id for _ in range(3)]
    assert len(set(made)) == 3
    await workflow.lose()
    assert [(await workflow.call({"n": 1})).id for _ in range(3)] == made
    assert (await workflow.call({"n": 1})).id not in made


async def test_parallel_calls_may_come_in_any_order(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    made = {n: (await workflow.call({"n": n})).id for n in range(5)}
    await workflow.lose()
    assert {n: (await workflow.call({"n": n})).id for n in (3, 0, 4, 1, 2)} == made


async def test_a_failure_that_the_workflow_saw_is_seen_again(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    child = await workflow.call({"n": 1})
    await workflow.end_child(child, error={"code": "component_error", "type": "ValueError", "message": "no"})
    await workflow.lose()
    again = await workflow.call({"n": 1})
    assert (again.id, again.status) == (child.id, Status.FAILED)


async def test_a_retry_after_an_error_keeps_what_completed_and_repeats_what_failed(stage: Stage) -> None:
    workflow = await Workflow.start(stage, retry={"max_attempts": 2})
    completed, failed = await workflow.call({"n": 1}), await workflow.call({"n": 2})
    for assignment in await stage.runner.claim():
        error = {"code": "component_error", "message": "no"} if assignment.execution_id == failed.id else None
        await stage.runner.report(assignment, error=error)
    await stage.wait(completed.id)
    await stage.wait(failed.id)
    await workflow.lose({"code": "component_error", "message": "a child failed"})
    assert (await workflow.call({"n": 1})).id == completed.id
    repeated = await workflow.call({"n": 2})
    assert (repeated.id != failed.id, repeated.status) == (True, Status.QUEUED)


async def test_a_call_that_does_not_match_is_told_with_what_was_expected(stage: Stage) -> None:
    await stage.publish("other")
    workflow = await Workflow.start(stage)
    first, second = await workflow.call({"n": 1}), await workflow.call({"n": 2})
    await workflow.lose()
    await workflow.call({"n": 1})
    third = await workflow.call({"n": 2}, "other")
    await stage.runner.report(workflow.assignment, "done")
    await stage.wait(workflow.id)
    found = stage.engine.executions.events(stage.admin, stage.org_id, stage.workspace_id, workflow.id, 0)
    [told] = [event.event_data async for event in found if event and event.event_type == "replay_mismatch"]
    assert (told["expected"]["execution_id"], told["came"]["execution_id"]) == (second.id, third.id)
    assert "did not repeat call 2 to code_block 'block'; it called code_block 'other'" in told["message"]
    assert first.id != second.id


async def test_a_call_with_another_input_is_told_as_that(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    await workflow.call({"n": 1})
    await workflow.lose()
    await workflow.call({"n": 2})
    await stage.runner.report(workflow.assignment, "done")
    await stage.wait(workflow.id)
    found = stage.engine.executions.events(stage.admin, stage.org_id, stage.workspace_id, workflow.id, 0)
    [told] = [event.event_data async for event in found if event and event.event_type == "replay_mismatch"]
    assert "it called code_block 'block' with other arguments (call 2 on record) instead" in told["message"]


async def test_what_failed_may_go_another_way_when_it_is_tried_again(stage: Stage) -> None:
    """The first attempt makes up for a child that failed, and fails; in the second one the child completes."""
    workflow = await Workflow.start(stage, retry={"max_attempts": 2})
    failed = await workflow.call({"n": 1})
    await workflow.end_child(failed, error={"code": "component_error", "message": "no"})
    await workflow.call({"undo": 1})
    await workflow.lose({"code": "component_error", "message": "a child failed"})
    again = await workflow.call({"n": 1})
    timer = await workflow.ask("timer", "sleep", seconds=60)
    assert (again.id != failed.id, (await workflow.may_suspend(timer.checkpoint_id)).suspend) == (True, True)
    await stage.runner.report(workflow.assignment, "done")
    await stage.wait(workflow.id)
    found = stage.engine.executions.events(stage.admin, stage.org_id, stage.workspace_id, workflow.id, 0)
    assert "replay_mismatch" not in [event.event_type async for event in found if event]


async def test_a_workflow_that_gets_further_outlives_any_number_of_losses(stage: Stage) -> None:
    workflow = await Workflow.start(stage, timeout_seconds=3000)
    for reached in range(1, 7):
        made = [(await workflow.call({"n": n})).id for n in range(reached)]
        await workflow.lose()
    assert [(await workflow.call({"n": n})).id for n in range(6)] == made
    assert (await stage.get(workflow.id)).attempt == 7


@pytest.mark.parametrize("calls", [1, 2], ids=["no-new-call", "at-random"])
async def test_a_workflow_that_is_lost_at_one_place_is_a_dead_letter(stage: Stage, calls: int) -> None:
    """Also if it makes another call there each time: code that kills its container does not live by chance."""
    workflow = await Workflow.start(stage, timeout_seconds=3000)
    for attempt in range(3):
        await workflow.call({"n": 1})
        if calls > 1:
            await workflow.call({"chance": attempt})
        if attempt < 2:
            await workflow.lose()
    await workflow.end_attempt({"code": "process_crashed", "message": "signal 9"})
    assert (await stage.get(workflow.id)).status is Status.DEAD_LETTER


async def test_many_finished_calls_are_replayed(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    made = [(await workflow.call({"n": n})).id for n in range(200)]
    await workflow.lose()
    assert [(await workflow.call({"n": n})).id for n in range(200)] == made
    assert await children(stage, workflow) == 200


@pytest.mark.parametrize("seed", range(6))
async def test_any_program_lost_at_any_call_runs_each_child_once(stage: Stage, seed: int) -> None:
    """A program is a list of groups; the calls of a group are made side by side, in any order, then all awaited."""
    draw = random.Random(seed)  # noqa: S311 - the seed is the test's id.
    program = [[draw.choice("abc") for _ in range(draw.randint(1, 3))] for _ in range(draw.randint(1, 5))]
    crashes = [draw.randint(1, sum(map(len, program))), draw.randint(1, sum(map(len, program)))]
    workflow = await Workflow.start(stage)
    ran: list[str] = []
    runner = stage.runner

    async def run_children(wanted: set[str]) -> None:
        while unfinished := {i for i in wanted if not (await stage.get(i)).status.is_terminal}:
            claimed, workflow.waiting = [*workflow.waiting, *await runner.claim(hold_seconds=0.05)], []
            for assignment in claimed:
                ran.append(assignment.execution_id)
                await report(runner, assignment)
            for execution_id in unfinished:
                await stage.wait(execution_id, 0.05)

    async def attempt(calls_left: int | None) -> list[list[str]] | None:
        seen = []
        for group in program:
            order = draw.sample(range(len(group)), len(group))
            made: dict[int, str] = {}
            for place in order:
                if calls_left is not None:
                    if calls_left == 0:
                        return None
                    calls_left -= 1
                made[place] = (await workflow.call(group[place])).id
            await run_children(set(made.values()))
            seen.append(sorted(made.values()))
        return seen

    first = None
    for crash in [*crashes, None]:
        first = await attempt(crash)
        if first is not None:
            break
        await workflow.lose()
    assert first is not None
    flat = [execution_id for group in first for execution_id in group]
    assert len(set(flat)) == len(flat) == sum(map(len, program))
    assert sorted(ran) == sorted(flat), (program, crashes, ran, first)


async def report(runner: ScriptedRunner, assignment: Assignment) -> None:
    await runner.report(assignment, "done")

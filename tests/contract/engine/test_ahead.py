"""Ended calls are given to a new attempt before it makes them; nothing but the number of requests is different."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flow_platform.domain import errors
from flow_platform.engine import ahead
from flow_sdk.wire.replay import Told
from flow_sdk.wire.status import Kind
from tests.support.harness_calls import HarnessCalls
from tests.support.played_workflow import Workflow
from tests.support.retries import retry
from tests.support.stage import Stage

pytestmark = pytest.mark.timeout(120)


async def ended(workflow: Workflow, *inputs: Any, output: Any = "done") -> list[str]:
    """Calls of the attempt that runs, whose children have ended."""
    made = await HarnessCalls(workflow).ids(*inputs)
    await end(workflow.stage, made, output)
    return made


async def end(stage: Stage, executions: list[str], output: Any = "done") -> None:
    left = set(executions)
    while left:
        for assignment in await stage.runner.claim():
            await stage.runner.report(assignment, output)
            left.discard(assignment.execution_id)
    for execution_id in executions:
        await stage.wait(execution_id)


async def mismatches(stage: Stage, workflow: Workflow) -> list[dict[str, Any]]:
    found = stage.engine.executions.events(stage.admin, stage.org_id, stage.workspace_id, workflow.id, 0)
    return [event.event_data async for event in found if event and event.event_type == "replay_mismatch"]


async def complete(stage: Stage, workflow: Workflow) -> None:
    await stage.runner.report(workflow.assignment, "done")
    await stage.wait(workflow.id)


async def test_ended_calls_come_with_the_answer_to_the_first(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    made = await ended(workflow, *range(8))
    await workflow.lose()
    again = HarnessCalls(workflow)
    documents = [(await again.call(n))["execution"] for n in range(8)]
    assert [one["execution_id"] for one in documents] == made
    assert documents == [(await stage.get(one)).model_dump(mode="json") for one in made]
    assert [told.after for told in again.told] == [0]
    new = await again.call("new")
    assert (again.told[-1].made, "execution" in new) == (((2, 8),), False)
    await again.end()
    await complete(stage, workflow)
    assert await mismatches(stage, workflow) == []


async def test_what_was_given_ahead_and_not_told_is_given_again_after_the_next_loss(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    made = await ended(workflow, *range(6))
    await workflow.lose()
    assert await HarnessCalls(workflow).ids(*range(4)) == made[:4]
    await workflow.lose()  # With three calls that the platform never hears of.
    last = HarnessCalls(workflow)
    assert await last.ids(*range(6)) == made
    assert len(last.told) == 1
    await last.end()
    await complete(stage, workflow)
    assert await mismatches(stage, workflow) == []


async def test_an_attempt_that_is_lost_with_calls_given_ahead_still_got_further(stage: Stage) -> None:
    """Whether it made those that were given ahead, nobody knows: that is no mismatch, and forgives the loss."""
    workflow = await Workflow.start(stage, timeout_seconds=3000)
    made = await ended(workflow, *range(3))
    for number in range(5):
        await workflow.lose()
        again = HarnessCalls(workflow)
        await again.ids(0, *(f"new {one}" for one in range(number + 1)), 1, 2)
    await workflow.lose()
    assert await HarnessCalls(workflow).ids(*range(3)) == made
    assert (await stage.get(workflow.id)).attempt == 7


async def test_a_call_that_was_given_ahead_and_is_not_made_is_told_at_the_end(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    made = await ended(workflow, *range(5))
    await workflow.lose()
    again = HarnessCalls(workflow)
    assert await again.ids(0, 1) == made[:2]
    other = await again.call("other")
    assert await again.ids(3, 4) == made[3:]
    await again.end()
    await complete(stage, workflow)
    [told] = await mismatches(stage, workflow)
    assert (told["expected"]["execution_id"], told["came"]["execution_id"]) == (made[2], other["execution_id"])


async def test_what_the_code_leaves_out_is_told_before_it_gives_its_container_back(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    await ended(workflow, *range(3))
    await workflow.lose()
    again = HarnessCalls(workflow)
    await again.ids(0, 2)
    timer = await again.ask("timer", "sleep", seconds=60)
    await again.end()
    assert not (await workflow.may_suspend(timer["checkpoint_id"])).suspend
    assert len(await again.ids(1)) == 1  # It may go on; then it asks again.


async def test_equal_calls_side_by_side_are_numbered_by_their_place_in_the_code(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = await Workflow.start(stage)
    first = HarnessCalls(workflow)
    gate = asyncio.Event()
    send = stage.engine.submitter.submit
    count = 0

    async def overtaking(*args: Any) -> Any:
        """The first of them arrives last."""
        nonlocal count
        count += 1
        if count == 1:
            await gate.wait()
        return await send(*args)

    monkeypatch.setattr(stage.engine.submitter, "submit", overtaking)
    calls = [asyncio.ensure_future(first.call("equal")) for _ in range(3)]
    done, _ = await asyncio.wait(calls[1:])
    gate.set()
    made = [(await one)["execution_id"] for one in calls]
    assert len(done) == 2
    assert made == list(dict.fromkeys(made))
    await workflow.lose()
    assert await HarnessCalls(workflow).ids("equal", "equal", "equal") == made


@pytest.mark.parametrize("count", [150], ids=["more-than-one-answer"])
async def test_a_gather_waits_for_what_comes_ahead(stage: Stage, count: int) -> None:
    workflow = await Workflow.start(stage)
    made = await ended(workflow, *range(count))
    await workflow.lose()
    again = HarnessCalls(workflow)
    answers = await asyncio.gather(*(again.call(n) for n in range(count)))
    assert [one["execution_id"] for one in answers] == made
    assert len(again.told) <= 2 + count // ahead.WINDOW


async def test_a_gather_of_ended_and_running_and_new_calls_is_served(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    made = await ended(workflow, *range(4))
    running = await HarnessCalls(workflow).ids("running")
    await workflow.lose()
    again = HarnessCalls(workflow)
    wanted = ["new", 0, "running", 1, 2, 3]
    answers = await asyncio.gather(*(again.call(one) for one in wanted))
    ids = [one["execution_id"] for one in answers]
    assert (ids[1], ids[2], ids[3:]) == (made[0], running[0], made[1:])
    assert ids[0] not in made


async def test_checkpoints_come_ahead_with_the_calls_between_them(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    first = HarnessCalls(workflow)
    asked = []
    for number in range(3):
        step = await first.ask("step", "one of many")
        await workflow.finish(step["checkpoint_id"], value=number)
        asked.append(step["checkpoint_id"])
    failed = await first.ask("step", "bad")
    await workflow.finish(failed["checkpoint_id"], error={"code": "step_failed", "type": "E", "message": "no"})
    timer = await first.ask("timer", "sleep", seconds=2)  # `lose` moves the clock by three.
    event = await first.ask("event", "never", seconds=2)
    await workflow.lose()
    again = HarnessCalls(workflow)
    found = [await again.ask("step", "one of many") for _ in range(3)]
    assert [(one["checkpoint_id"], one["value"]) for one in found] == list(zip(asked, range(3), strict=True))
    assert (await again.ask("step", "bad"))["error"]["message"] == "no"
    slept, waited = await again.ask("timer", "sleep", seconds=2), await again.ask("event", "never", seconds=2)
    assert (slept["checkpoint_id"], slept["status"]) == (timer["checkpoint_id"], "done")
    assert (waited["checkpoint_id"], waited["status"]) == (event["checkpoint_id"], "expired")
    assert len(again.told) == 1


async def test_an_open_checkpoint_is_asked_for(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    first = HarnessCalls(workflow)
    await first.ids(1)
    step = await first.ask("step", "under way")
    await workflow.lose()
    again = HarnessCalls(workflow)
    await again.ids(1)
    found = await again.ask("step", "under way")
    assert (found["checkpoint_id"], found["status"], len(again.told)) == (step["checkpoint_id"], "open", 2)


async def test_large_results_stay_where_they_are(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    large = "x" * ahead.MAX_CALL_BYTES
    made = await ended(workflow, 0, 1, output=large)
    made += await ended(workflow, 2, 3)
    await workflow.lose()
    again = HarnessCalls(workflow)
    answers = [await again.call(n) for n in range(4)]
    assert [one["execution_id"] for one in answers] == made
    assert [len(one["execution"]["output"]) for one in answers] == [len(large), len(large), 4, 4]
    assert len(again.told) == 2


async def test_an_answer_carries_so_many_bytes_and_the_next_the_rest(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    made = await ended(workflow, *range(20), output="x" * (ahead.MAX_CALL_BYTES - 4096))
    await workflow.lose()
    again = HarnessCalls(workflow)
    sent = await stage.engine.ahead.calls(workflow.inside, 0)
    assert sum(len(call.model_dump_json()) for call in sent.calls) <= ahead.MAX_BYTES
    assert await again.ids(*range(20)) == made
    assert 1 < len(again.told) < 5


async def test_a_failure_that_the_workflow_saw_comes_ahead_unless_it_is_tried_again(stage: Stage) -> None:
    workflow = await Workflow.start(stage, retry={"max_attempts": 2})
    [before, failed] = await HarnessCalls(workflow).ids("before", "fails")
    error = {"code": "component_error", "message": "no"}
    for assignment in await stage.runner.claim():
        await stage.runner.report(assignment, error=error if assignment.execution_id == failed else None)
    await stage.wait(before)
    await stage.wait(failed)
    await workflow.lose()
    again = HarnessCalls(workflow)
    document = [await again.call(one) for one in ("before", "fails")][1]["execution"]
    assert (document["execution_id"], document["error"]["message"], len(again.told)) == (failed, "no", 1)
    await again.end()
    await workflow.lose(error)  # Its own failure: completed calls are kept, failed ones made again.
    last = HarnessCalls(workflow)
    [kept, repeated] = await last.ids("before", "fails")
    assert (kept, repeated != failed) == (before, True)


async def test_calls_of_an_older_client_are_not_given_ahead_and_are_numbered_from_then_on(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    made = [(await workflow.call({"n": 1})).id for _ in range(2)]
    await end(stage, made)
    await workflow.lose()
    again = HarnessCalls(workflow)
    assert await again.ids({"n": 1}, {"n": 1}) == made
    assert [told.occurrence for told in again.told] == [0, 1]
    await workflow.lose()
    third = HarnessCalls(workflow)
    assert (await third.ids({"n": 1}, {"n": 1}), len(third.told)) == (made, 1)
    await workflow.lose({"code": "runner_drained", "message": "its runner stops"})
    assert [(await workflow.call({"n": 1})).id for _ in range(2)] == made  # An older runner again.


async def test_equal_calls_of_another_client_beside_the_harness_keep_their_own(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    _, *harness = await ended(workflow, "warm", "equal")
    other = (await workflow.call("equal")).id
    assert other != harness[0]
    await workflow.lose()
    again = HarnessCalls(workflow)
    await again.ids("warm")
    assert await again.ids("equal") == harness  # Without a request, so the platform does not know of it.
    assert (await workflow.call("equal")).id == other
    assert (await workflow.call("equal")).id not in {other, *harness}


async def test_a_number_that_is_taken_is_not_believed(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    inside = workflow.inside
    made = [(await stage.submit("block", inside, input_data="equal", occurrence=0)).id for _ in range(3)]
    assert len(set(made)) == 3
    far = (await stage.submit("block", inside, input_data="equal", occurrence=999_999_999)).id
    assert far not in made
    assert (await workflow.call("equal")).id not in {far, *made}


async def test_slug_and_id_of_a_component_are_one_component(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    [made] = await ended(workflow, "warm")
    component_id = (await stage.get(made)).component.id
    first = HarnessCalls(workflow)
    names = ["block", component_id, "block", component_id]
    ids = [(await first.call("equal", name))["execution_id"] for name in names]
    assert len(set(ids)) == 4
    await end(stage, ids)
    await workflow.lose()
    again = HarnessCalls(workflow)
    assert [(await again.call("equal", name))["execution_id"] for name in names] == ids


async def test_nobody_is_given_the_calls_of_others(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    made = await ended(workflow, *range(3))
    stale = workflow.inside
    await workflow.lose()
    engine = stage.engine.ahead
    assert (await engine.calls(stage.admin, 0)).calls == []
    with pytest.raises(errors.Conflict) as refused:
        await engine.calls(stale, 0)
    assert refused.value.error_code == "parent_ended"
    with pytest.raises(errors.Conflict):
        await engine.note(stale, Told(made=((1, 3),)))
    other = (await stage.submit("flow", kind=Kind.WORKFLOW)).id
    assignment = await stage.claim(other)
    assert (await engine.calls(stage.inside(assignment), 0)).calls == []
    await engine.note(stage.inside(assignment), Told(made=((0, 10**9 - 1),), is_over=True))
    await engine.note(stage.admin, Told(made=((0, 10**9 - 1),), is_over=True))
    assert [call.execution for call in (await engine.calls(workflow.inside, 0)).calls if call.execution is None] == []
    assert await HarnessCalls(workflow).ids(*range(3)) == made


async def test_what_was_not_given_is_not_made_by_saying_so(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    [made, _] = await ended(workflow, 1, 2)
    await workflow.lose()
    again = HarnessCalls(workflow)
    other = await again.call("other", "block")
    await again.end()
    await stage.engine.ahead.note(workflow.inside, Told(made=((1, 100),)))
    await complete(stage, workflow)
    [told] = await mismatches(stage, workflow)
    assert (told["expected"]["execution_id"], told["came"]["execution_id"]) == (made, other["execution_id"])


async def test_a_repetition_by_hand_is_given_what_it_inherits(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    made = await ended(workflow, *range(5))
    await stage.runner.report(workflow.assignment, error={"code": "component_error", "message": "no"})
    await stage.wait(workflow.id)
    new = await retry(stage, workflow.id)
    workflow.id, workflow.assignment = new.id, await stage.claim(new.id)
    again = HarnessCalls(workflow)
    assert (workflow.assignment.attempt, await again.ids(*range(5))) == (1, made)
    assert [told.after for told in again.told] == [None, 0]  # Only now it knows that there are some.

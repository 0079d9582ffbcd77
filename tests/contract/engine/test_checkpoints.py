"""Values that a workflow gets once: steps, timers, events, approvals; and waiting without a container."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from flow_platform.domain import errors
from flow_platform.domain.principal import Principal, Role
from flow_platform.store.base import ExecutionFilter
from flow_sdk.wire.execution import StatusDocument
from flow_sdk.wire.status import Kind, Status
from tests.support.eventually import eventually
from tests.support.played_workflow import Workflow
from tests.support.stage import Stage

pytestmark = pytest.mark.timeout(120)

DAY = 24 * 3600.0
LONG = {"timeout_seconds": 29 * DAY}


async def test_a_step_that_was_done_is_given_again_and_one_that_was_not_is_asked_for_again(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    done = await workflow.ask("step", "charge", occurrence=0)
    assert done.status == "open"
    assert (await workflow.ask("step", "charge", occurrence=0)).checkpoint_id == done.checkpoint_id, "sent twice: one"
    await workflow.finish(done.checkpoint_id, value={"id": 7})
    assert (await workflow.finish(done.checkpoint_id, value="later")).value == {"id": 7}, "the first word counts"
    begun = await workflow.ask("step", "charge", occurrence=1)
    await workflow.lose()
    again = await workflow.ask("step", "charge", occurrence=0)
    assert (again.checkpoint_id, again.status, again.value) == (done.checkpoint_id, "done", {"id": 7})
    assert (await workflow.ask("step", "charge", occurrence=1)).checkpoint_id == begun.checkpoint_id


async def test_a_failed_step_is_seen_again_after_a_loss_and_tried_again_by_a_retry(stage: Stage) -> None:
    workflow = await Workflow.start(stage, retry={"max_attempts": 2})
    failed = await workflow.ask("step", "charge")
    await workflow.finish(failed.checkpoint_id, error={"code": "step_failed", "type": "ValueError", "message": "no"})
    await workflow.lose()
    seen = await workflow.ask("step", "charge")
    assert (seen.checkpoint_id, seen.status) == (failed.checkpoint_id, "failed")
    await workflow.lose({"code": "component_error", "message": "the step failed"})
    tried = await workflow.ask("step", "charge")
    assert (tried.checkpoint_id != failed.checkpoint_id, tried.status) == (True, "open")


async def test_a_sleep_of_thirty_days_holds_no_lease_and_wakes_at_its_time(stage: Stage) -> None:
    workflow = await Workflow.start(stage, **LONG)
    slept = await workflow.ask("timer", "sleep", seconds=28 * DAY)
    assert (await workflow.may_suspend(slept.checkpoint_id)).suspend
    await workflow.suspend(slept.checkpoint_id)
    waiting = await stage.get(workflow.id)
    assert (waiting.status, waiting.waiting_on and waiting.waiting_on.reason) == (Status.WAITING, "timer")
    assert waiting.waiting_on is not None
    assert waiting.waiting_on.until == slept.due_at
    stage.clock.advance(timedelta(days=27))
    await stage.engine.sweeper.sweep()
    assert (await stage.get(workflow.id)).status is Status.WAITING
    stage.clock.advance(timedelta(days=1))
    await workflow.next_attempt()
    again = await workflow.ask("timer", "sleep", seconds=28 * DAY)
    assert (again.checkpoint_id, again.status, workflow.assignment.attempt) == (slept.checkpoint_id, "done", 2)
    await stage.runner.report(workflow.assignment, "rested")
    document = await stage.wait(workflow.id)
    assert (document.status, document.outputs, document.errors) == (Status.COMPLETED, "rested", [])


async def test_an_event_wakes_the_wait_for_it_and_is_read_once(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    awaited = await workflow.ask("event", "paid", occurrence=0)
    await workflow.suspend(awaited.checkpoint_id)
    sent = await workflow.send("paid", {"amount": 3})
    assert sent.delivered
    await workflow.next_attempt()
    assert (await workflow.ask("event", "paid", occurrence=0)).value == {"amount": 3}
    assert (await workflow.ask("event", "paid", occurrence=1)).status == "open", "each is read once"


async def test_an_event_that_comes_before_the_wait_is_kept_in_order(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    for number in (1, 2):
        assert not (await workflow.send("paid", number)).delivered
    assert [(await workflow.ask("event", "paid", occurrence=n)).value for n in (0, 1)] == [1, 2]


async def test_an_event_ends_no_step_and_no_timer_of_its_name(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    asked = [await workflow.ask("step", "go"), await workflow.ask("timer", "go", seconds=60)]
    assert (await workflow.send("go", 7)).delivered is False
    assert [
        (await workflow.ask(one.kind, "go", seconds=60 if one.kind == "timer" else None, occurrence=0)).status
        for one in asked
    ] == ["open", "open"]
    assert (await workflow.ask("event", "go")).value == 7


async def test_an_event_that_is_sent_twice_under_one_key_comes_once(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    first = await workflow.send("paid", 1, key="k")
    assert (await workflow.send("paid", 1, key="k")).event_id == first.event_id
    assert (await workflow.ask("event", "paid", occurrence=0)).value == 1
    assert (await workflow.ask("event", "paid", occurrence=1)).status == "open"


async def test_an_event_that_comes_between_the_end_of_the_container_and_its_record_is_not_missed(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    awaited = await workflow.ask("event", "paid")
    await workflow.send("paid", 1)  # The harness has decided, its report is on its way.
    await stage.runner.report(
        workflow.assignment,
        error={"code": "suspended", "details": [{"field": "checkpoint_id", "message": awaited.checkpoint_id}]},
    )
    await workflow.next_attempt()
    assert (await workflow.ask("event", "paid")).value == 1


async def test_a_payload_that_does_not_fit_is_refused_with_the_place(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    schema = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
    awaited = await workflow.ask("event", "paid", value_schema=schema)
    with pytest.raises(errors.InvalidInput) as refused:
        await workflow.send("paid", {"amount": "three"})
    assert refused.value.details == [{"field": "amount", "message": "'three' is not of type 'integer'"}]
    assert (await workflow.send("paid", {"amount": 3})).delivered
    assert (await workflow.ask("event", "paid", value_schema=schema, occurrence=0)).checkpoint_id == (
        awaited.checkpoint_id
    )


async def test_an_event_that_nobody_sends_expires_and_a_late_one_is_kept(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    awaited = await workflow.ask("event", "paid", seconds=60, occurrence=0)
    await workflow.suspend(awaited.checkpoint_id)
    stage.clock.advance(timedelta(seconds=60))
    assert not (await workflow.send("paid", "late")).delivered
    await workflow.next_attempt()
    assert (await workflow.ask("event", "paid", seconds=60, occurrence=0)).status == "expired"
    assert (await workflow.ask("event", "paid", seconds=60, occurrence=1)).value == "late"


async def test_an_approval_is_answered_by_those_who_may_and_says_who_it_was(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    asked = await workflow.ask("approval", "ship", approvers=["ada", "runner"], message="Ship it?")
    await workflow.suspend(asked.checkpoint_id)
    document = await stage.get(workflow.id)
    assert document.waiting_on is not None
    assert (document.waiting_on.reason, "Ship it?" in document.waiting_on.message) == ("approval", True)
    grace = Principal("grace", stage.org_id, Role.BUILDER, stage.workspace_id)
    with pytest.raises(errors.Forbidden) as refused:
        await workflow.send("ship", {"approved": True}, by=grace)
    assert refused.value.error_code == "not_an_approver"
    ada = Principal("ada", stage.org_id, Role.BUILDER, stage.workspace_id)
    await workflow.send("ship", {"approved": False, "comment": "not yet", "by": "somebody else"}, by=ada)
    await workflow.next_attempt()
    answer = (await workflow.ask("approval", "ship", approvers=["ada", "runner"])).value
    assert (answer["approved"], answer["comment"], answer["by"]) == (False, "not yet", "ada")
    found = stage.engine.executions.events(stage.admin, stage.org_id, stage.workspace_id, workflow.id, 0)
    told = await anext(found)
    assert told is not None
    assert (told.event_type, told.event_data["by"], told.event_data["approved"]) == ("approval", "ada", False)


async def test_every_view_says_what_is_waited_for_with_a_container_and_without(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    asked = await workflow.ask("approval", "ship", approvers=["ada"], message="Ship it?")

    async def views() -> set[tuple[str, str]]:
        place = (stage.admin, stage.org_id, stage.workspace_id)
        page = await stage.engine.executions.list(*place, ExecutionFilter(), None, 10)
        tree = await stage.engine.executions.tree(*place, workflow.id)
        found = [await stage.get(workflow.id), *page.items, StatusDocument.model_validate(tree["execution"])]
        assert len(found) == 3
        return {(one.waiting_on.reason, one.waiting_on.message) for one in found if one.waiting_on}

    expected = {("approval", "Waits for approval 'ship' by ada: Ship it?")}
    assert await views() == expected
    await workflow.suspend(asked.checkpoint_id)
    assert await views() == expected
    ada = Principal("ada", stage.org_id, Role.BUILDER, stage.workspace_id)
    await workflow.send("ship", {"approved": True}, by=ada)
    await workflow.next_attempt()
    assert {reason for reason, _ in await views()} == {"container"}


async def test_no_execution_answers_an_approval(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    await workflow.ask("approval", "ship", approvers=["execution"])
    with pytest.raises(errors.Forbidden):
        await workflow.send("ship", {"approved": True}, by=workflow.inside)


async def test_the_end_of_a_child_wakes_the_workflow_that_waits_without_a_container(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    child = await workflow.call({"n": 1})
    [assignment] = await stage.runner.claim()
    await workflow.suspend(executions=(child.id,))
    document = await stage.get(workflow.id)
    assert document.waiting_on is not None
    assert (document.status, document.waiting_on.reason) == (Status.WAITING, "children")
    await stage.runner.report(assignment, "done")
    await workflow.next_attempt()
    assert ((await workflow.call({"n": 1})).id, workflow.assignment.attempt) == (child.id, 2)


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_a_child_that_ends_in_another_way_wakes_it_as_well(stage: Stage, how: str) -> None:
    workflow = await Workflow.start(stage, timeout_seconds=3000)
    child = await stage.submit("block", principal=workflow.inside, timeout_seconds=30)
    await workflow.suspend(executions=(child.id,))
    if how == "cancelled":
        await stage.cancel(child.id)
    else:
        stage.clock.advance(timedelta(seconds=31))
    await workflow.next_attempt()
    assert (await stage.get(child.id)).status.is_terminal


async def test_a_workflow_that_waits_is_cancelled_with_its_children_and_times_out(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    child = await workflow.call({"n": 1})
    await workflow.suspend(executions=(child.id,))
    assert (await stage.cancel(workflow.id)).status is Status.CANCELLED
    assert (await stage.get(child.id)).status is Status.CANCELLED
    late = await Workflow.start(stage, timeout_seconds=60)
    slept = await late.ask("timer", "sleep", seconds=3600)
    await late.suspend(slept.checkpoint_id)
    stage.clock.advance(timedelta(seconds=61))
    assert (await stage.wait(late.id)).status is Status.TIMEOUT


async def test_the_token_of_an_attempt_that_gave_its_container_back_reaches_nothing(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    slept = await workflow.ask("timer", "sleep", seconds=100)
    await workflow.suspend(slept.checkpoint_id)
    with pytest.raises(errors.Conflict):
        await workflow.ask("timer", "sleep", seconds=100)
    with pytest.raises(errors.Unauthenticated):
        await stage.engine.executions.get(workflow.inside, stage.org_id, stage.workspace_id, workflow.id)


async def test_nobody_asks_for_the_checkpoints_of_another_execution(stage: Stage) -> None:
    first, second = await Workflow.start(stage), await Workflow.start(stage)
    step = await first.ask("step", "charge")
    with pytest.raises(errors.NotFound):
        await second.finish(step.checkpoint_id, value=1)
    second.id = first.id
    with pytest.raises(errors.Forbidden):
        await second.ask("step", "charge")
    with pytest.raises(errors.NotFound):
        await first.send("paid", 1, by=second.inside)


async def test_code_that_is_not_the_same_when_it_runs_again_keeps_its_container(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    first = await workflow.call({"at": "10:00"})
    await stage.runner.claim()
    assert (await workflow.may_suspend(executions=(first.id,))).suspend
    await workflow.lose({"code": "suspended", "details": []})
    second = await workflow.call({"at": "10:05"})
    asked = await workflow.may_suspend(executions=(second.id,))
    assert (asked.suspend, "replay_mismatch" in asked.reason) == (False, True)


async def test_what_is_waited_for_and_is_there_keeps_the_container(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    done = await workflow.ask("timer", "sleep", seconds=0)
    assert not (await workflow.may_suspend(done.checkpoint_id)).suspend
    assert not (await workflow.may_suspend("unknown")).suspend


async def test_a_suspension_counts_neither_as_a_failure_nor_as_a_loss(stage: Stage) -> None:
    workflow = await Workflow.start(stage, timeout_seconds=10_000)
    for number in range(6):
        slept = await workflow.ask("timer", "sleep", seconds=number + 1)
        await workflow.suspend(slept.checkpoint_id)
        stage.clock.advance(timedelta(seconds=number + 2))
        await workflow.next_attempt()
    await workflow.lose()
    await workflow.lose()
    assert (await stage.get(workflow.id)).status is Status.RUNNING
    await workflow.end_attempt({"code": "process_crashed", "message": "signal 9"})
    document = await stage.get(workflow.id)
    assert (document.status, document.attempt) == (Status.DEAD_LETTER, 9)
    assert [error.code for error in document.errors] == ["process_crashed"] * 3


async def test_a_held_read_is_answered_when_the_event_comes(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    awaited = await workflow.ask("event", "paid")
    reading = asyncio.create_task(
        stage.engine.checkpoints.wait(
            workflow.inside, stage.org_id, stage.workspace_id, workflow.id, awaited.checkpoint_id, 20
        )
    )

    async def is_waiting() -> bool:
        return bool(stage.engine._wakeups._waiters.get(awaited.checkpoint_id))

    await eventually(is_waiting, bool)
    await workflow.send("paid", 5)
    assert (await reading).value == 5


async def test_an_ended_execution_takes_no_event(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    await stage.runner.report(workflow.assignment, "done")
    await stage.wait(workflow.id)
    with pytest.raises(errors.Conflict) as refused:
        await workflow.send("paid", 1)
    assert refused.value.error_code == "execution_ended"


async def test_many_sleeping_workflows_are_rows_and_wake_together(stage: Stage) -> None:
    stage.runner.slots = 500
    await stage.publish("flow", Kind.WORKFLOW)
    count = 300
    for _ in range(count):
        await stage.submit("flow", kind=Kind.WORKFLOW)
    assignments = []
    while len(assignments) < count:
        assignments += await stage.runner.claim()
    for assignment in assignments:
        workflow = Workflow(stage, assignment)
        slept = await workflow.ask("timer", "sleep", seconds=100)
        await stage.runner.report(
            assignment,
            error={"code": "suspended", "details": [{"field": "checkpoint_id", "message": slept.checkpoint_id}]},
        )

    async def waiting() -> int:
        counts = await stage.engine.store.read(lambda tx: tx.executions.counts())
        return counts[Status.WAITING]

    await eventually(waiting, lambda found: found == count)
    stage.clock.advance(timedelta(seconds=101))
    again = []
    while len(again) < count:
        again += await stage.runner.claim()
    assert {one.execution_id for one in again} == {one.execution_id for one in assignments}

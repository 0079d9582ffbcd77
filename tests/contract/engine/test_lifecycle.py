"""From submit to every terminal status, as a runner and a client see it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from flow_platform.domain import errors
from flow_platform.engine.accept import Submission
from flow_platform.engine.submit import IdempotencyKey
from flow_platform.engine.sweeper import Sweeper
from flow_sdk.wire.status import Kind, Status
from tests.support.eventually import eventually
from tests.support.scripted_runner import ScriptedRunner, held
from tests.support.stage import Stage


def sweeper(stage: Stage) -> Sweeper:
    engine = stage.engine
    return Sweeper(engine.store, stage.clock, engine._wakeups, engine.executions._notices, engine.executions._ends)


async def test_a_submit_reaches_a_waiting_runner_and_its_result_the_waiting_client(stage: Stage) -> None:
    claiming = asyncio.create_task(stage.runner.claim())
    execution = await stage.submit(input_data={"n": 1}, config={"trace": True})
    waiting = asyncio.create_task(stage.wait(execution.id))
    [assignment] = await claiming
    assert assignment.execution_id == execution.id
    assert assignment.input == {"input_data": {"n": 1}, "session_id": None, "messages": [], "state": {}}
    assert assignment.config == {"trace": True}
    await stage.runner.report(assignment, {"ok": True}, usage={"tokens": 3})
    document = await waiting
    assert document.status is Status.COMPLETED
    assert (document.output, document.usage) == ({"ok": True}, {"tokens": 3})
    assert document.metrics.cpu_ms == 1.5
    assert document.waiting_on is None


async def test_a_runner_gets_no_more_than_its_slots(stage: Stage) -> None:
    for _ in range(6):
        await stage.submit()
    first = await stage.runner.claim()
    assert len(first) == 4
    assert await stage.runner.claim(hold_seconds=0.05) == []
    await stage.runner.report(first[0])
    assert len(await stage.runner.claim()) == 1


async def test_a_parent_lends_its_slot_to_its_children(stage: Stage) -> None:
    alone = ScriptedRunner(stage.runner.bus, "alone", slots=1)
    await alone.start()
    await stage.publish("parent", Kind.WORKFLOW)
    parent = await stage.submit("parent", kind=Kind.WORKFLOW)
    [running] = await alone.claim()
    child = await stage.submit(principal=stage.inside(running))
    assert (child.parent_id, child.root_id, child.depth) == (parent.id, parent.id, 1)
    assert child.ring_id == parent.ring_id
    document = await stage.get(parent.id)
    assert document.waiting_on is not None
    assert document.waiting_on.reason == "children"
    [below] = await alone.claim()
    await alone.report(below, 1)
    assert (await stage.wait(child.id)).status is Status.COMPLETED
    await stage.submit()
    assert await alone.claim(hold_seconds=0.05) == [], "the parent computes again: the slot is its own"


async def test_a_failure_is_retried_by_policy_after_its_back_off_then_a_dead_letter(stage: Stage) -> None:
    await stage.publish("flaky", retry={"max_attempts": 2, "initial_interval_seconds": 30})
    execution = await stage.submit("flaky")
    error = {"code": "component_error", "type": "OSError", "message": "disk on fire"}
    [first] = await stage.runner.claim()
    await stage.runner.report(first, error=error)
    queued = await eventually(lambda: stage.get(execution.id), lambda document: document.status is Status.QUEUED)
    assert queued.waiting_on is not None
    assert queued.waiting_on.reason == "back_off"
    assert await stage.runner.claim(hold_seconds=0.05) == []
    stage.clock.advance(timedelta(seconds=30))
    [second] = await stage.runner.claim()
    assert (second.attempt, second.lease_epoch) == (2, 2)
    await stage.runner.report(second, error=error)
    document = await stage.wait(execution.id)
    assert document.status is Status.DEAD_LETTER
    assert [(e.attempt, e.message) for e in document.errors] == [(1, "disk on fire"), (2, "disk on fire")]


async def test_an_old_epoch_changes_nothing(stage: Stage) -> None:
    execution = await stage.submit()
    [first] = await stage.runner.claim()
    stage.clock.advance(timedelta(seconds=11))
    await sweeper(stage).sweep()
    [second] = await stage.runner.claim()
    await stage.runner.report(first, "from the dead")
    await stage.runner.event(first, 1, "late")
    await stage.runner.report(second, "alive")
    document = await stage.wait(execution.id)
    assert (document.output, document.attempt) == ("alive", 2)
    assert [error.code for error in document.errors] == ["runner_lost"]


async def test_heartbeats_keep_a_lease_and_say_what_is_lost_and_recorded(stage: Stage) -> None:
    execution = await stage.submit()
    [assignment] = await stage.runner.claim()
    for _ in range(5):
        stage.clock.advance(timedelta(seconds=8))
        reply = await stage.runner.heartbeat([held(assignment)])
        assert (reply.lost, reply.recorded, reply.cancel) == ([], [], [])
        await sweeper(stage).sweep()
    assert (await stage.get(execution.id)).status is Status.RUNNING
    await stage.runner.report(assignment)
    await stage.wait(execution.id)
    assert (await stage.runner.heartbeat([held(assignment, reported=True)])).recorded == [execution.id]
    assert (await stage.runner.heartbeat([held(assignment)])).lost == [execution.id]


async def test_an_unknown_runner_is_told_to_register(stage: Stage) -> None:
    stranger = ScriptedRunner(stage.runner.bus, "stranger")
    assert (await stranger.heartbeat([])).error == "unknown_runner"


async def test_a_runner_that_comes_back_gives_up_its_executions_at_once(stage: Stage) -> None:
    execution = await stage.submit()
    await stage.runner.claim()
    again = ScriptedRunner(stage.runner.bus, stage.runner.runner_id)
    await again.register()
    [assignment] = await again.claim()
    assert (assignment.execution_id, assignment.attempt) == (execution.id, 2)


async def test_three_lost_attempts_are_a_dead_letter(stage: Stage) -> None:
    execution = await stage.submit()
    for _ in range(3):
        [assignment] = await stage.runner.claim()
        await stage.runner.report(assignment, error={"code": "process_crashed", "message": "signal 11"})
        await eventually(
            lambda: stage.get(execution.id), lambda document: document.status in (Status.QUEUED, Status.DEAD_LETTER)
        )
        stage.clock.advance(timedelta(seconds=2))
    document = await stage.get(execution.id)
    assert document.status is Status.DEAD_LETTER
    assert len(document.errors) == 3


async def test_queue_time_counts_for_the_timeout(stage: Stage) -> None:
    execution = await stage.submit(timeout_seconds=5)
    stage.clock.advance(timedelta(seconds=5))
    await sweeper(stage).sweep()
    document = await stage.get(execution.id)
    assert document.status is Status.TIMEOUT
    assert document.error is not None
    assert "5 s" in document.error.message
    assert await stage.runner.claim(hold_seconds=0.05) == []


async def test_a_running_execution_past_its_deadline_ends_with_its_children_and_containers(stage: Stage) -> None:
    await stage.publish("parent", Kind.WORKFLOW)
    parent = await stage.submit("parent", kind=Kind.WORKFLOW, timeout_seconds=5)
    [running] = await stage.runner.claim()
    child = await stage.submit(principal=stage.inside(running))
    await stage.runner.claim()
    stage.clock.advance(timedelta(seconds=5))
    await sweeper(stage).sweep()
    assert (await stage.get(parent.id)).status is Status.TIMEOUT
    assert (await stage.get(child.id)).status is Status.CANCELLING
    await eventually(lambda: _value(stage.runner.cancelled), lambda told: {parent.id, child.id} <= set(told))


async def _value(value: Any) -> Any:
    return value


async def test_cancel_ends_the_tree_and_waits_for_the_containers(stage: Stage) -> None:
    await stage.publish("parent", Kind.WORKFLOW)
    parent = await stage.submit("parent", kind=Kind.WORKFLOW)
    [running] = await stage.runner.claim()
    waiting_child = await stage.submit(principal=stage.inside(running))
    assert (await stage.cancel(parent.id)).status is Status.CANCELLING
    assert (await stage.get(waiting_child.id)).status is Status.CANCELLED
    await eventually(lambda: _value(stage.runner.cancelled), lambda told: told == [parent.id])
    assert (await stage.runner.heartbeat([held(running)])).cancel == [parent.id]
    await stage.runner.report(running, "too late")
    document = await stage.wait(parent.id)
    assert (document.status, document.output) == (Status.CANCELLED, None)
    assert (await stage.cancel(parent.id)).status is Status.CANCELLED, "cancelling again changes nothing"


async def test_cancel_ends_without_the_runner_when_it_stays_silent(stage: Stage) -> None:
    execution = await stage.submit()
    await stage.runner.claim()
    await stage.cancel(execution.id)
    stage.clock.advance(timedelta(seconds=10))
    await sweeper(stage).sweep()
    assert (await stage.get(execution.id)).status is Status.CANCELLED


async def test_one_key_is_one_execution(stage: Stage) -> None:
    def submit(fingerprint: str) -> Any:
        submission = Submission(Kind.CODE_BLOCK, "block", {})
        key = IdempotencyKey("k", fingerprint)
        return stage.engine.submitter.submit(stage.admin, stage.org_id, stage.workspace_id, submission, key)

    made = await asyncio.gather(*(submit("same") for _ in range(20)))
    assert len({execution.id for execution in made}) == 1
    with pytest.raises(errors.Conflict) as refused:
        await submit("other")
    assert refused.value.error_code == "idempotency_key_reused"


async def test_an_execution_reads_its_descendants_only_and_nothing_after_its_end(stage: Stage) -> None:
    stranger = await stage.submit()
    await stage.publish("parent", Kind.WORKFLOW)
    parent = await stage.submit("parent", kind=Kind.WORKFLOW)
    running = next(a for a in await stage.runner.claim() if a.execution_id == parent.id)
    inside = stage.inside(running)
    child = await stage.submit(principal=inside)
    executions = stage.engine.executions
    assert (await executions.get(inside, stage.org_id, stage.workspace_id, child.id)).execution_id == child.id
    with pytest.raises(errors.NotFound):
        await executions.get(inside, stage.org_id, stage.workspace_id, stranger.id)
    await stage.runner.report(running)
    await stage.wait(parent.id)
    with pytest.raises(errors.Conflict) as refused:
        await stage.submit(principal=inside)
    assert refused.value.error_code == "parent_ended"
    with pytest.raises(errors.Unauthenticated):
        await executions.get(inside, stage.org_id, stage.workspace_id, child.id)


async def test_a_large_input_and_a_large_output_travel(stage: Stage) -> None:
    text = "x" * (3 << 20)
    execution = await stage.submit(input_data={"text": text})
    [assignment] = await stage.runner.claim()
    assert assignment.input is not None
    assert assignment.input["input_data"] == {"text": text}
    await stage.runner.report(assignment, {"fits": True})
    assert (await stage.wait(execution.id)).status is Status.COMPLETED


async def test_an_attempt_that_the_engine_ended_has_an_end(stage: Stage) -> None:
    late, silent = await stage.submit(timeout_seconds=2), await stage.submit(timeout_seconds=100)
    assignments = [await stage.claim(late.id), await stage.claim(silent.id)]
    stage.clock.advance(timedelta(seconds=2))
    assert (await stage.wait(late.id)).status is Status.TIMEOUT
    await stage.runner.heartbeat([held(assignments[1])])
    await stage.cancel(silent.id)
    stage.clock.advance(timedelta(seconds=30))
    await stage.engine.sweeper.sweep()
    assert (await stage.get(silent.id)).status is Status.CANCELLED
    for execution, code in ((late, "timeout"), (silent, "cancelled")):
        [attempt] = await stage.engine.store.read(lambda tx, id_=execution.id: tx.executions.attempts(id_))
        assert (attempt.number, attempt.runner_id, attempt.error and attempt.error.code) == (1, "scripted", code)
        assert attempt.finished_at is not None
        assert [error.code for error in (await stage.get(execution.id)).errors] == [code]

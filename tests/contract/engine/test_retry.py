"""Retries by hand: what they take over from the execution that they repeat, and what they do again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flow_platform.domain.principal import Principal, Role
from flow_platform.engine import retry as engine_retry
from flow_platform.engine.retry_rules import NewInput
from flow_platform.engine.submit import IdempotencyKey
from flow_platform.store.base import ExecutionFilter
from flow_sdk.wire.durable import CheckpointDocument, CheckpointKind, CheckpointRequest, CheckpointStatus, StepResult
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Kind, Status
from tests.support.graph_player import Failure, GraphPlayer, node
from tests.support.retries import ERROR, call, end, failed, refused, retry, retry_all, workflow
from tests.support.stage import Stage

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def room(stage: Stage) -> None:
    stage.runner.slots = 100


async def test_a_retry_is_a_new_execution_like_the_old_one(stage: Stage) -> None:
    old = await failed(
        stage,
        input_data={"n": 1},
        config={"c": 2},
        lifecycle_event="test",
        timeout_seconds=77,
        session_id="s",
        messages=["m"],
        state={"k": "v"},
        priority=5,
        parent_billing_transaction_id="account",
    )
    stage.clock.advance(timedelta(seconds=5))
    new = await retry(stage, old.id)
    assert (new.status, new.retry_of_id, new.attempt, new.failures) == (Status.QUEUED, old.id, 0, 0)
    for name in [
        "component_id",
        "version_id",
        "deployment_id",
        "ring_id",
        "lifecycle_event",
        "timeout_seconds",
        "session_id",
        "priority",
        "parent_id",
        "depth",
        "parent_billing_transaction_id",
    ]:
        assert getattr(new, name) == getattr(old, name), name
    assert new.billing_transaction_id != old.billing_transaction_id
    assert new.deadline_at == stage.clock.now() + timedelta(seconds=77), "it has its time again"
    assignment = await stage.claim(new.id)
    assert assignment.input == {"input_data": {"n": 1}, "session_id": "s", "messages": ["m"], "state": {"k": "v"}}
    assert assignment.config == {"c": 2}
    await end(stage, assignment, "better")
    document, before = await stage.get(new.id), await stage.get(old.id)
    assert (document.output, document.retry_of_execution_id) == ("better", old.id)
    assert (before.status, before.retried_as_execution_id, before.output) == (Status.FAILED, new.id, None)


async def test_what_cannot_be_retried_is_refused(stage: Stage) -> None:
    running = await stage.submit()
    assert "'queued'" in (await refused(retry(stage, running.id), "not_retryable")).message
    await end(stage, running, "fine")
    assert (await refused(retry(stage, running.id), "not_retryable")).hint == "submit it anew"
    old = await failed(stage)
    new = await retry(stage, old.id)
    assert new.id in (await refused(retry(stage, old.id), "already_retried")).message
    await refused(retry(stage, "unknown"), "not_found")
    viewer = Principal("v", stage.org_id, Role.VIEWER, stage.workspace_id)
    await refused(retry(stage, old.id, principal=viewer), "forbidden")
    inside = stage.inside(await stage.claim(new.id))
    await refused(retry(stage, old.id, principal=inside), "forbidden")
    stranger = Principal("s", "elsewhere", Role.ADMIN)
    await refused(retry(stage, old.id, principal=stranger), "not_found")


async def test_every_end_without_a_result_can_be_retried(stage: Stage) -> None:
    cancelled, late = await stage.submit(), await stage.submit(timeout_seconds=1)
    await stage.cancel(cancelled.id)
    stage.clock.advance(timedelta(seconds=1))
    assert (await stage.wait(late.id)).status is Status.TIMEOUT
    for old in (cancelled, late):
        assert (await retry(stage, old.id)).retry_of_id == old.id


async def test_a_retry_of_a_retry_is_a_chain(stage: Stage) -> None:
    first = await failed(stage)
    second = await retry(stage, first.id)
    await end(stage, second, error=ERROR)
    third = await retry(stage, second.id)
    assert third.retry_of_id == second.id
    assert (await stage.get(first.id)).retried_as_execution_id == second.id


async def test_one_key_retries_once(stage: Stage) -> None:
    old, key = await failed(stage), IdempotencyKey("k", "body")
    new = await retry(stage, old.id, key=key)
    assert (await retry(stage, old.id, key=key)).id == new.id
    await refused(retry(stage, old.id, key=IdempotencyKey("k", "another body")), "idempotency_key_reused")
    await refused(retry(stage, old.id, key=IdempotencyKey("", "")), "invalid_input")


async def test_it_runs_on_the_version_that_ran_unless_another_is_named(stage: Stage) -> None:
    olds = [await failed(stage) for _ in range(4)]
    await stage.publish(code="def main(): return 2")
    assert (await stage.submit()).version == 2
    assert (await retry(stage, olds[0].id)).version == 1
    assert (await retry(stage, olds[1].id, version="active")).version == 2
    assert (await retry(stage, olds[2].id, version=2)).version == 2
    assert (await retry(stage, olds[3].id, version=1)).deployment_id == olds[3].deployment_id
    assert "version 3 of" in (await refused(retry(stage, (await failed(stage)).id, version=3), "not_found")).message


async def test_a_version_that_was_never_active_in_the_ring_is_refused(stage: Stage) -> None:
    rings = {r.name: r for r in await stage.engine.releases.rings(stage.admin, stage.org_id, stage.workspace_id)}
    component = await stage.engine.store.read(
        lambda tx: tx.catalog.find_component(stage.org_id, stage.workspace_id, Kind.CODE_BLOCK, "block")
    )
    assert component is not None
    await stage.engine.rollouts.deploy(
        stage.admin, stage.org_id, stage.workspace_id, component.id, rings["staging"].id, 1
    )
    old = await failed(stage, ring_id=rings["staging"].id)
    await stage.publish(code="def main(): return 2")
    error = await refused(retry(stage, old.id, version=2), "not_deployed")
    assert "'staging'" in error.message
    assert (await retry(stage, old.id)).ring_id == rings["staging"].id


async def test_another_input_is_taken(stage: Stage) -> None:
    old = await failed(stage, input_data={"n": 1})
    expected = "an object of keyword arguments"
    assert expected in (await refused(retry(stage, old.id, input=NewInput([1])), "invalid_input")).message
    new = await retry(stage, old.id, input=NewInput({"n": 2}))
    assert ((await stage.claim(new.id)).input or {})["input_data"] == {"n": 2}


async def test_completed_children_are_kept_and_failed_ones_repeated(stage: Stage) -> None:
    old = await workflow(stage)
    kept, repeated = await call(stage, old, 1), await call(stage, old, 2)
    await end(stage, kept, "one")
    await end(stage, repeated, error=ERROR)
    await end(stage, old, error=ERROR)
    new = await stage.claim((await retry(stage, old.execution_id)).id)
    assert (await call(stage, new, 1)).id == kept.id
    inside = stage.inside(new)
    seen = await stage.engine.executions.get(inside, stage.org_id, stage.workspace_id, kept.id)
    assert seen.output == "one", "it may read what its calls are answered with"
    again = await call(stage, new, 2)
    assert (again.id != repeated.id, again.retry_of_id) == (True, repeated.id)
    assert (await call(stage, new, 3)).retry_of_id is None
    assert (await stage.get(repeated.id)).retried_as_execution_id == again.id


async def test_with_another_input_children_are_kept_by_theirs(stage: Stage) -> None:
    old = await workflow(stage)
    kept = await call(stage, old, 1)
    await end(stage, kept, "one")
    await end(stage, old, error=ERROR)
    new = await stage.claim((await retry(stage, old.execution_id, input=NewInput({"other": True}))).id)
    assert (await call(stage, new, 1)).id == kept.id


async def test_a_workflow_below_goes_on_from_where_it_was(stage: Stage) -> None:
    old = await workflow(stage)
    await stage.publish("inner", Kind.WORKFLOW)
    inner = await stage.claim((await call(stage, old, 0, "inner", kind=Kind.WORKFLOW)).id)
    kept = await call(stage, inner, 1)
    await end(stage, kept, "one")
    await end(stage, inner, error=ERROR)
    await end(stage, old, error=ERROR)
    new = await stage.claim((await retry(stage, old.execution_id)).id)
    inner_again = await call(stage, new, 0, "inner", kind=Kind.WORKFLOW)
    assert (inner_again.retry_of_id, inner_again.parent_id) == (inner.execution_id, new.execution_id)
    assert (await call(stage, await stage.claim(inner_again.id), 1)).id == kept.id


async def test_a_child_that_was_retried_by_hand_before_its_parent_is_not_run_again(stage: Stage) -> None:
    old = await workflow(stage)
    child = await call(stage, old, 1)
    await end(stage, child, error=ERROR)
    error = await refused(retry(stage, child.id), "parent_decides")
    assert old.execution_id in error.message
    await end(stage, old, error=ERROR)
    by_hand = await retry(stage, child.id)
    assert (by_hand.parent_id, by_hand.root_id) == (old.execution_id, old.execution_id)
    await end(stage, by_hand, "mended")
    new = await stage.claim((await retry(stage, old.execution_id)).id)
    assert (await call(stage, new, 1)).id == by_hand.id


async def test_a_child_is_left_to_the_repetition_of_its_parent(stage: Stage) -> None:
    old = await workflow(stage)
    child = await call(stage, old, 1)
    await end(stage, child, error=ERROR)
    await end(stage, old, error=ERROR)
    new = await retry(stage, old.execution_id)
    assert new.id in (await refused(retry(stage, child.id), "parent_decides")).message
    await end(stage, new, "without that child")
    assert (await retry(stage, child.id)).retry_of_id == child.id, "it was not repeated, and nothing above runs"


async def test_what_a_completed_parent_left_can_be_retried(stage: Stage) -> None:
    old = await workflow(stage)
    child = await call(stage, old, 1)
    await end(stage, old, "did not wait")
    await end(stage, child, error=ERROR)
    new = await retry(stage, child.id)
    assert (new.parent_id, new.depth, new.priority) == (old.execution_id, 1, child.priority)


async def test_a_filter_retries_all_that_match_once(stage: Stage) -> None:
    await stage.publish("other")
    olds = [await failed(stage) for _ in range(3)]
    other = await failed(stage, "other")
    cancelled = await stage.submit()
    await stage.cancel(cancelled.id)
    component_id = olds[0].component_id
    preview = await retry_all(stage, dry_run=True, component_id=component_id)
    assert preview.retried == dict.fromkeys([old.id for old in olds])
    done = await retry_all(stage, component_id=component_id)
    assert list(done.retried) == [old.id for old in olds], "oldest first"
    assert not done.refused
    assert (await retry_all(stage, component_id=component_id)).retried == {}
    assert list((await retry_all(stage, dry_run=True)).retried) == [other.id], "a cancelled one has to be named"
    assert list((await retry_all(stage, status=Status.CANCELLED)).retried) == [cancelled.id]


async def test_a_filter_leaves_children_to_the_parents_that_it_retries(stage: Stage) -> None:
    old = await workflow(stage)
    child = await call(stage, old, 1)
    await end(stage, child, error=ERROR)
    assert (await retry_all(stage, dry_run=True)).retried == {}, "its parent still runs"
    await end(stage, old, error=ERROR)
    assert list((await retry_all(stage, dry_run=True)).retried) == [old.execution_id]
    done = await retry_all(stage)
    assert list(done.retried) == [old.execution_id]


async def test_more_than_one_call_retries_are_said_to_be_left(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    olds = [await failed(stage) for _ in range(3)]
    monkeypatch.setattr(engine_retry, "MAX_RETRIED", 2)
    monkeypatch.setattr(engine_retry, "RETRY_BATCH", 1)
    first = await retry_all(stage)
    assert (list(first.retried), first.truncated) == ([old.id for old in olds[:2]], True)
    second = await retry_all(stage)
    assert (list(second.retried), second.truncated) == ([olds[2].id], False)


async def test_one_that_is_refused_does_not_keep_the_others_from_their_retry(stage: Stage) -> None:
    await stage.publish("other")
    one, other = await failed(stage), await failed(stage, "other")
    await stage.publish(code="def main(): return 2")
    done = await retry_all(stage, version=2)
    assert list(done.retried) == [one.id]
    [refusal] = done.refused
    assert (refusal.execution_id, refusal.error.error_code) == (other.id, "not_found")


async def test_the_list_tells_what_was_not_retried_yet(stage: Stage) -> None:
    old, waiting = await failed(stage), await failed(stage)
    new = await retry(stage, old.id)

    async def listed(**where: Any) -> list[str]:
        page = await stage.engine.executions.list(
            stage.admin, stage.org_id, stage.workspace_id, ExecutionFilter(**where), None, 10
        )
        return [document.execution_id for document in page.items]

    assert await listed(status=Status.FAILED, retried=False) == [waiting.id]
    assert await listed(retried=True) == [old.id]
    assert await listed(retried=False) == [new.id, waiting.id]


async def ask(stage: Stage, caller: Assignment, kind: CheckpointKind, name: str, **more: Any) -> CheckpointDocument:
    return await stage.engine.checkpoints.ask(
        stage.inside(caller),
        stage.org_id,
        stage.workspace_id,
        caller.execution_id,
        CheckpointRequest(kind=kind, name=name, **more),
    )


async def finish(stage: Stage, caller: Assignment, step: CheckpointDocument, **result: Any) -> None:
    await stage.engine.checkpoints.finish(
        stage.inside(caller),
        stage.org_id,
        stage.workspace_id,
        caller.execution_id,
        step.checkpoint_id,
        StepResult(**result),
    )


async def test_finished_steps_and_timers_are_kept_and_all_others_begin_anew(stage: Stage) -> None:
    old = await workflow(stage)
    done, raised = [await ask(stage, old, CheckpointKind.STEP, name) for name in ("done", "raised")]
    await finish(stage, old, done, value=1)
    await finish(stage, old, raised, error=ErrorDocument(code="component_error", message="no"))
    short = await ask(stage, old, CheckpointKind.TIMER, "pause", seconds=1)
    long = await ask(stage, old, CheckpointKind.TIMER, "pause", seconds=100)
    expired = await ask(stage, old, CheckpointKind.EVENT, "never", seconds=1)
    stage.clock.advance(timedelta(seconds=2))
    await end(stage, old, error=ERROR)
    new = await stage.claim((await retry(stage, old.execution_id)).id)
    kept = await ask(stage, new, CheckpointKind.STEP, "done")
    assert (kept.checkpoint_id, kept.value) == (done.checkpoint_id, 1)
    slept = await ask(stage, new, CheckpointKind.TIMER, "pause", seconds=1)
    assert (slept.checkpoint_id, slept.status) == (short.checkpoint_id, CheckpointStatus.DONE)
    for before, request in (
        (raised, {"kind": CheckpointKind.STEP, "name": "raised"}),
        (long, {"kind": CheckpointKind.TIMER, "name": "pause", "seconds": 100}),
        (expired, {"kind": CheckpointKind.EVENT, "name": "never", "seconds": 1}),
    ):
        again = await ask(stage, new, **request)
        assert again.checkpoint_id != before.checkpoint_id
        assert again.status is CheckpointStatus.OPEN


async def test_with_another_input_steps_are_done_anew(stage: Stage) -> None:
    old = await workflow(stage)
    step = await ask(stage, old, CheckpointKind.STEP, "load")
    await finish(stage, old, step, value=1)
    await end(stage, old, error=ERROR)
    new = await stage.claim((await retry(stage, old.execution_id, input=NewInput({"other": True}))).id)
    assert (await ask(stage, new, CheckpointKind.STEP, "load")).status is CheckpointStatus.OPEN


async def test_a_repetition_may_go_another_way_than_the_old_one(stage: Stage) -> None:
    old = await workflow(stage)
    await end(stage, await call(stage, old, 1), error=ERROR)
    await end(stage, await call(stage, old, 2), "told somebody of the failure")
    await end(stage, old, error=ERROR)
    new = await stage.claim((await retry(stage, old.execution_id)).id)
    await end(stage, await call(stage, new, 1), "fine")
    await stage.runner.report(new, error={"code": "process_crashed", "message": "signal 9"})
    again = await stage.claim(new.execution_id)
    assert (await call(stage, again, 1)).status is Status.COMPLETED
    await end(stage, again, "fine")
    events = stage.engine.executions.events(stage.admin, stage.org_id, stage.workspace_id, new.execution_id, 0)
    assert [event async for event in events if event and event.event_type == "replay_mismatch"] == []


async def test_a_graph_is_retried_with_its_completed_nodes(stage: Stage) -> None:
    player, broken = GraphPlayer(stage), True

    def answer(slug: str, given: Any) -> Any:
        if slug == "b" and broken:
            raise Failure
        return slug

    player.answer = answer
    await player.publish("graph", "a", "b", type="sequential", nodes=[node("a"), node("b")])
    old = await player.submit(input_data=1)
    assert (await player.play(old)).status is Status.FAILED
    broken = False
    key = IdempotencyKey("k", "body")
    new = await retry(stage, old.id, key=key)
    assert (new.status, new.deployment_id) == (Status.QUEUED, old.deployment_id)
    again = await retry(stage, old.id, key=key)
    assert (again.id, again.status) == (new.id, new.status), "answered as it was, whatever happened since"
    assert (await player.play(new)).outputs == {"b": "b"}
    assert player.ran == {"a": 1, "b": 2}

"""Deployments on their way through rings: one engine, its watch and its store, a scripted runner; on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from flow_platform.bus.connection import Bus
from flow_platform.bus.server import NatsServer
from flow_platform.domain import errors
from flow_platform.domain.clock import ManualClock
from flow_platform.domain.principal import Principal, Role
from flow_platform.domain.release import DeploymentState, RollbackRule
from flow_platform.engine.rollouts import APPROVAL_WITHIN
from flow_platform.engine.service import Engine
from flow_platform.store import open_store
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Status
from tests.support.eventually import eventually
from tests.support.rings import Rings
from tests.support.scripted_runner import ScriptedRunner
from tests.support.stage import Stage, keep_leases

ACTIVE, FAILED, QUEUED = DeploymentState.ACTIVE, DeploymentState.FAILED, DeploymentState.QUEUED
VALIDATING, SUPERSEDED = DeploymentState.VALIDATING, DeploymentState.SUPERSEDED
ROLLING_BACK, ROLLED_BACK = DeploymentState.ROLLING_BACK, DeploymentState.ROLLED_BACK
BROKEN = {"code": "component_error", "type": "ValueError", "message": "no", "retryable": True}


@pytest.fixture
async def rings(store_url: str, nats: NatsServer) -> AsyncIterator[Rings]:
    clock = ManualClock()
    engine = Engine(open_store(store_url), nats.url, clock=clock)
    await engine.start()
    keep_leases(engine)
    bus = await Bus.connect(nats.runner_url, name="scripted")
    runner = ScriptedRunner(bus, slots=50)

    async def is_ready() -> bool:
        return engine.is_ready

    await eventually(is_ready, bool)
    await runner.start()
    yield await Rings(Stage(engine, clock, nats, runner)).open()
    await bus.drain_and_close()
    await engine.stop()


async def smoke_run(rings: Rings) -> Assignment:
    (assignment,) = await rings.stage.runner.claim()
    return assignment


async def test_without_smoke_input_a_deployment_is_active_at_once(rings: Rings) -> None:
    await rings.publish("v1")
    first = await rings.active("dev")
    assert (first.version, first.requested_by, first.digest[:7]) == (1, "admin", "sha256:")
    await rings.publish("v2")
    second = await rings.active("dev")
    assert (second.version, second.previous_id) == (2, first.id)
    assert (await rings.get(first)).state is SUPERSEDED


async def test_a_smoke_run_in_the_target_ring_comes_before_the_switch(rings: Rings) -> None:
    await rings.publish("v1")
    old = await rings.active("dev")
    await rings.publish("v2", smoke_input={"word": "x"})
    assert (await rings.active("dev")).id == old.id
    run = await smoke_run(rings)
    assert (run.version, (run.input or {})["input_data"], run.ring_id, run.deployment_id != old.id) == (
        2, {"word": "x"}, rings.ids["dev"], True,
    )  # fmt: skip
    meanwhile = await rings.stage.submit()
    assert meanwhile.version == 1

    await rings.stage.runner.report(run, "fine")
    new = await rings.settled(run.deployment_id)
    assert (new.state, new.smoke_execution_id, new.previous_id) == (ACTIVE, run.execution_id, old.id)
    assert (await rings.stage.submit()).version == 2
    assert (await rings.stage.get(run.execution_id)).lifecycle_event == "test"


async def test_a_failed_smoke_run_leaves_the_old_one_active(rings: Rings) -> None:
    await rings.publish("v1")
    old = await rings.active("dev")
    await rings.publish("v2", smoke_input={})
    run = await smoke_run(rings)
    await rings.stage.runner.report(run, error=BROKEN)
    failed = await rings.settled(run.deployment_id)
    assert failed.state is FAILED
    assert run.execution_id in failed.reason
    assert failed.reason.endswith("'failed': ValueError: no")
    assert (await rings.active("dev")).id == old.id
    assert (await rings.stage.submit()).version == 1


async def test_what_failed_its_validation_is_not_deployed_by_use(rings: Rings) -> None:
    await rings.publish("v1", smoke_input={})
    with pytest.raises(errors.Conflict, match="version 1 is 'validating' there") as refused:
        await rings.stage.submit()
    assert refused.value.error_code == "not_deployed"
    run = await smoke_run(rings)
    await rings.stage.runner.report(run, error=BROKEN)
    await rings.settled(run.deployment_id)
    with pytest.raises(errors.Conflict, match="version 1 failed there: its smoke run"):
        await rings.stage.submit()


async def test_publishing_replaces_what_is_on_its_way_and_cancels_its_smoke_run(rings: Rings) -> None:
    await rings.publish("v1", smoke_input={})
    first = await smoke_run(rings)
    await rings.publish("v2")
    gone = await rings.settled(first.deployment_id)
    assert (gone.state, gone.reason) == (FAILED, "version 2 was published meanwhile")
    assert (await rings.stage.get(first.execution_id)).status is Status.CANCELLING
    second = await smoke_run(rings)
    assert second.version == 2
    with pytest.raises(errors.Conflict) as refused:
        await rings.deploy("dev", version=1)
    assert refused.value.error_code == "deployment_in_progress"
    again, is_new = await rings.deploy("dev", version=2)
    assert (again.id, is_new) == (second.deployment_id, False)


async def test_a_promotion_carries_the_same_digest_and_only_from_an_active_source(rings: Rings) -> None:
    await rings.publish("v1")
    source = await rings.active("dev")
    (made,) = await rings.promote(source)
    assert (made.state, made.ring_id, made.digest) == (ACTIVE, rings.ids["staging"], source.digest)
    assert made.promoted_from_id == source.id
    with pytest.raises(errors.Conflict) as refused:
        await rings.promote(source)
    assert refused.value.error_code == "already_active"
    await rings.publish("v2")
    with pytest.raises(errors.Conflict, match="not the active one") as refused:
        await rings.promote(source)
    assert refused.value.error_code == "not_promotable"
    with pytest.raises(errors.Conflict, match="is not before ring 'dev'"):
        await rings.promote(made, "dev")
    (skipping,) = await rings.promote(await rings.active("dev"), "production")
    assert (skipping.version, skipping.ring_id) == (2, rings.ids["production"])
    with pytest.raises(errors.NotFound, match="no ring comes after"):
        await rings.promote(skipping)


async def test_an_unhealthy_source_is_not_promoted(rings: Rings) -> None:
    await rings.publish("v1")
    await rings.change_ring("dev", rollback=RollbackRule(failure_rate=0.5, minimum_count=4))
    await rings.run(2, 2)
    with pytest.raises(errors.Conflict, match="2 of 4 executions failed") as refused:
        await rings.promote(await rings.active("dev"))
    assert refused.value.error_code == "not_promotable"


async def test_an_approval_is_waited_for_and_kept(rings: Rings) -> None:
    await rings.publish("v1", smoke_input={})
    await rings.stage.runner.report(await smoke_run(rings), None)
    source = await rings.wait_active("dev", 1)
    await rings.change_ring("staging", requires_approval=True)
    (made,) = await rings.promote(source)
    assert made.state is QUEUED
    assert not await rings.stage.runner.claim(0)
    for role in (Role.RUNNER, Role.VIEWER):
        with pytest.raises(errors.Forbidden):
            await rings.approve(made, Principal("eve", rings.stage.org_id, role))
    approved = await rings.approve(made, Principal("grace", rings.stage.org_id, Role.BUILDER))
    assert (approved.state, approved.approved_by, approved.requested_by) == (VALIDATING, "grace", "admin")
    with pytest.raises(errors.IllegalTransition):
        await rings.approve(made)
    run = await smoke_run(rings)
    assert run.ring_id == rings.ids["staging"]
    await rings.stage.runner.report(run, None)
    assert (await rings.settled(made.id)).state is ACTIVE


async def test_nobody_approves_for_ever(rings: Rings) -> None:
    await rings.publish("v1")
    await rings.change_ring("staging", requires_approval=True)
    (made,) = await rings.promote(await rings.active("dev"))
    rings.stage.clock.advance(APPROVAL_WITHIN)
    await rings.look()
    expired = await rings.get(made)
    assert (expired.state, expired.reason) == (FAILED, "it was not approved within 7 days")


async def test_a_ring_that_asks_no_longer_lets_what_waited_go_on(rings: Rings) -> None:
    await rings.publish("v1")
    await rings.change_ring("staging", requires_approval=True)
    (made,) = await rings.promote(await rings.active("dev"))
    await rings.change_ring("staging", requires_approval=False)
    assert (await rings.get(made)).state is ACTIVE


async def test_a_rollback_restores_exactly_the_one_before(rings: Rings) -> None:
    await rings.publish("v1")
    await rings.publish("v2")
    first = (await rings.active("dev")).previous_id
    running = await rings.stage.submit()
    taken = await rings.roll_back(await rings.active("dev"), "slow")
    assert (taken.state, taken.reason) == (ROLLING_BACK, "taken back by admin: slow")
    restored = await rings.active("dev")
    assert (restored.id, restored.version, restored.is_restored) == (first, 1, True)
    assert (await rings.stage.submit()).version == 1
    # What runs stays where it is; the rollback is over when it has ended.
    assignments = await rings.stage.runner.claim()
    mine = next(one for one in assignments if one.execution_id == running.id)
    assert mine.version == 2
    await rings.stage.runner.report(mine, None)
    await rings.stage.wait(running.id)
    await rings.look()
    assert (await rings.get(taken)).state is ROLLED_BACK
    with pytest.raises(errors.Conflict) as refused:
        await rings.roll_back(restored)
    assert refused.value.error_code == "nothing_to_roll_back"


async def test_failures_of_a_new_deployment_take_it_back_by_themselves(rings: Rings) -> None:
    await rings.publish("v1")
    await rings.change_ring("dev", rollback=RollbackRule(failure_rate=0.5, minimum_count=4))
    await rings.run(10, 0)
    await rings.publish("v2")
    bad = await rings.active("dev")
    await rings.run(2, 1)
    assert (await rings.active("dev")).id == bad.id
    await rings.run(0, 1)
    restored = await rings.wait_active("dev", 1)
    assert restored.is_restored
    assert (await rings.get(bad)).reason == "2 of 4 executions failed; the limit is 50%"
    await rings.run(0, 10)  # It did well before, so the cause is elsewhere.
    await rings.look()
    assert (await rings.active("dev")).id == restored.id


async def test_a_share_of_new_executions_and_then_all(rings: Rings) -> None:
    await rings.publish("v1")
    (first,) = await rings.promote(await rings.active("dev"))
    await rings.publish("v2")
    (made,) = await rings.promote(await rings.active("dev"), share=30)
    assert (made.state, made.share) == (VALIDATING, 30)
    versions = [(await rings.stage.submit(ring_id=rings.ids["staging"])).version for _ in range(100)]
    assert 10 < versions.count(2) < 55
    assert (await rings.share(made, 60)).share == 60
    assert (await rings.active("staging")).id == first.id
    done = await rings.share(made, 100)
    assert (done.state, done.share, done.previous_id) == (ACTIVE, 0, first.id)
    with pytest.raises(errors.IllegalTransition):
        await rings.share(done, 50)


async def test_failures_end_a_share_before_it_is_active(rings: Rings) -> None:
    await rings.publish("v1")
    (first,) = await rings.promote(await rings.active("dev"))
    await rings.change_ring("staging", rollback=RollbackRule(failure_rate=0.5, minimum_count=3))
    await rings.publish("v2")
    (made,) = await rings.promote(await rings.active("dev"), share=99)
    await rings.run(0, 8, ring="staging")
    failed = await rings.until(made.id, lambda found: found.state is FAILED)
    assert "executions failed" in failed.reason
    assert (await rings.active("staging")).id == first.id


async def test_a_first_deployment_has_nothing_to_share_with(rings: Rings) -> None:
    await rings.publish("v1")
    with pytest.raises(errors.InvalidInput, match="share 30 is not valid"):
        await rings.promote(await rings.active("dev"), share=30)


async def test_a_set_is_promoted_all_or_none(rings: Rings) -> None:
    for slug in ("one", "two"):
        await rings.publish("v1", slug=slug, smoke_input={})
    for run in await rings.assignments(2):
        await rings.stage.runner.report(run, None)
    sources = [await rings.wait_active("dev", 1, slug) for slug in ("one", "two")]
    made = await rings.promote(*sources)
    assert made[0].set_id == made[1].set_id is not None
    good, bad = await rings.assignments(2)
    await rings.stage.runner.report(good, None)
    await rings.stage.wait(good.execution_id)
    await rings.look()
    assert {(await rings.get(one)).state for one in made} == {VALIDATING}
    await rings.stage.runner.report(bad, error=BROKEN)
    ends = [await rings.settled(one.id) for one in made]
    assert {one.state for one in ends} == {FAILED}
    assert all(bad.execution_id in one.reason for one in ends)

    again = await rings.promote(*sources)
    for run in await rings.assignments(2):
        await rings.stage.runner.report(run, None)
    assert {(await rings.settled(one.id)).state for one in again} == {ACTIVE}
    await rings.publish("v2", slug="two")
    await rings.stage.runner.report(await smoke_run(rings), None)
    newer = await rings.wait_active("dev", 2, "two")
    unchanged, changed = await rings.promote(sources[0], newer)
    assert (unchanged.id, changed.version) == (again[0].id, 2)


async def test_one_that_cannot_go_holds_up_its_set(rings: Rings) -> None:
    for slug in ("one", "two"):
        await rings.publish("v1", slug=slug)
    sources = [await rings.active("dev", slug) for slug in ("one", "two")]
    await rings.publish("v2", slug="two")
    with pytest.raises(errors.Conflict) as refused:
        await rings.promote(*sources)
    assert refused.value.error_code == "not_promotable"
    assert [detail["code"] for detail in refused.value.details] == ["not_promotable"]
    assert await rings.current("staging", "one") == []


async def test_children_and_variables_follow_the_ring(rings: Rings) -> None:
    stage = rings.stage
    where = stage.org_id, stage.workspace_id
    wide = Principal("admin", stage.org_id, Role.ADMIN)
    await stage.engine.variables.replace(wide, stage.org_id, None, {"A": "org", "B": "org", "C": "org"})
    await stage.engine.variables.replace(stage.admin, *where, {"B": "workspace", "C": "workspace"})
    await rings.change_ring("staging", env={"C": "ring"})
    with pytest.raises(errors.Forbidden):
        await stage.engine.variables.replace(stage.admin, stage.org_id, None, {})
    await rings.publish("v1")
    await rings.promote(await rings.active("dev"))
    parent = await stage.submit(ring_id=rings.ids["staging"])
    (assignment,) = await stage.runner.claim()
    assert assignment.env == {"A": "org", "B": "workspace", "C": "ring"}
    child = await stage.submit(principal=stage.inside(assignment))
    assert (child.parent_id, child.ring_id) == (parent.id, rings.ids["staging"])
    called = await stage.submit(caller_deployment_id=parent.deployment_id)
    assert called.ring_id == rings.ids["staging"]


@pytest.mark.parametrize("ends_as", ["completed", "failed"])
async def test_a_validation_outlives_the_engine(rings: Rings, store_url: str, ends_as: str) -> None:
    """The engine dies while the smoke run runs, and once more after it ended but before anybody looked."""
    await rings.publish("v1")
    await rings.publish("v2", smoke_input={})
    run = await smoke_run(rings)
    await rings.crash_watch()
    await rings.stage.runner.report(run, None, **({} if ends_as == "completed" else {"error": BROKEN}))
    await rings.stage.wait(run.execution_id)
    assert (await rings.get_by_id(run.deployment_id)).state is VALIDATING

    second = Engine(open_store(store_url), rings.stage.nats.url, clock=rings.stage.clock)
    await second.start()
    try:
        found = await rings.settled(run.deployment_id)
    finally:
        await second.stop()
    assert found.state is (ACTIVE if ends_as == "completed" else FAILED)
    assert (await rings.active("dev")).version == (2 if ends_as == "completed" else 1)


async def test_those_who_wait_for_a_deployment_are_woken(rings: Rings) -> None:
    await rings.publish("v1", smoke_input={})
    run = await smoke_run(rings)
    waiting = asyncio.ensure_future(rings.wait(run.deployment_id, 30))
    await rings.stage.runner.report(run, None)
    assert (await waiting).state is ACTIVE

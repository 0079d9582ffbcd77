"""Who owns an execution while claims are repeated, lost, withdrawn or too late."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from flow_platform.engine.claims import Claims
from flow_platform.engine.grants import Grant, Grants, HeldClaim, Leasing
from flow_platform.engine.stages import Stages
from flow_platform.engine.sweeper import Sweeper
from flow_platform.engine.wakeups import Waiter, Wakeups
from flow_platform.store.base import Transaction
from flow_sdk.wire.runner import Claim, Claimed
from flow_sdk.wire.status import Kind, Status
from tests.support.eventually import eventually
from tests.support.scripted_runner import ScriptedRunner
from tests.support.stage import Stage


async def _refused(_name: str, _body: bytes) -> None:
    raise AssertionError("no answer of these tests is that large")


class Desk:
    """The claims of an engine with its grants at hand, so that a test can stop between commit and delivery."""

    def __init__(self, stage: Stage) -> None:
        engine = stage.engine
        self.store = engine.store
        self.grants = Grants(stage.clock, Leasing())
        self.claims = Claims(
            engine.store,
            stage.clock,
            Wakeups(),
            Stages(),
            self.grants,
            engine.tokens.for_execution,
            _refused,
            Leasing(),
        )

    async def claim(self, instance: str, *, room: int = 10, hold_seconds: float = 0.0) -> list[str]:
        request = Claim(runner_id="desk", instance=instance, slots=10, room=room, hold_seconds=hold_seconds)
        claimed = Claimed.model_validate_json(await self.claims.claim(request))
        return [assignment.execution_id for assignment in claimed.assignments]

    async def grant_undelivered(self, instance: str) -> list[Grant]:
        """Leases what is queued to a claim that is answered before it can be told."""
        claim = HeldClaim(Claim(runner_id="desk", instance=instance, slots=10, room=10), Waiter())
        self.grants.hold(claim)

        def operation(tx: Transaction) -> list[Grant]:
            return self.grants.grant_waiting(tx)

        granted = await self.store.write(operation)
        self.grants.release(claim)
        return granted


async def test_a_grant_that_missed_its_claim_is_in_the_answer_to_the_next(stage: Stage) -> None:
    desk = Desk(stage)
    execution = await stage.submit()
    desk.claims.deliver(await desk.grant_undelivered("one"))
    assert await desk.claim("another") == []
    assert await desk.claim("one") == [execution.id]
    assert await desk.claim("one") == []


async def test_a_grant_whose_lease_ran_out_is_delivered_to_nobody(stage: Stage) -> None:
    desk = Desk(stage)
    await stage.submit()
    desk.claims.deliver(await desk.grant_undelivered("one"))
    stage.clock.advance(timedelta(seconds=10))
    assert await desk.claim("one") == [], "by now it may be another runner's"


async def test_a_superseded_claim_takes_nothing(stage: Stage) -> None:
    desk = Desk(stage)
    old = asyncio.create_task(desk.claim("one", hold_seconds=10))
    await eventually(lambda: _is_held(desk, "one"), bool)
    execution = await stage.submit()
    newer = HeldClaim(Claim(runner_id="desk", instance="one", slots=10, room=10), Waiter())
    granted = await desk.store.write(desk.grants.grant_waiting)
    desk.grants.hold(newer)
    desk.claims.deliver(granted)
    assert await old == [], "nobody may read that answer any more"
    desk.grants.release(newer)
    assert await desk.claim("one") == [execution.id]


async def test_a_runner_that_came_back_has_no_claim_of_its_earlier_life(stage: Stage) -> None:
    dead = ScriptedRunner(stage.runner.bus, "phoenix")
    await dead.start()
    waiting = asyncio.create_task(dead.claim(hold_seconds=10))
    await eventually(lambda: _is_held(stage.engine, dead.instance), bool)
    risen = ScriptedRunner(stage.runner.bus, "phoenix")
    await risen.register()
    assert await asyncio.wait_for(waiting, 8) == []
    execution = await stage.submit()
    assert [found.execution_id for found in await risen.claim()] == [execution.id]


async def test_children_come_before_further_parents(stage: Stage) -> None:
    alone = ScriptedRunner(stage.runner.bus, "alone", slots=1)
    await alone.start()
    await stage.publish("parent", Kind.WORKFLOW)
    for _ in range(3):
        await stage.submit("parent", kind=Kind.WORKFLOW)
    stage.clock.advance(timedelta(seconds=1))
    [first] = await alone.claim()
    child = await stage.submit(principal=stage.inside(first))
    [below] = await alone.claim()
    assert below.execution_id == child.id, "parents that wait for children would fill the runner, and stay"


async def test_an_event_that_cannot_be_stored_holds_up_no_other(stage: Stage) -> None:
    execution = await stage.submit()
    [assignment] = await stage.runner.claim()
    for sequence in range(1, 4):
        await stage.runner.event(assignment, sequence, "x", event_type="a\0b" if sequence == 2 else "fine")
    await stage.runner.report(assignment, 1)
    assert (await stage.wait(execution.id)).status is Status.COMPLETED
    read = stage.engine.executions.events(stage.admin, stage.org_id, stage.workspace_id, execution.id, 0)
    assert [event.event_type async for event in read if event is not None] == ["fine", "a\ufffdb", "fine"]


async def test_leases_do_not_run_out_while_nobody_can_be_heard(stage: Stage) -> None:
    engine = stage.engine
    for task in engine._tasks:
        if task.get_name() == "sweeper":
            task.cancel()
    hears = False
    sweeper = Sweeper(engine.store, stage.clock, engine._wakeups, engine.executions._notices, engine.executions._ends)
    sweeping = asyncio.create_task(sweeper.run(timedelta(seconds=0.2), lambda: hears))
    leased = await stage.submit()
    await stage.runner.claim()
    stage.clock.advance(timedelta(seconds=30))
    for _ in range(3):  # Sweeps that acted.
        overdue = await stage.submit(timeout_seconds=1)
        stage.clock.advance(timedelta(seconds=1))
        assert (await stage.wait(overdue.id)).status is Status.TIMEOUT
    assert (await stage.get(leased.id)).status is Status.RUNNING
    hears = True
    assert (await eventually(lambda: stage.get(leased.id), lambda it: it.status is Status.QUEUED)).status
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)


async def _is_held(where: object, instance: str) -> bool:
    grants = where.grants if isinstance(where, Desk) else where._claims._grants  # pyright: ignore
    return grants.find(instance) is not None

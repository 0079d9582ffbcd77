"""Limits, rates, priorities, retries and weights, as they hold for executions; edited while these wait."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from flow_platform.domain import errors
from flow_platform.domain.execution import Execution, RetryPolicy
from flow_platform.domain.policy import Policy
from flow_platform.domain.principal import Principal, Role
from flow_platform.domain.rate_limit import RateLimit
from flow_platform.store.base import Payload, Transaction
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Status
from tests.support.eventually import eventually
from tests.support.stage import Stage

SECOND = timedelta(seconds=1)


async def put(stage: Stage, component_id: str | None = None, ring_id: str | None = None, **said: Any) -> None:
    admin = Principal("root", stage.org_id, Role.ADMIN)
    policy = Policy(component_id, ring_id, **said)
    await stage.engine.policies.put(admin, stage.org_id, stage.workspace_id, policy)


async def submit(stage: Stage, count: int, **fields: Any) -> list[str]:
    """One after the other: ids made at one instant come in no order."""
    made = []
    for _ in range(count):
        stage.clock.advance(timedelta(milliseconds=1))
        made.append((await stage.submit(**fields)).id)
    return made


async def claim(stage: Stage, hold_seconds: float = 0.05) -> list[Assignment]:
    return await stage.runner.claim(hold_seconds)


async def finish(stage: Stage, assignment: Assignment) -> None:
    await stage.runner.report(assignment, output=1)
    assert (await stage.wait(assignment.execution_id)).status is Status.COMPLETED


async def insert_copies(stage: Stage, of: Execution, count: int, **changes: Any) -> list[str]:
    """Many more of the same, each a moment later."""
    copies = [
        dataclasses.replace(
            of, id=f"{of.id}-{n:05}", created_at=of.created_at + n * timedelta(microseconds=1), **changes
        )
        for n in range(1, count + 1)
    ]

    def operation(tx: Transaction) -> None:
        for one in copies:
            tx.executions.insert(dataclasses.replace(one, root_id=one.id), Payload({}))

    await stage.engine.store.write(operation)
    return [one.id for one in copies]


async def test_a_concurrency_limit_holds_until_one_ends(stage: Stage) -> None:
    await put(stage, "block", "dev", concurrency=2)
    ids = await submit(stage, 4)

    first = await claim(stage)
    assert [one.execution_id for one in first] == ids[:2]
    assert await claim(stage) == []
    waiting = (await stage.get(ids[2])).waiting_on
    assert waiting is not None
    assert waiting.reason == "concurrency"
    assert "concurrency 2 of code_block 'block'" in waiting.message
    assert waiting.until == (await stage.get(ids[2])).deadline_at

    held = asyncio.create_task(claim(stage, 10))
    await finish(stage, first[0])
    assert [one.execution_id for one in await held] == [ids[2]]


async def test_an_edit_holds_at_once_for_what_waits_already(stage: Stage) -> None:
    await put(stage, concurrency=1)
    ids = await submit(stage, 4)
    assert len(await claim(stage)) == 1

    held = asyncio.create_task(claim(stage, 10))
    await put(stage, "block", concurrency=3)
    await put(stage, concurrency=3)
    started = [one.execution_id for one in await held]
    assert started == ids[1:3]

    admin = Principal("root", stage.org_id, Role.ADMIN)
    held = asyncio.create_task(claim(stage, 10))
    await stage.engine.policies.delete(admin, stage.org_id, stage.workspace_id, Policy())
    await stage.engine.policies.delete(admin, stage.org_id, stage.workspace_id, Policy("block"))
    assert [one.execution_id for one in await held] == ids[3:]
    with pytest.raises(errors.NotFound):
        await stage.engine.policies.delete(admin, stage.org_id, stage.workspace_id, Policy("block"))


async def test_nothing_of_a_stopped_component_starts(stage: Stage) -> None:
    await put(stage, "block", concurrency=0)
    [execution_id] = await submit(stage, 1)
    assert await claim(stage) == []
    waiting = (await stage.get(execution_id)).waiting_on
    assert waiting is not None
    assert waiting.reason == "concurrency"


async def test_keys_are_limited_each_for_itself(stage: Stage) -> None:
    await put(stage, ring_id="dev", concurrency_per_key=1)
    first, second = await submit(stage, 2, concurrency_key="ada")
    [other] = await submit(stage, 1, concurrency_key="bob")
    [none] = await submit(stage, 1)

    started = await claim(stage)
    assert [one.execution_id for one in started] == [first, other, none]
    waiting = (await stage.get(second)).waiting_on
    assert waiting is not None
    assert "concurrency_per_key 1" in waiting.message
    assert "'ada'" in waiting.message

    await finish(stage, started[0])
    assert [one.execution_id for one in await claim(stage)] == [second]


async def test_a_rate_gives_its_burst_and_then_one_at_a_time(stage: Stage) -> None:
    await put(stage, "block", rate=RateLimit(1, 10 * SECOND, burst=2))
    ids = await submit(stage, 4)
    now = stage.clock.now()

    assert [one.execution_id for one in await claim(stage)] == ids[:2]
    waiting = (await stage.get(ids[2])).waiting_on
    assert waiting is not None
    assert (waiting.reason, waiting.until) == ("rate", now + 10 * SECOND)
    stage.clock.advance(10 * SECOND - timedelta(microseconds=1))
    assert await claim(stage) == []
    stage.clock.advance(timedelta(microseconds=1))
    assert [one.execution_id for one in await claim(stage)] == [ids[2]]


async def test_the_most_specific_policy_wins_field_by_field(stage: Stage) -> None:
    await put(stage, ring_id="dev", concurrency=1, priority=5, max_queued=9)
    await put(stage, "block", concurrency=2, priority=7)
    await put(stage, "block", "dev", concurrency=3)

    execution = await stage.submit()
    assert execution.priority == 7
    await submit(stage, 3)
    assert len(await claim(stage)) == 3
    await submit(stage, 8)
    with pytest.raises(errors.RateLimited, match="9 executions waiting") as refused:
        await stage.submit()
    assert refused.value.error_code == "queue_full"


async def test_priority_and_retry_are_of_executions_made_from_now_on(stage: Stage) -> None:
    before = await stage.submit()
    await put(stage, "block", priority=3, retry=RetryPolicy(4))
    after = await stage.submit(priority=2)
    assert (before.priority, before.retry.max_attempts) == (0, 1)
    assert (after.priority, after.retry.max_attempts) == (5, 4)
    assert [one.execution_id for one in await claim(stage)] == [after.id, before.id]


async def test_whoever_waits_for_long_comes_before_more_important_ones(stage: Stage) -> None:
    [old] = await submit(stage, 1)
    stage.clock.advance(timedelta(minutes=2, seconds=1))
    [urgent] = await submit(stage, 1, priority=2)
    [more_urgent] = await submit(stage, 1, priority=3)
    assert [one.execution_id for one in await claim(stage)] == [more_urgent, old, urgent]


async def test_children_come_before_further_parents_however_long_these_wait(stage: Stage) -> None:
    parents = await submit(stage, 6)
    [first, *_] = await claim(stage)
    stage.clock.advance(timedelta(minutes=3))
    child = await stage.submit(principal=stage.inside(first))
    assert [one.execution_id for one in await claim(stage)][:1] == [child.id]
    assert parents[0] == first.execution_id


async def test_a_delayed_start_is_not_ahead_by_its_delay(stage: Stage) -> None:
    at = stage.clock.now() + timedelta(hours=1)
    delayed = await stage.submit(start_at=at)
    stage.clock.advance(timedelta(minutes=58))
    [waits] = await submit(stage, 1, timeout_seconds=3600)
    stage.clock.advance(timedelta(minutes=3))
    assert [one.execution_id for one in await claim(stage)] == [waits, delayed.id]


async def test_what_is_blocked_hides_nothing_behind_it(stage: Stage) -> None:
    await put(stage, "block", concurrency=1, concurrency_per_key=1)
    await stage.publish("other")
    first = await stage.submit(concurrency_key="busy")
    await insert_copies(stage, first, 1000)
    behind = await submit(stage, 2, slug="other")

    started = await claim(stage)
    assert {one.execution_id for one in started} == {first.id, *behind}

    await put(stage, "block", concurrency=3, concurrency_per_key=1)
    [other_key] = await submit(stage, 1, concurrency_key="idle")
    assert [one.execution_id for one in await claim(stage)] == [other_key]


async def test_a_flood_of_one_workspace_delays_another_by_one_turn(stage: Stage) -> None:
    one = await stage.submit()
    flood = {one.id, *await insert_copies(stage, one, 5000)}
    template = dataclasses.replace(one, id="late", workspace_id="another", created_at=one.created_at + SECOND)
    late = await insert_copies(stage, template, 20)

    order: list[str] = []
    while not set(late) <= set(order):
        started = await claim(stage)
        assert started, "there is work for every slot"
        order += [each.execution_id for each in started]
        for each in started:
            await stage.runner.report(each, output=1)
        await _until_all_ended(stage, [each.execution_id for each in started])
    assert [each in flood for each in order].count(True) <= len(late) + stage.runner.slots


async def _until_all_ended(stage: Stage, ids: list[str]) -> None:
    def live(tx: Transaction) -> bool:
        found = [tx.executions.find(each) for each in ids]
        return any(each is not None and not each.status.is_terminal for each in found)

    await eventually(lambda: stage.engine.store.read(live), lambda still: not still)


async def test_weights_share_the_slots(stage: Stage) -> None:
    await put(stage, weight=3)
    one = await stage.submit()
    await insert_copies(stage, one, 40)
    await insert_copies(stage, dataclasses.replace(one, id="other", workspace_id="another"), 40)
    stage.runner.slots = 16
    started = await claim(stage)
    assert [each.workspace_id for each in started].count(stage.workspace_id) == 12


async def test_only_the_organization_sets_the_policy_of_a_workspace(stage: Stage) -> None:
    service, where = stage.engine.policies, (stage.org_id, stage.workspace_id)
    with pytest.raises(errors.Forbidden, match="admin of the organization"):
        await service.put(stage.admin, *where, Policy(weight=1000))
    builder = Principal("b", stage.org_id, Role.BUILDER, stage.workspace_id)
    with pytest.raises(errors.Forbidden):
        await service.put(builder, *where, Policy("block", concurrency=1))
    stored = await service.put(stage.admin, *where, Policy("block", concurrency=1))
    assert stored.policy.component_id != "block", "a slug is resolved"
    assert await service.list(builder, *where) == [stored]


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (Policy(), "says nothing"),
        (Policy("block", weight=2), "weight 2"),
        (Policy(priority=2), "priority 2"),
        (Policy("block", concurrency=-1), "concurrency -1"),
        (Policy("block", priority=101), "priority 101"),
        (Policy("block", max_queued=100_001), "max_queued 100001"),
        (Policy("block", rate=RateLimit(0)), "rate.count"),
    ],
)
async def test_what_makes_no_policy_is_refused(stage: Stage, policy: Policy, field: str) -> None:
    admin = Principal("root", stage.org_id, Role.ADMIN)
    with pytest.raises(errors.InvalidInput, match=field):
        await stage.engine.policies.put(admin, stage.org_id, stage.workspace_id, policy)


@pytest.mark.parametrize("scope", [Policy("unknown", concurrency=1), Policy(None, "unknown", concurrency=1)])
async def test_a_policy_is_for_what_exists(stage: Stage, scope: Policy) -> None:
    with pytest.raises(errors.NotFound):
        await stage.engine.policies.put(stage.admin, stage.org_id, stage.workspace_id, scope)

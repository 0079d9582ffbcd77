"""Events travel on a stream of their own: they may come after the end of their attempt, and after the next began."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

from flow_sdk.wire import subjects
from flow_sdk.wire.status import Status
from tests.support.eventually import eventually
from tests.support.stage import Stage

LOST = {"code": "container_lost", "message": "gone"}


async def read_all(stage: Stage, execution_id: str) -> list[object]:
    events = stage.engine.executions.events(stage.admin, stage.org_id, stage.workspace_id, execution_id, 0)
    return [event.event_data async for event in events if event is not None]


async def test_the_last_words_of_a_lost_attempt_are_kept_though_the_next_has_begun(stage: Stage) -> None:
    execution = await stage.submit()
    [first] = await stage.runner.claim()
    await stage.runner.report(first, error=LOST)
    [second] = await stage.runner.claim()
    await stage.runner.event(first, 1, "why it died")
    await stage.runner.event(second, 1, "again")
    await stage.runner.report(second, 1)
    await stage.wait(execution.id)
    assert await read_all(stage, execution.id) == ["why it died", "again"]


async def test_a_runner_that_lost_its_lease_says_nothing_more(stage: Stage) -> None:
    execution = await stage.submit()
    [first] = await stage.runner.claim()
    stage.clock.advance(timedelta(seconds=11))
    await stage.engine.sweeper.sweep()
    [second] = await stage.runner.claim()
    await stage.runner.event(first, 1, "a ghost")
    await stage.runner.event(second, 1, "again")
    await stage.runner.report(second, 1)
    await stage.wait(execution.id)
    assert await read_all(stage, execution.id) == ["again"]


async def test_a_reader_waits_for_all_events_whatever_else_is_among_them(stage: Stage) -> None:
    execution = await stage.submit()
    [assignment] = await stage.runner.claim()
    await stage.runner.bus.publish(
        f"{subjects.EXEC_STATUS}.{execution.id}",
        json.dumps({"status": "halfway"}).encode(),
        stage.runner._origin(assignment),
    )
    stage.runner._events[execution.id] = 2
    await stage.runner.report(assignment, 1)
    assert (await stage.wait(execution.id)).status is Status.COMPLETED
    reading = asyncio.create_task(read_all(stage, execution.id))
    await stage.runner.event(assignment, 1, "one")
    await eventually(lambda: _count(stage, execution.id), lambda count: count == 2)
    await asyncio.wait([reading], timeout=0.3)
    await stage.runner.event(assignment, 2, "two")
    assert await reading == [{"status": "halfway"}, "one", "two"]


async def _count(stage: Stage, execution_id: str) -> int:
    return len(await stage.engine.store.read(lambda tx: tx.executions.events(execution_id, 0, 10)))

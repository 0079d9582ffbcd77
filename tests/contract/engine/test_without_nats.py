"""NATS may go away at any moment: submits are accepted, and run when it is back. Streams may be deleted."""

from __future__ import annotations

from flow_sdk.wire import subjects
from flow_sdk.wire.status import Status
from tests.support.stage import Stage


async def test_a_submit_without_nats_is_accepted_and_runs_when_it_is_back(stage: Stage) -> None:
    await stage.nats.stop()
    execution = await stage.submit()
    assert (await stage.get(execution.id)).status is Status.QUEUED
    await stage.nats.start()
    [assignment] = await stage.runner.claim()
    await stage.runner.report(assignment, 1)
    assert (await stage.wait(execution.id)).output == 1


async def test_streams_deleted_under_way_lose_nothing_that_is_reported_again(stage: Stage) -> None:
    execution = await stage.submit()
    [assignment] = await stage.runner.claim()
    for stream in (subjects.STREAM_OUTPUT, subjects.STREAM_EVENTS, subjects.STREAM_STATUS):
        await stage.engine._link._connected().api(f"STREAM.DELETE.{stream}", {})
    await stage.runner.event(assignment, 1, "hello")
    await stage.runner.report(assignment, 1)
    assert (await stage.wait(execution.id)).output == 1


async def test_events_are_in_order_once_and_replayable_from_any_position(stage: Stage) -> None:
    execution = await stage.submit()
    [assignment] = await stage.runner.claim()
    for sequence in (1, 2, 2, 3):
        await stage.runner.event(assignment, sequence, f"event {sequence}")
    await stage.runner.report(assignment)
    await stage.wait(execution.id)

    async def read(after: int) -> list[tuple[int, str]]:
        events = stage.engine.executions.events(stage.admin, stage.org_id, stage.workspace_id, execution.id, after)
        return [(event.position, event.event_data) async for event in events if event]

    assert await read(0) == [(1, "event 1"), (2, "event 2"), (3, "event 3")]
    assert await read(2) == [(3, "event 3")]

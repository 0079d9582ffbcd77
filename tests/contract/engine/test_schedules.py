"""Schedules fired by a real engine, under a clock that the test moves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from flow_platform.domain.firing import MAX_FIRINGS, Cause, Firing, FiringStatus
from flow_platform.domain.schedule import Overlap
from flow_platform.engine import claims
from flow_platform.engine.scheduler import SCHEDULES
from flow_platform.engine.schedules import NewSchedule, next_firings
from flow_platform.store.schedule_table import StoredSchedule
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Kind, Status
from tests.support.eventually import eventually
from tests.support.stage import Stage

HOUR = timedelta(hours=1)
BERLIN = ZoneInfo("Europe/Berlin")


async def create(stage: Stage, **fields: Any) -> StoredSchedule:
    new = NewSchedule(**{"component": "block", "cron": "0 * * * *", **fields})
    return await stage.engine.schedules.create(stage.admin, stage.org_id, stage.workspace_id, new)


async def change(stage: Stage, schedule: StoredSchedule, **changes: Any) -> StoredSchedule:
    return await stage.engine.schedules.change(stage.admin, stage.org_id, stage.workspace_id, schedule.id, changes)


async def get(stage: Stage, schedule: StoredSchedule) -> StoredSchedule:
    return await stage.engine.schedules.get(stage.admin, stage.org_id, stage.workspace_id, schedule.id)


async def history(stage: Stage, schedule: StoredSchedule) -> list[Firing]:
    """Oldest first."""
    found: list[Firing] = []
    cursor: str | None = None
    while True:
        page = await stage.engine.schedules.firings(
            stage.admin, stage.org_id, stage.workspace_id, schedule.id, cursor, 200
        )
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found[::-1]


async def look(stage: Stage, by: timedelta = timedelta()) -> None:
    """Moves the clock and fires all that is due then."""
    stage.clock.advance(by)
    while await stage.engine.scheduler.look():
        pass


async def jump(stage: Stage, schedule: StoredSchedule) -> None:
    """Moves the clock to when the schedule is due, and fires it."""
    due_at = (await get(stage, schedule)).due_at
    assert due_at is not None
    await look(stage, due_at - stage.clock.now())


def set_clock(stage: Stage, *instant: int) -> None:
    stage.clock.advance(datetime(*instant, tzinfo=UTC) - stage.clock.now())


def words(firings: Sequence[Firing]) -> list[str]:
    return [f"{firing.status}:{firing.reason}" if firing.reason else firing.status.value for firing in firings]


async def claim_one(stage: Stage) -> Assignment:
    [assignment] = await stage.runner.claim()
    return assignment


async def test_a_run_is_an_execution_like_any_other(stage: Stage) -> None:
    schedule = await create(stage, input_data={"a": 1}, config={"k": 2}, timeout_seconds=7.0)
    await jump(stage, schedule)
    assignment = await claim_one(stage)
    await stage.runner.report(assignment, {"done": True})
    document = await stage.wait(assignment.execution_id)
    [firing] = await history(stage, schedule)
    assert (firing.execution_id, firing.execution_status) == (assignment.execution_id, Status.COMPLETED)
    assert (assignment.input["input_data"], assignment.config, assignment.timeout_seconds) == ({"a": 1}, {"k": 2}, 7)
    assert (document.lifecycle_event, document.parent_execution_id) == ("workflow", None)
    listed = await stage.engine.schedules.list(
        stage.admin, stage.org_id, stage.workspace_id, None, assignment.execution_id, None, 10
    )
    assert [item.id for item in listed.items] == [schedule.id]


async def test_a_month_of_firings(stage: Stage) -> None:
    schedule = await create(stage, cron="0 */6 * * *", overlap=Overlap.CANCEL)
    start, count = stage.clock.now(), 31 * 4
    for _ in range(count):
        await jump(stage, schedule)
    firings = await history(stage, schedule)
    assert [firing.scheduled_at for firing in firings] == [start + n * 6 * HOUR for n in range(1, count + 1)]
    assert {firing.status for firing in firings} == {FiringStatus.STARTED}
    assert len({firing.execution_id for firing in firings}) == count
    # Each waited for a runner until its successor cancelled it, or the sweeper found it beyond its deadline.
    unfinished = [firing for firing in firings if firing.execution_status is Status.QUEUED]
    assert [firing.number for firing in unfinished] in ([], [count])


@pytest.mark.parametrize(
    ("first_day", "shown"),
    [
        # On 29 March 2026 the clocks go from 02:00 to 03:00, on 25 October from 03:00 back to 02:00.
        ((2026, 3, 28), ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]),
        ((2026, 10, 24), ["24 02:30 +0200", "25 02:30 +0200", "26 02:30 +0100"]),
    ],
)
async def test_nights_when_the_clocks_change(stage: Stage, first_day: tuple[int, ...], shown: list[str]) -> None:
    set_clock(stage, *first_day)
    schedule = await create(stage, cron="30 2 * * *", time_zone="Europe/Berlin", overlap=Overlap.CANCEL)
    hourly = await create(stage, time_zone="Europe/Berlin", overlap=Overlap.CANCEL)
    for _ in range(3 * 24 + 2):
        await jump(stage, hourly)
    firings = (await history(stage, schedule))[:3]
    assert [firing.scheduled_at.astimezone(BERLIN).strftime("%d %H:%M %z") for firing in firings] == shown
    instants = [firing.scheduled_at for firing in await history(stage, hourly)]
    assert {later - earlier for earlier, later in itertools.pairwise(instants)} == {HOUR}


async def test_skip_leaves_out_what_would_overlap(stage: Stage) -> None:
    schedule = await create(stage, timeout_seconds=86400.0)
    await jump(stage, schedule)
    assignment = await claim_one(stage)
    await jump(stage, schedule)
    await jump(stage, schedule)
    assert words(await history(stage, schedule)) == ["started", "skipped:overlap", "skipped:overlap"]
    await stage.runner.report(assignment, 1)
    await stage.wait(assignment.execution_id)
    await jump(stage, schedule)
    assert words((await history(stage, schedule))[3:]) == ["started"]


async def test_one_run_waits_and_starts_when_the_one_before_ends(stage: Stage) -> None:
    schedule = await create(stage, overlap=Overlap.QUEUE, timeout_seconds=86400.0)
    await jump(stage, schedule)
    assignment = await claim_one(stage)
    for _ in range(3):
        await jump(stage, schedule)
    assert words(await history(stage, schedule)) == ["started", "waiting", "skipped:overlap", "skipped:overlap"]
    stage.engine._wakeups.notify([SCHEDULES])  # The loop itself looks, and listens for the end.
    await stage.runner.report(assignment, 1)
    second = await claim_one(stage)
    firings = await history(stage, schedule)
    assert words(firings) == ["started", "started", "skipped:overlap", "skipped:overlap"]
    assert firings[1].execution_id == second.execution_id


async def test_cancel_ends_the_earlier_run_and_starts(stage: Stage) -> None:
    schedule = await create(stage, overlap=Overlap.CANCEL, timeout_seconds=86400.0)
    await jump(stage, schedule)
    first = await claim_one(stage)
    await jump(stage, schedule)
    second = await claim_one(stage)
    document = await stage.get(first.execution_id)
    assert document.status is Status.CANCELLING
    assert document.error is not None
    assert f"schedule {schedule.id}" in document.error.message
    assert second.execution_id == (await history(stage, schedule))[1].execution_id

    async def told() -> list[str]:
        return stage.runner.cancelled

    assert await eventually(told, bool) == [first.execution_id]


async def test_a_component_that_is_not_deployed_stops_nobody(stage: Stage) -> None:
    failing = await create(stage, ring="production", overlap=Overlap.CANCEL)
    working = await create(stage, overlap=Overlap.CANCEL)
    for _ in range(2):
        await jump(stage, failing)
    firings = await history(stage, failing)
    assert words(firings) == ["failed", "failed"]
    assert [firing.error.code for firing in firings if firing.error] == ["not_deployed"] * 2
    assert words(await history(stage, working)) == ["started", "started"]
    listed = await stage.engine.schedules.list(stage.admin, stage.org_id, stage.workspace_id, None, None, None, 10)
    last = {item.id: item.last_firing for item in listed.items}[failing.id]
    assert last is not None
    assert last.error is not None
    assert "'production'" in last.error.message
    await change(stage, failing, ring="dev")
    await jump(stage, failing)
    assert words((await history(stage, failing))[2:]) == ["started"]


async def test_a_run_that_cannot_start_cancels_nothing(stage: Stage) -> None:
    schedule = await create(stage, overlap=Overlap.CANCEL, timeout_seconds=86400.0)
    await jump(stage, schedule)
    first = await claim_one(stage)
    await change(stage, schedule, ring="production")
    await jump(stage, schedule)
    assert words(await history(stage, schedule)) == ["started", "failed"]
    assert (await stage.get(first.execution_id)).status is Status.RUNNING


async def test_a_run_that_waited_and_cannot_start_any_more_has_failed(stage: Stage) -> None:
    schedule = await create(stage, overlap=Overlap.QUEUE, timeout_seconds=86400.0)
    await jump(stage, schedule)
    first = await claim_one(stage)
    await jump(stage, schedule)
    await change(stage, schedule, ring="production")
    await stage.runner.report(first, 1)
    await stage.wait(first.execution_id)
    await look(stage)
    assert words(await history(stage, schedule)) == ["started", "failed"]


async def test_a_schedule_that_cannot_be_decided_is_tried_again_later(stage: Stage) -> None:
    broken = await create(stage, overlap=Overlap.CANCEL)
    working = await create(stage, overlap=Overlap.CANCEL)

    def forget_zone(tx: Any) -> None:
        stored = tx.schedules.acquire(broken.id)
        object.__setattr__(stored.plan, "time_zone", "Europe/Atlantis")
        tx.schedules.update(stored)

    await stage.engine.store.write(forget_zone)
    await jump(stage, working)
    [firing] = await history(stage, broken)
    assert firing.error is not None
    assert (firing.status, firing.error.code) == (FiringStatus.FAILED, "invalid_input")
    assert "'Europe/Atlantis'" in firing.error.message
    assert words(await history(stage, working)) == ["started"]
    assert next_firings(await get(stage, broken), stage.clock.now()) == []
    mended = await change(stage, broken, time_zone="UTC")
    assert mended.due_at == stage.clock.now() + HOUR


async def test_a_pause_saves_nothing_up(stage: Stage) -> None:
    schedule = await create(stage, catch_up=timedelta(days=1), overlap=Overlap.CANCEL)
    paused = await change(stage, schedule, is_paused=True)
    assert paused.due_at is None
    await look(stage, 3 * HOUR)
    assert await history(stage, schedule) == []
    resumed = await change(stage, schedule, is_paused=False)
    assert resumed.due_at == stage.clock.now() + HOUR
    await look(stage)
    [left_out] = await history(stage, schedule)
    assert (left_out.status, left_out.reason) == (FiringStatus.SKIPPED, "paused")
    assert (left_out.scheduled_at, left_out.until) == (stage.clock.now() - 2 * HOUR, stage.clock.now())
    await jump(stage, schedule)
    assert words(await history(stage, schedule)) == ["skipped:paused", "started"]


async def test_a_pause_leaves_out_what_waits(stage: Stage) -> None:
    schedule = await create(stage, overlap=Overlap.QUEUE, timeout_seconds=86400.0)
    await jump(stage, schedule)
    await jump(stage, schedule)
    await change(stage, schedule, is_paused=True)
    assert words(await history(stage, schedule)) == ["started", "skipped:paused"]


async def test_new_times_count_from_now_and_what_was_due_before_starts(stage: Stage) -> None:
    schedule = await create(stage, overlap=Overlap.CANCEL)
    stage.clock.advance(HOUR)
    changed = await change(stage, schedule, cron="*/10 * * * *")
    assert words(await history(stage, schedule)) == ["started"]
    assert changed.due_at == stage.clock.now() + timedelta(minutes=10)
    stage.clock.advance(timedelta(minutes=5))
    earlier = await change(stage, schedule, cron="2-59/10 * * * *", catch_up=HOUR)
    assert earlier.due_at == stage.clock.now() + timedelta(minutes=7)
    assert len(await history(stage, schedule)) == 1


async def test_a_trigger_counts_as_a_run(stage: Stage) -> None:
    schedule = await create(stage, timeout_seconds=86400.0)
    firing = await stage.engine.schedules.trigger(stage.admin, stage.org_id, stage.workspace_id, schedule.id, None)
    assert (await claim_one(stage)).execution_id == firing.execution_id
    await jump(stage, schedule)
    assert words(await history(stage, schedule)) == ["started", "skipped:overlap"]


async def test_the_history_is_bounded(stage: Stage) -> None:
    schedule = await create(stage, interval=timedelta(seconds=1), cron=None, timeout_seconds=86400.0)

    def fill(tx: Any) -> None:
        stored = tx.schedules.acquire(schedule.id)
        at = stage.clock.now()
        for number in range(1, MAX_FIRINGS + 1):
            tx.schedules.insert_firing(
                Firing(schedule.id, number, Cause.SCHEDULE, at, at, FiringStatus.SKIPPED, reason="overlap")
            )
        object.__setattr__(stored, "firings", MAX_FIRINGS)
        tx.schedules.update(stored)

    await stage.engine.store.write(fill)
    await jump(stage, schedule)
    for _ in range(3):
        await jump(stage, schedule)
    firings = await history(stage, schedule)
    assert len(firings) == MAX_FIRINGS
    assert firings[-1].number == MAX_FIRINGS + 4


async def test_a_schedule_with_an_end_is_never_due_again(stage: Stage) -> None:
    ends_at = stage.clock.now() + 2 * HOUR
    schedule = await create(stage, ends_at=ends_at)
    await jump(stage, schedule)
    assert (await get(stage, schedule)).due_at is None


async def test_a_workflow_can_be_scheduled(stage: Stage) -> None:
    await stage.publish("flow", Kind.WORKFLOW)
    schedule = await create(stage, component="flow", input_data=[1])
    await jump(stage, schedule)
    assert (await claim_one(stage)).kind is Kind.WORKFLOW


# Delayed starts.


async def test_a_delayed_start_waits_for_its_time(stage: Stage) -> None:
    starts_at = stage.clock.now() + HOUR
    submitted = await stage.submit(start_at=starts_at, timeout_seconds=60.0)
    assert await stage.runner.claim(hold_seconds=0) == []
    waiting = (await stage.get(submitted.id)).waiting_on
    assert waiting is not None
    assert (waiting.reason, waiting.until) == ("start", starts_at)
    stage.clock.advance(HOUR)
    assignment = await claim_one(stage)
    assert (assignment.execution_id, assignment.remaining_seconds, assignment.queued_ms) == (submitted.id, 60, 0)
    await stage.runner.report(assignment, 1)
    document = await stage.wait(submitted.id)
    assert (document.started_at, document.metrics.queue_ms) == (starts_at, 0)


async def test_the_deadline_counts_from_the_delayed_start(stage: Stage) -> None:
    submitted = await stage.submit(start_at=stage.clock.now() + HOUR, timeout_seconds=60.0)
    stage.clock.advance(HOUR + timedelta(seconds=61))
    document = await stage.wait(submitted.id)
    assert document.status is Status.TIMEOUT
    assert document.error is not None
    assert "60 s after it was to start" in document.error.message


async def test_a_delayed_start_can_be_cancelled(stage: Stage) -> None:
    submitted = await stage.submit(start_at=stage.clock.now() + HOUR)
    assert (await stage.cancel(submitted.id)).status is Status.CANCELLED
    stage.clock.advance(HOUR)
    assert await stage.runner.claim(hold_seconds=0) == []


async def test_a_claim_that_is_held_hears_of_a_delayed_start(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LOOK_AGAIN_SECONDS", 3600.0)  # No safety net, and the hold ends after 10 seconds.
    claiming = asyncio.ensure_future(stage.runner.claim(hold_seconds=10))

    async def held() -> bool:
        return stage.engine._claims._grants.find(stage.runner.instance) is not None

    await eventually(held, bool)
    delay = timedelta(milliseconds=20)
    submitted = await stage.submit(start_at=stage.clock.now() + delay)
    stage.clock.advance(delay)
    async with asyncio.timeout(8):
        [assignment] = await claiming
    assert assignment.execution_id == submitted.id

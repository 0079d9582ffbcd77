"""Schedules over an engine that was down, that dies while it fires, and beside a second one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flow_platform.domain.clock import ManualClock, SystemClock
from flow_platform.domain.firing import Firing, FiringStatus
from flow_platform.domain.schedule import Overlap
from flow_platform.engine.schedules import NewSchedule
from flow_platform.store.schedule_table import StoredSchedule
from tests.support import dying_scheduler
from tests.support.eventually import eventually
from tests.support.lone_engine import LoneEngine, lone_engine

HOUR = timedelta(hours=1)
ROOT = Path(__file__).parents[3]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def alone(sqlite_url: str, clock: ManualClock) -> AsyncIterator[LoneEngine]:
    async with lone_engine(sqlite_url, clock) as made:
        await made.publish()
        yield made


async def create(at: LoneEngine, **fields: Any) -> StoredSchedule:
    return await at.engine.schedules.create(
        *at.who, NewSchedule(**{"component": "block", "cron": "0 * * * *", **fields})
    )


async def history(at: LoneEngine, schedule: StoredSchedule) -> list[Firing]:
    return list((await at.engine.schedules.firings(*at.who, schedule.id, None, 200)).items)[::-1]


async def look(at: LoneEngine) -> None:
    while await at.engine.scheduler.look():
        pass


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"catch_up": timedelta(days=1)}, [("skipped", "overlap", 1), ("started", "", 5)]),
        ({"catch_up": timedelta(minutes=10)}, [("skipped", "missed", 1)]),
        ({"catch_up": timedelta(hours=2)}, [("skipped", "missed", 1), ("skipped", "overlap", 4), ("started", "", 5)]),
        (
            {"catch_up": timedelta(days=1), "overlap": Overlap.QUEUE},
            [("started", "", 1), ("waiting", "", 2), ("skipped", "overlap", 3)],
        ),
    ],
)
async def test_what_was_due_while_the_engine_was_down(
    sqlite_url: str, clock: ManualClock, fields: dict[str, Any], expected: list[tuple[str, str, int]]
) -> None:
    async with lone_engine(sqlite_url, clock) as before:
        await before.publish()
        schedule = await create(before, **fields)
        start = clock.now()
    clock.advance(5 * HOUR + timedelta(minutes=30))
    async with lone_engine(sqlite_url, clock) as after:
        # Nobody tells it to look: it does when it starts.
        async def seen() -> list[Firing]:
            return await history(after, schedule)

        firings = await eventually(seen, bool)
    found = [(firing.status.value, firing.reason, (firing.scheduled_at - start) // HOUR) for firing in firings]
    assert found == expected


@pytest.mark.parametrize("moment", ["inside", "behind"])
async def test_dying_while_firing_neither_repeats_nor_loses_a_run(
    sqlite_url: str, clock: ManualClock, moment: str
) -> None:
    async with lone_engine(sqlite_url, clock) as before:
        await before.publish()
        schedule = await create(before)
    clock.advance(HOUR)
    arguments = [sqlite_url, schedule.id, clock.now().isoformat(), moment]
    died = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", dying_scheduler.__name__, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert died.returncode == dying_scheduler.DIED, died.stderr
    async with lone_engine(sqlite_url, clock) as after:
        await look(after)
        [firing] = await history(after, schedule)
        [execution] = await after.executions()
    assert (firing.status, firing.execution_id) == (FiringStatus.STARTED, execution.execution_id)
    assert firing.scheduled_at == clock.now()


async def test_two_engines_start_each_run_once(postgresql_url: str, clock: ManualClock) -> None:
    rounds, many = 5, 12
    async with lone_engine(postgresql_url, clock) as one, lone_engine(postgresql_url, clock) as two:
        await one.publish()
        schedules = [await create(one, overlap=Overlap.CANCEL) for _ in range(many)]
        for _ in range(rounds):
            clock.advance(HOUR)
            await asyncio.gather(look(one), look(two), look(one), look(two))

            async def all_fired() -> bool:
                return not await two.engine.store.read(lambda tx: tx.schedules.due(clock.now(), 1))

            await eventually(all_fired, bool)
        started = Counter[str]()
        for schedule in schedules:
            firings = await history(two, schedule)
            assert [firing.status for firing in firings] == [FiringStatus.STARTED] * rounds
            assert [firing.number for firing in firings] == list(range(1, rounds + 1))
            assert len({firing.scheduled_at for firing in firings}) == rounds
            started.update(firing.execution_id for firing in firings if firing.execution_id)
        executions = {document.execution_id for document in await two.executions()}
    assert set(started.values()) == {1}
    assert executions == set(started)
    assert len(executions) == rounds * many


async def test_the_row_of_a_schedule_is_one_engines_at_a_time(postgresql_url: str, clock: ManualClock) -> None:
    async with lone_engine(postgresql_url, clock) as one, lone_engine(postgresql_url, clock) as two:
        await one.publish()
        schedule = await create(one)

        def held(tx: Any) -> StoredSchedule | None:
            assert tx.schedules.acquire(schedule.id) is not None
            return asyncio.run_coroutine_threadsafe(
                two.engine.store.write(lambda other: other.schedules.acquire(schedule.id)), loop
            ).result(10)

        loop = asyncio.get_running_loop()
        assert await one.engine.store.write(held) is None


async def test_an_edit_wakes_the_loop(alone: LoneEngine, clock: ManualClock) -> None:
    """The loop sleeps, as nothing is due; what makes something due tells it."""
    schedule = await create(alone, overlap=Overlap.CANCEL)
    clock.advance(HOUR)
    await create(alone, overlap=Overlap.CANCEL)

    async def fired() -> list[Firing]:
        return await history(alone, schedule)

    assert [firing.status for firing in await eventually(fired, bool)] == [FiringStatus.STARTED]


async def test_the_loop_sleeps_until_the_next_time_and_wakes_by_itself(sqlite_url: str) -> None:
    async with lone_engine(sqlite_url, SystemClock()) as made:
        await made.publish()
        schedule = await create(made, cron=None, interval=timedelta(seconds=1), overlap=Overlap.CANCEL)

        async def fired() -> list[Firing]:
            return await history(made, schedule)

        firings = await eventually(fired, lambda found: len(found) >= 2)
    assert all(firing.decided_at >= firing.scheduled_at for firing in firings)
    assert firings[0].scheduled_at == schedule.plan.created_at + timedelta(seconds=1)


async def test_two_edits_at_once_lose_nothing(alone: LoneEngine) -> None:
    schedule = await create(alone)
    changes = [{"name": "a"}, {"overlap": Overlap.QUEUE}, {"catch_up": HOUR}, {"config": {"k": 1}}]
    await asyncio.gather(*(alone.engine.schedules.change(*alone.who, schedule.id, change) for change in changes))
    found = await alone.engine.schedules.get(*alone.who, schedule.id)
    assert (found.name, found.plan.overlap, found.plan.catch_up, found.config) == ("a", Overlap.QUEUE, HOUR, {"k": 1})

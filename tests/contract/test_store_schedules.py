"""Schedules in the store: kept whole, found by their index, their firings remembered within bounds."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from flow_platform.domain import errors
from flow_platform.domain.firing import MAX_FIRINGS, Cause, Firing, FiringStatus
from flow_platform.domain.schedule import Overlap, Schedule
from flow_platform.store import schedule_firings, schedules
from flow_platform.store.base import Payload, Store, Transaction
from flow_platform.store.query import Query
from flow_platform.store.schedule_table import StoredSchedule
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.status import Kind
from tests.contract.test_store_plans import fill, postgresql_plan, sqlite_plan, sqlite_plans
from tests.support.store_records import NOW, SECOND, TICK, completed, component, execution, ring, started, unique

WHERE = ("org", "workspace")
HOT: list[tuple[Query, dict[str, Any], str]] = [
    (schedules._DUE, {"now": 1, "limit": 5}, "ix_schedules_due"),
    (schedules._NEXT_DUE, {}, "ix_schedules_due"),
    (schedules._ACQUIRE, {"id": "x"}, "pk_schedules"),
    (schedules._LISTS[()], {"org_id": "o", "workspace_id": "w", "limit": 5}, "ix_schedules_workspace"),
    (schedule_firings._SETTLE, {"schedule_id": "x"}, "ix_schedule_firings_live"),
    (schedule_firings._WAITING, {"schedule_id": "x"}, "ix_schedule_firings_waiting"),
    (schedule_firings._FREED, {"limit": 5}, "ix_schedule_firings_waiting"),
    (schedule_firings._BLOCKERS, {"limit": 5}, "ix_schedule_firings_waiting"),
    (schedule_firings._BY_KEY, {"schedule_id": "x", "key": "k"}, "uq_schedule_firings_key"),
    (schedule_firings._FORGET, {"schedule_id": "x", "number": 5}, "pk_schedule_firings"),
    (schedule_firings._PAGE, {"schedule_id": "x", "limit": 5}, "pk_schedule_firings"),
]


async def insert(store: Store, **changes: Any) -> StoredSchedule:
    of, into = component(), ring(name=unique("ring"))
    plan = {"id": unique("schedule"), "component_id": of.id, "ring_id": into.id, "created_at": NOW, "cron": "@daily"}
    own = {"name": "", "component_slug": of.slug, "created_by": "ada", "updated_at": NOW}
    known = {field.name for field in dataclasses.fields(Schedule)}
    plan |= {name: changes.pop(name) for name in list(changes) if name in known}
    made = StoredSchedule(Schedule(**plan), *WHERE, kind=Kind.CODE_BLOCK, **own | changes)

    def operation(tx: Transaction) -> None:
        tx.catalog.insert_component(of)
        tx.catalog.insert_ring(into)
        tx.schedules.insert(made)

    await store.write(operation)
    return made


def firing(of: StoredSchedule, number: int, **changes: Any) -> Firing:
    values: dict[str, Any] = {"cause": Cause.SCHEDULE, "scheduled_at": NOW, "decided_at": NOW}
    return Firing(of.id, number, **{**values, "status": FiringStatus.SKIPPED, **changes})


async def test_every_field_is_kept(store: Store) -> None:
    made = await insert(
        store,
        name="näme",
        cron=None,
        interval=timedelta(seconds=90),
        time_zone="Europe/Berlin",
        input_data={"a": ["\0", 1.5]},
        overlap=Overlap.CANCEL,
        catch_up=timedelta(microseconds=7),
        is_paused=True,
        starts_at=NOW,
        ends_at=NOW + TICK,
        config={"k": None},
        timeout_seconds=0.5,
        last_fired_at=NOW - TICK,
        due_at=NOW + TICK,
        firings=3,
    )
    assert await store.read(lambda tx: tx.schedules.find(*WHERE, made.id)) == made
    for other in (("org", "other"), ("other", "workspace")):
        assert await store.read(lambda tx, other=other: tx.schedules.find(*other, made.id)) is None
    plain = await insert(store)
    changed = dataclasses.replace(made, plan=dataclasses.replace(plain.plan, id=made.id), name="", timeout_seconds=None)
    changed = dataclasses.replace(
        changed,
        plan=dataclasses.replace(changed.plan, component_id=made.plan.component_id, created_at=NOW),
        last_fired_at=None,
        due_at=None,
    )
    await store.write(lambda tx: tx.schedules.update(changed))
    assert await store.read(lambda tx: tx.schedules.find(*WHERE, made.id)) == changed


async def test_due_at_the_instant_and_not_a_tick_before(store: Store) -> None:
    late = await insert(store, due_at=NOW)
    early = await insert(store, due_at=NOW - SECOND)
    await insert(store, due_at=None)
    found = [await store.read(lambda tx, at=at: tx.schedules.due(at, 10)) for at in (NOW - TICK, NOW)]
    assert found == [[early.id], [early.id, late.id]]
    assert await store.read(lambda tx: tx.schedules.due(NOW, 1)) == [early.id]
    assert await store.read(lambda tx: tx.schedules.next_due_at()) == NOW - SECOND


async def test_what_runs_what_waits_and_what_is_freed(store: Store) -> None:
    schedule = await insert(store)
    queued = execution()
    running = started(queued)

    def fire(tx: Transaction) -> None:
        tx.executions.insert(queued, Payload())
        tx.executions.update(queued, running)
        tx.schedules.insert_firing(firing(schedule, 1, status=FiringStatus.STARTED, execution_id=running.id, key="1"))
        tx.schedules.insert_firing(firing(schedule, 2, status=FiringStatus.WAITING, key="2"))

    await store.write(fire)

    def look(tx: Transaction) -> tuple[Any, ...]:
        waiting = tx.schedules.waiting(schedule.id)
        return (
            tx.schedules.running(schedule.id),
            waiting and waiting.number,
            tx.schedules.blockers(5),
            tx.schedules.freed(5),
        )

    assert await store.write(look) == ([running.id], 2, [running.id], [])
    done = completed(running, at=NOW + SECOND)
    await store.write(lambda tx: tx.executions.update(running, done))
    assert await store.read(lambda tx: (tx.schedules.blockers(5), tx.schedules.freed(5))) == ([], [schedule.id])
    assert await store.write(look) == ([], 2, [], [schedule.id])
    error = ErrorDocument(code="not_deployed", message="no")
    failed = firing(schedule, 2, status=FiringStatus.FAILED, key="2", error=error, decided_at=NOW + SECOND)
    await store.write(lambda tx: tx.schedules.finish_waiting(failed))
    page = await store.read(lambda tx: tx.schedules.list_firings(schedule.id, None, 10))
    assert page.items[0] == failed
    assert (page.items[1].ended_at, page.items[1].execution_status) == (NOW + SECOND, done.status)
    assert await store.read(lambda tx: (tx.schedules.waiting(schedule.id), tx.schedules.freed(5))) == (None, [])


async def test_a_key_is_used_once(store: Store) -> None:
    schedule, other = await insert(store), await insert(store)
    first = firing(schedule, 1, key="k")
    await store.write(lambda tx: tx.schedules.insert_firing(first))
    await store.write(lambda tx: tx.schedules.insert_firing(firing(other, 1, key="k")))
    for number in (2, 3):
        await store.write(lambda tx, number=number: tx.schedules.insert_firing(firing(schedule, number)))
    assert await store.read(lambda tx: tx.schedules.find_firing(schedule.id, "k")) == first
    assert await store.read(lambda tx: tx.schedules.find_firing(schedule.id, "")) is None
    with pytest.raises(errors.Conflict):
        await store.write(lambda tx: tx.schedules.insert_firing(firing(schedule, 4, key="k")))


async def test_old_firings_are_forgotten_but_not_what_goes_on(store: Store) -> None:
    schedule = await insert(store)
    live = execution()

    def fire(tx: Transaction) -> None:
        tx.executions.insert(live, Payload())
        tx.schedules.insert_firing(firing(schedule, 1, status=FiringStatus.STARTED, execution_id=live.id))
        tx.schedules.insert_firing(firing(schedule, 2, status=FiringStatus.WAITING))
        for number in (3, 4, MAX_FIRINGS + 3):
            tx.schedules.insert_firing(firing(schedule, number))

    await store.write(fire)
    page = await store.read(lambda tx: tx.schedules.list_firings(schedule.id, None, 10))
    assert [one.number for one in page.items] == [MAX_FIRINGS + 3, 4, 2, 1]


async def test_deleting_takes_the_firings_and_leaves_the_execution(store: Store) -> None:
    schedule = await insert(store)
    live = execution()

    def fire(tx: Transaction) -> None:
        tx.executions.insert(live, Payload())
        tx.schedules.insert_firing(firing(schedule, 1, status=FiringStatus.STARTED, execution_id=live.id))
        tx.schedules.delete(schedule.id)

    await store.write(fire)
    assert await store.read(lambda tx: tx.schedules.count(*WHERE)) == 0
    assert await store.read(lambda tx: tx.schedules.list_firings(schedule.id, None, 10).items) == []
    assert await store.read(lambda tx: tx.executions.find(live.id)) == live


def test_sqlite_uses_the_indexes(sqlite_url: str) -> None:
    with sqlite_plans(sqlite_url) as connection:
        for query, parameters, index in HOT:
            plan = sqlite_plan(connection, query, parameters)
            steps = "; ".join(step for step in plan.split("; ") if index not in step)  # From its first entry on.
            assert index.replace("pk_", "sqlite_autoindex_") in plan, f"{query.name}: {plan}"
            assert "SCAN" not in steps, f"{query.name} scans: {plan}"


def test_postgresql_uses_the_indexes(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url) as connection:
        fill(connection)
        for query, parameters, index in HOT:
            plan = postgresql_plan(connection, query, parameters)
            assert index in plan, f"{query.name}: {plan}"
            assert "Seq Scan" not in plan, f"{query.name}: {plan}"

"""The contract of `ExecutionTable`: the queue, the leases, the due times. At each boundary, and one tick beside it."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta

import pytest

from flow_platform.domain import execution as domain
from flow_platform.domain.execution import Execution
from flow_platform.store.base import Payload, Store, Transaction
from flow_sdk.wire.status import Status
from tests.support.store_records import (
    ERROR,
    NOW,
    SECOND,
    TICK,
    cancelling,
    child_of,
    completed,
    execution,
    find,
    in_status,
    insert,
    insert_history,
    retried,
    started,
    suspended,
    update,
)


async def acquire(store: Store, at: datetime = NOW, limit: int = 10) -> list[Execution]:
    """Those that are available by then."""

    def operation(tx: Transaction) -> list[Execution]:
        tx.executions.mature(at, 100)
        return tx.executions.acquire(at, limit)

    return await store.write(operation)


def matured(delayed: Execution) -> Execution:
    return dataclasses.replace(delayed, available_at=None)


async def test_acquire_gives_the_highest_priority_first_then_the_oldest(store: Store) -> None:
    late_high = execution(priority=5, created_at=NOW + TICK)
    early_low, late_low = execution(priority=-1), execution(priority=-1, created_at=NOW + TICK)
    normal = [execution(id=f"n-{i}") for i in range(3)]
    await insert(store, late_low, normal[2], early_low, normal[0], late_high, normal[1])

    assert await acquire(store) == [late_high, *normal, early_low, late_low]
    assert await acquire(store, limit=2) == [late_high, normal[0]]


async def test_acquire_gives_only_the_queued(store: Store) -> None:
    def operation(tx: Transaction) -> None:
        for status in Status:
            insert_history(tx, in_status(status))

    await store.write(operation)

    assert [found.status for found in await acquire(store)] == [Status.QUEUED]


async def test_acquire_gives_nothing_before_it_is_available(store: Store) -> None:
    delayed = execution(available_at=NOW)
    await insert(store, delayed)

    assert await acquire(store, NOW - TICK) == []
    assert await acquire(store, NOW) == [matured(delayed)]
    assert await acquire(store, NOW + TICK) == [matured(delayed)]


async def test_acquire_gives_nothing_whose_deadline_has_come(store: Store) -> None:
    plain = execution(deadline_at=NOW)
    delayed = execution(deadline_at=NOW, available_at=NOW - SECOND)
    await insert(store, plain, delayed)

    assert await acquire(store, NOW) == []
    assert {found.id for found in await acquire(store, NOW - TICK)} == {plain.id, delayed.id}


async def test_acquire_orders_the_ready_and_the_retried_as_one_queue(store: Store) -> None:
    ready = [execution(created_at=NOW + i * TICK, id=f"r-{i}") for i in range(0, 6, 2)]
    again = [execution(created_at=NOW + i * TICK, id=f"a-{i}", available_at=NOW - SECOND) for i in range(1, 6, 2)]
    urgent = execution(priority=1, created_at=NOW + SECOND, available_at=NOW)
    later = execution(priority=9, available_at=NOW + TICK)
    await insert(store, *again, later, *ready, urgent)

    again = [matured(one) for one in again]
    expected = [matured(urgent), ready[0], again[0], ready[1], again[1], ready[2], again[2]]
    assert await acquire(store) == expected
    assert await acquire(store, limit=4) == expected[:4]


async def test_what_was_leased_is_not_acquired_again_until_it_is_given_back(store: Store) -> None:
    queued = execution()
    await insert(store, queued)

    def claim(tx: Transaction) -> Execution:
        [found] = tx.executions.acquire(NOW, 5)
        running = started(found)
        tx.executions.update(found, running)
        assert tx.executions.acquire(NOW, 5) == []
        return running

    running = await store.write(claim)
    assert await acquire(store) == []

    again = await update(store, running, retried(running, NOW + SECOND))
    assert await acquire(store) == []
    assert await acquire(store, NOW + SECOND) == [matured(again)]


async def test_next_available_is_the_earliest_later_than_now(store: Store) -> None:
    async def next_available(at: datetime) -> datetime | None:
        return await store.read(lambda tx: tx.executions.next_available_at(at))

    assert await next_available(NOW) is None
    await insert(store, execution(), execution(available_at=NOW + SECOND), execution(available_at=NOW + 2 * SECOND))
    await store.write(lambda tx: insert_history(tx, [e := execution(available_at=NOW + TICK), started(e)]))

    assert await next_available(NOW) == NOW + SECOND
    assert await next_available(NOW + SECOND - TICK) == NOW + SECOND
    assert await next_available(NOW + SECOND) == NOW + 2 * SECOND
    assert await next_available(NOW + 2 * SECOND) is None


async def test_slots_in_use_are_the_leases_without_live_children(store: Store) -> None:
    parent = execution()

    def operation(tx: Transaction) -> None:
        insert_history(tx, [parent, started(parent)])
        insert_history(tx, [e := execution(), started(e)])
        insert_history(tx, [e := execution(), started(e), cancelling(started(e))])
        insert_history(tx, [e := execution(), started(e), completed(started(e))])
        insert_history(tx, [e := execution(), started(e), suspended(started(e))])
        insert_history(tx, [e := execution(), started(e, instance="two")])
        insert_history(tx, [e := execution(), started(e, holder="other")])
        insert_history(tx, [execution()])

    async def slots(runner: str, instance: str) -> int:
        return await store.read(lambda tx: tx.executions.slots_in_use(runner, instance))

    await store.write(operation)
    assert await slots("runner", "one") == 3
    assert await slots("runner", "two") == 1
    assert await slots("unknown", "one") == 0

    child = child_of(parent)
    await insert(store, child)
    await store.write(lambda tx: tx.executions.adopt_child(parent.id))
    assert await slots("runner", "one") == 2, "a waiting parent lends its slot"

    running = await update(store, child, started(child))
    assert await slots("runner", "one") == 3, "to its child"
    await update(store, running, completed(running))
    assert await slots("runner", "one") == 3, "and has it back when the child ended"


async def test_extend_moves_the_expiry_of_leases_that_are_still_the_runners(store: Store) -> None:
    mine, stolen, ended, stale, ending, soon = (execution() for _ in range(6))
    soon = execution(deadline_at=NOW + 15 * SECOND)

    def operation(tx: Transaction) -> None:
        insert_history(tx, [mine, started(mine)])
        insert_history(tx, [stolen, started(stolen, instance="two")])
        insert_history(tx, [ended, started(ended), completed(started(ended))])
        insert_history(tx, [stale, started(stale), retried(started(stale), NOW), started(retried(started(stale), NOW))])
        insert_history(tx, [ending, started(ending), cancelling(started(ending))])
        insert_history(tx, [soon, started(soon)])

    await store.write(operation)
    until = NOW + 20 * SECOND
    leases = [(one.id, 1) for one in (mine, stolen, ended, stale, ending, soon)] + [("unknown", 1)]

    extended = await store.write(lambda tx: tx.executions.extend("runner", "one", leases, until))

    assert extended == {mine.id, ending.id, soon.id}
    assert (await find(store, mine.id)).lease_expires_at == until
    assert (await find(store, soon.id)).lease_expires_at == until
    assert await find(store, ending.id) == cancelling(started(ending)), "a cancel keeps its own expiry"
    assert (await find(store, stale.id)).lease_expires_at == NOW + 10 * SECOND
    due = await store.write(lambda tx: tx.executions.due(until - TICK, 10))
    assert soon.id in {found.id for found in due}, "an extension never moves the deadline"
    assert mine.id not in {found.id for found in due}


async def test_extend_of_nothing_is_nothing(store: Store) -> None:
    assert await store.write(lambda tx: tx.executions.extend("runner", "one", [], NOW)) == set()


async def test_leased_to_gives_what_earlier_instances_hold(store: Store) -> None:
    def operation(tx: Transaction) -> list[Execution]:
        old = [insert_history(tx, [e := execution(created_at=NOW + i * TICK), started(e)]) for i in range(2)]
        insert_history(tx, [e := execution(), started(e, instance="two")])
        insert_history(tx, [e := execution(), started(e, holder="other")])
        insert_history(tx, [e := execution(), started(e), completed(started(e))])
        return old

    old = await store.write(operation)

    assert await store.write(lambda tx: tx.executions.leased_to("runner", "two")) == old
    assert await store.write(lambda tx: tx.executions.leased_to("unknown", "two")) == []


async def test_every_unfinished_execution_is_due_at_its_instant_and_not_a_tick_before(store: Store) -> None:
    def operation(tx: Transaction) -> list[Execution]:
        return [insert_history(tx, in_status(status)) for status in Status]

    inserted = await store.write(operation)
    for one in inserted:
        if one.status.is_terminal:
            assert one.due_at is None
            continue
        at = one.due_at
        assert at is not None
        before = await store.write(lambda tx, at=at: tx.executions.due(at - TICK, 100))
        then = await store.write(lambda tx, at=at: tx.executions.due(at, 100))
        assert one not in before
        assert one in then
    ever = await store.write(lambda tx: tx.executions.due(NOW + timedelta(days=9999), 100))
    assert {one.status for one in ever} == {status for status in Status if not status.is_terminal}


async def test_due_comes_oldest_first_and_bounded(store: Store) -> None:
    late, early = execution(deadline_at=NOW), execution(deadline_at=NOW - SECOND)
    await insert(store, late, early)

    assert await store.write(lambda tx: tx.executions.due(NOW, 10)) == [early, late]
    assert await store.write(lambda tx: tx.executions.due(NOW, 1)) == [early]


@pytest.mark.parametrize("count", [1, 300])
async def test_many_leases_are_extended_in_one_call(store: Store, count: int) -> None:
    executions = [execution() for _ in range(count)]

    def operation(tx: Transaction) -> set[str]:
        for one in executions:
            tx.executions.insert(started(one), Payload())
        return tx.executions.extend("runner", "one", [(one.id, 1) for one in executions], NOW + 30 * SECOND)

    assert await store.write(operation) == {one.id for one in executions}


async def test_a_deadline_ends_a_queued_execution_once(store: Store) -> None:
    queued = execution(deadline_at=NOW)
    await insert(store, queued)

    def sweep(tx: Transaction) -> int:
        found = tx.executions.due(NOW, 10)
        for one in found:
            tx.executions.update(one, domain.apply(one, domain.DeadlineReached(NOW, ERROR)))
        return len(found)

    assert [await store.write(sweep) for _ in range(2)] == [1, 0]
    assert (await find(store, queued.id)).status is Status.TIMEOUT

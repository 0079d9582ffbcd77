"""The contract of `Store`: transactions, and what a failing one does to its neighbours."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading

import pytest

from flow_platform.domain import errors
from flow_platform.store import open_store
from flow_platform.store.base import Payload, Store, Transaction
from tests.support.store_records import NOW, completed, execution, find, insert, started


async def test_write_returns_the_value_and_read_sees_what_was_written(store: Store) -> None:
    one = execution()

    def operation(tx: Transaction) -> str:
        tx.executions.insert(one, Payload())
        found = tx.executions.find(one.id)
        assert found == one, "an operation sees its own writes"
        return "value"

    assert await store.write(operation) == "value"
    assert await store.read(lambda tx: tx.executions.find(one.id)) == one


async def test_an_operation_that_raises_changes_nothing_and_disturbs_no_neighbour(store: Store) -> None:
    class Mistake(Exception):
        pass

    good = [execution() for _ in range(20)]

    def write(number: int, tx: Transaction) -> int:
        tx.executions.insert(good[number], Payload({"number": number}))
        match number % 5:
            case 1:
                raise errors.Forbidden("no")
            case 2:
                raise Mistake
            case 3:
                tx.executions.insert(good[number], Payload())  # A conflict, found by the database.
        return number

    outcomes = await asyncio.gather(
        *(store.write(lambda tx, number=number: write(number, tx)) for number in range(20)), return_exceptions=True
    )

    for number, outcome in enumerate(outcomes):
        found = await store.read(lambda tx, number=number: tx.executions.find(good[number].id))
        expected = {1: errors.Forbidden, 2: Mistake, 3: errors.Conflict}.get(number % 5)
        if expected is None:
            assert (outcome, found) == (number, good[number])
        else:
            assert type(outcome) is expected or isinstance(outcome, expected)
            assert found is None


async def test_each_caller_gets_the_very_exception_that_its_operation_raised(store: Store) -> None:
    raised = [KeyError("a"), errors.NotFound("b"), ValueError("c")]

    def fail(exc: Exception, _: Transaction) -> None:
        raise exc

    for exc in raised:
        with pytest.raises(type(exc)) as info:
            await store.write(lambda tx, exc=exc: fail(exc, tx))
        assert info.value is exc
        with pytest.raises(type(exc)) as info:
            await store.read(lambda tx, exc=exc: fail(exc, tx))
        assert info.value is exc


async def test_an_operation_that_raises_stop_iteration_does_not_hang_its_caller(store: Store) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await store.write(lambda tx: next(iter([])))


async def test_a_swallowed_database_error_is_an_error_all_the_same(store: Store) -> None:
    one = execution()
    await insert(store, one)

    def operation(tx: Transaction) -> None:
        other = execution(id="half")
        tx.executions.insert(other, Payload())
        with contextlib.suppress(errors.Conflict):
            tx.executions.insert(one, Payload())

    neighbour = execution()
    outcomes = await asyncio.gather(store.write(operation), insert(store, neighbour), return_exceptions=True)

    assert isinstance(outcomes[0], errors.Conflict)
    assert await store.read(lambda tx: tx.executions.find("half")) is None
    assert await find(store, neighbour.id) == neighbour


async def test_operations_run_one_after_the_other_in_the_order_they_came(store: Store) -> None:
    running = threading.Lock()
    order: list[int] = []

    def operation(number: int) -> None:
        assert running.acquire(blocking=False)
        order.append(number)
        running.release()

    await asyncio.gather(*(store.write(lambda tx, number=number: operation(number)) for number in range(100)))

    assert order == list(range(100))


async def test_a_thousand_waiting_writes_all_arrive(store: Store) -> None:
    executions = [execution() for _ in range(1000)]

    await asyncio.gather(*(insert(store, one) for one in executions))

    assert (await store.read(lambda tx: tx.executions.counts()))["queued"] == 1000


async def test_a_read_is_one_snapshot_while_others_write(store: Store) -> None:
    one = execution()
    await insert(store, one)
    first_look, written = threading.Event(), threading.Event()

    def look_twice(tx: Transaction) -> tuple[object, object]:
        first = tx.executions.find(one.id)
        first_look.set()
        assert written.wait(60)
        return first, tx.executions.find(one.id)

    reading = asyncio.ensure_future(store.read(look_twice))
    assert await asyncio.to_thread(first_look.wait, 60)
    await store.write(lambda tx: tx.executions.update(one, started(one)))
    written.set()

    assert await reading == (one, one)
    assert await find(store, one.id) == started(one)


async def test_a_cancelled_caller_leaves_a_whole_write(store: Store) -> None:
    one = execution()
    begun, go_on = threading.Event(), threading.Event()

    def operation(tx: Transaction) -> None:
        begun.set()
        assert go_on.wait(60)
        tx.executions.insert(one, Payload({"a": 1}))

    writing = asyncio.ensure_future(store.write(operation))
    assert await asyncio.to_thread(begun.wait, 60)
    writing.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await insert(store, execution())

    assert await find(store, one.id) == one
    assert (await store.read(lambda tx: tx.executions.payload(one.id))).input_data == {"a": 1}


async def test_close_waits_for_what_was_accepted_and_then_refuses(store_url: str) -> None:
    store = open_store(store_url)
    with pytest.raises(errors.StoreUnavailable, match="not open"):
        await store.write(lambda tx: None)
    await store.open()
    executions = [execution() for _ in range(50)]
    writes = [asyncio.ensure_future(insert(store, one)) for one in executions]
    await asyncio.sleep(0)  # Lets each of them be accepted.

    await store.close()

    await asyncio.gather(*writes)
    with pytest.raises(errors.StoreUnavailable, match="closed"):
        await store.write(lambda tx: None)
    with pytest.raises(errors.StoreUnavailable, match="closed"):
        await store.read(lambda tx: None)
    await store.close()

    again = open_store(store_url)
    await again.open()
    assert (await again.read(lambda tx: tx.executions.counts()))["queued"] == 50
    await again.close()


async def test_a_store_serves_several_event_loops(store: Store) -> None:
    one = execution()

    def elsewhere() -> None:
        asyncio.run(insert(store, one))

    await asyncio.gather(asyncio.to_thread(elsewhere), *(insert(store, execution()) for _ in range(20)))

    assert await find(store, one.id) == one


async def test_one_life_cycle_of_many_in_parallel_ends_each_exactly_once(store: Store) -> None:
    executions = [execution() for _ in range(60)]
    await insert(store, *executions)
    seen: list[str] = []

    def claim(tx: Transaction) -> list[str]:
        found = tx.executions.acquire(NOW, 3)
        for one in found:
            tx.executions.update(one, started(one))
        return [one.id for one in found]

    def end(execution_id: str, tx: Transaction) -> None:
        one = tx.executions.find(execution_id, for_update=True)
        assert one is not None
        tx.executions.update(one, completed(one))

    async def worker() -> None:
        while claimed := await store.write(claim):
            seen.extend(claimed)
            await asyncio.gather(*(store.write(lambda tx, i=i: end(i, tx)) for i in claimed))

    await asyncio.gather(*(worker() for _ in range(8)))

    assert sorted(seen) == sorted(one.id for one in executions)
    assert not any((await store.read(lambda tx: tx.executions.counts())).values())


def test_a_url_that_is_not_ours_is_refused_without_its_password() -> None:
    for url in ("mysql://u:secret@h/d", "sqlite://", "sqlite:///", "flow.db", ""):
        with pytest.raises(errors.SettingsError) as refused:
            open_store(url)
        assert "sqlite:///path" in refused.value.message
        assert "secret" not in refused.value.message


async def test_an_operation_may_run_again_but_counts_once(store: Store) -> None:
    runs = itertools.count(1)
    one = execution()

    def operation(tx: Transaction) -> int:
        run = next(runs)
        tx.executions.insert(one, Payload())
        if run == 1:
            tx.executions.update(execution(id=one.id, lease_epoch=9), started(one))  # Not as assumed: a conflict.
        return run

    assert await store.write(operation) == 2
    assert await find(store, one.id) == one

"""Several processes on one PostgreSQL, and connections that break at the worst moment."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from flow_platform.domain import errors
from flow_platform.store import open_store, postgresql
from flow_platform.store.base import ExecutionFilter, IdempotencyRecord, NewEvent, Payload, Store, Transaction
from flow_platform.store.query import Query
from flow_sdk.wire.status import Status
from tests.support.cutting_proxy import Cut, CuttingProxy
from tests.support.postgresql_server import PostgresqlServer
from tests.support.store_records import NOW, SECOND, completed, execution, find, insert, started, update


@pytest.fixture
async def stores(postgresql_url: str) -> AsyncIterator[tuple[Store, Store]]:
    """Two processes' stores on one database."""
    one, two = open_store(postgresql_url), open_store(postgresql_url)
    await one.open()
    await two.open()
    yield one, two
    await one.close()
    await two.close()


@pytest.fixture
def proxy(postgresql_server: PostgresqlServer) -> Iterator[CuttingProxy]:
    with CuttingProxy(postgresql_server.port) as serving:
        yield serving


@pytest.fixture
async def proxied(
    postgresql_url: str, postgresql_server: PostgresqlServer, proxy: CuttingProxy
) -> AsyncIterator[Store]:
    url = postgresql_url.replace(f":{postgresql_server.port}/", f":{proxy.port}/")
    store = open_store(f"{url}?sslmode=disable&gssencmode=disable")
    await store.open()
    yield store
    await store.close()


async def test_two_processes_never_acquire_the_same_execution(stores: tuple[Store, Store]) -> None:
    executions = [execution(created_at=NOW + i * SECOND, available_at=NOW if i % 3 else None) for i in range(300)]
    await insert(stores[0], *executions)
    claimed: list[list[str]] = [[], []]

    def claim(tx: Transaction) -> list[str]:
        tx.executions.mature(NOW, 3)
        found = tx.executions.acquire(NOW, 3)
        for one in found:
            tx.executions.update(one, started(one))
        return [one.id for one in found]

    async def worker(number: int) -> None:
        empty = 0
        while empty < 3:  # The other process may hold the last ones for a moment.
            got = await stores[number].write(claim)
            claimed[number].extend(got)
            empty = 0 if got else empty + 1

    for number in range(2):  # Else one process may be through before the other has begun.
        claimed[number].extend(await stores[number].write(claim))
    await asyncio.gather(*(worker(number % 2) for number in range(8)))

    assert len(claimed[0]) + len(claimed[1]) == 300
    assert set(claimed[0]) | set(claimed[1]) == {one.id for one in executions}


async def test_what_another_process_has_locked_is_passed_over(stores: tuple[Store, Store]) -> None:
    executions = [execution(created_at=NOW + i * SECOND, deadline_at=NOW + 60 * SECOND) for i in range(4)]
    await insert(stores[0], *executions)
    locked, go_on = threading.Event(), threading.Event()

    def hold(tx: Transaction) -> list[str]:
        found = tx.executions.acquire(NOW, 2)
        locked.set()
        assert go_on.wait(60)
        return [one.id for one in found]

    holding = asyncio.ensure_future(stores[0].write(hold))
    assert await asyncio.to_thread(locked.wait, 60)
    acquired = await stores[1].write(lambda tx: tx.executions.acquire(NOW, 10))
    due = await stores[1].write(lambda tx: tx.executions.due(NOW + 60 * SECOND, 10))
    go_on.set()

    assert await holding == [one.id for one in executions[:2]]
    assert acquired == executions[2:]
    assert due == executions[2:]


async def test_one_key_in_two_processes_is_one_execution(stores: tuple[Store, Store]) -> None:
    def submit(key: str, tx: Transaction) -> str:
        if known := tx.executions.find_idempotent("org", "workspace", key):
            return known.execution_id
        one = execution()
        tx.executions.insert(one, Payload())
        tx.executions.save_idempotent("org", "workspace", IdempotencyRecord(key, "f", one.id), NOW)
        return one.id

    async def submit_all(store: Store) -> list[str]:
        return await asyncio.gather(*(store.write(lambda tx, k=f"k{n}": submit(k, tx)) for n in range(60)))

    first, second = await asyncio.gather(*(submit_all(store) for store in stores))

    assert first == second
    counts = await stores[0].read(lambda tx: tx.executions.counts())
    assert counts[Status.QUEUED] == 60


async def test_events_of_one_execution_from_two_processes_have_no_gap(stores: tuple[Store, Store]) -> None:
    one = execution()
    await insert(stores[0], one)

    async def append(store: Store, name: str) -> None:
        for n in range(30):
            event = NewEvent(one.id, 1, "log", n, NOW, f"{name}-{n}")
            shared = NewEvent(one.id, 1, "log", n, NOW, f"both-{n}")
            await store.write(lambda tx, events=[event, shared]: tx.executions.append_events(events))

    await asyncio.gather(append(stores[0], "one"), append(stores[1], "two"))

    stored = await stores[0].read(lambda tx: tx.executions.events(one.id, 0, 1000))
    assert [event.position for event in stored] == list(range(1, 91))


async def test_a_cancel_and_a_result_at_the_same_time_leave_one_end(stores: tuple[Store, Store]) -> None:
    executions = [execution() for _ in range(40)]
    await insert(stores[0], *executions)
    for one in executions:
        await update(stores[0], one, started(one))

    def end(execution_id: str, tx: Transaction) -> bool:
        one = tx.executions.find(execution_id)  # Without a lock: the update finds out.
        assert one is not None
        if one.status.is_terminal:
            return False
        tx.executions.update(one, completed(one))
        return True

    async def end_all(store: Store) -> list[bool]:
        return await asyncio.gather(*(store.write(lambda tx, i=one.id: end(i, tx)) for one in executions))

    first, second = await asyncio.gather(*(end_all(store) for store in stores))

    assert [a + b for a, b in zip(first, second, strict=True)] == [1] * 40


async def test_a_deadlock_between_two_processes_ends_with_both_done(stores: tuple[Store, Store]) -> None:
    one, two = execution(), execution()
    await insert(stores[0], one, two)
    both_hold = threading.Barrier(2)
    first_runs = [True, True]

    def lock_both(number: int, order: tuple[str, str], tx: Transaction) -> str:
        tx.executions.adopt_child(order[0])
        if first_runs[number]:
            first_runs[number] = False
            both_hold.wait(60)
        tx.executions.adopt_child(order[1])
        return "done"

    outcomes = await asyncio.gather(
        stores[0].write(lambda tx: lock_both(0, (one.id, two.id), tx)),
        stores[1].write(lambda tx: lock_both(1, (two.id, one.id), tx)),
        *(insert(store, execution()) for store in stores),
    )

    assert outcomes[:2] == ["done", "done"]
    assert (await find(stores[0], one.id)).live_children == 2
    assert (await find(stores[0], two.id)).live_children == 2


async def test_broken_idle_connections_are_replaced_unnoticed(postgresql_url: str) -> None:
    store = open_store(postgresql_url)
    await store.open()
    one, late = execution(), execution()
    await insert(store, one)
    await asyncio.gather(*(find(store, one.id) for _ in range(20)))
    with psycopg.connect(postgresql_url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    await asyncio.gather(insert(store, late), *(find(store, one.id) for _ in range(20)))

    assert await find(store, late.id) == late
    await store.close()


async def test_a_connection_that_breaks_within_an_operation_runs_it_again(postgresql_url: str) -> None:
    store = open_store(postgresql_url)
    await store.open()
    runs = itertools.count(1)
    one = execution()
    get_pid = Query("pid", sa.select(sa.func.pg_backend_pid()))

    def operation(tx: Transaction) -> int:
        run = next(runs)
        tx.executions.insert(one, Payload())
        if run == 1:
            [(pid,)] = tx.executions._connection.rows(get_pid, {})
            with psycopg.connect(postgresql_url) as connection:
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        tx.executions.adopt_child(one.id)
        return run

    neighbour = execution()
    outcomes = await asyncio.gather(store.write(operation), insert(store, neighbour))

    assert outcomes[0] == 2
    assert (await find(store, one.id)).live_children == 1
    assert await find(store, neighbour.id) == neighbour
    await store.close()


async def test_a_database_that_does_not_answer_is_unavailable_and_recovers(proxied: Store, proxy: CuttingProxy) -> None:
    kept = execution()
    await insert(proxied, kept)
    await find(proxied, kept.id)
    proxy.refuse_after_cut = True
    proxy.cut_once(b"BEGIN", Cut.BEFORE)

    for _ in range(2):
        outcomes = await asyncio.gather(*(insert(proxied, execution()) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(outcome, errors.StoreUnavailable) for outcome in outcomes)
    proxy.is_refusing = False

    late = execution()
    await insert(proxied, late)
    page = await proxied.read(lambda tx: tx.executions.list("org", "workspace", ExecutionFilter(), None, 10))
    assert {one.id for one in page.items} == {kept.id, late.id}


@pytest.mark.parametrize("when", [Cut.BEFORE, Cut.AFTER])
async def test_a_commit_whose_answer_is_lost_counts_exactly_once(
    proxied: Store, proxy: CuttingProxy, when: Cut
) -> None:
    parent = execution()
    await insert(proxied, parent)
    proxy.cut_once(b"COMMIT", when)

    outcomes = await asyncio.gather(
        *(proxied.write(lambda tx: tx.executions.adopt_child(parent.id)) for _ in range(3)), return_exceptions=True
    )

    assert outcomes == [None, None, None]
    assert proxy.cuts == 1
    assert (await find(proxied, parent.id)).live_children == 3


async def test_a_commit_of_which_nobody_can_say_what_became_is_told_as_such(
    proxied: Store, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "RESOLVE_SECONDS", 0.2)
    one = execution()
    proxy.refuse_after_cut = True
    proxy.cut_once(b"COMMIT", Cut.AFTER)

    with pytest.raises(errors.StoreUnavailable, match="unknown") as refused:
        await insert(proxied, one)

    assert refused.value.error_code == "commit_unknown"
    proxy.is_refusing = False
    assert await find(proxied, one.id) == one, "here it was written; the caller could not know"


async def test_a_server_that_acknowledges_before_it_syncs_is_told_otherwise(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{connection.info.dbname}" SET synchronous_commit = off')
    store = open_store(postgresql_url)
    await store.open()
    setting = Query("setting", sa.select(sa.func.current_setting("synchronous_commit")))

    assert await store.write(lambda tx: tx.executions._connection.rows(setting, {})) == [("on",)]
    await store.close()


async def test_a_full_disk_refuses_loses_nothing_and_recovers_by_itself(
    postgresql_server: PostgresqlServer, tmp_path: Path
) -> None:
    folder = postgresql_server.folder / "small"
    if os.geteuid() != 0 or not mount(folder, "size=24m"):
        pytest.skip("mounting a small file system needs root")
    owner = postgresql_server.folder.stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    try:
        with psycopg.connect(postgresql_server.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
            connection.execute("CREATE DATABASE flow_small TEMPLATE flow_template TABLESPACE small")
        store = open_store(postgresql_server.url("flow_small"))
        await store.open()
        noise = random.Random(1)  # noqa: S311 - what does not compress.
        accepted: list[str] = []

        async def fill() -> None:
            while len(accepted) < 500:
                one = execution()
                await insert(store, one, payload=Payload(noise.randbytes(60_000).hex()))
                accepted.append(one.id)

        with pytest.raises(errors.StorageFull) as refused:
            await fill()
        assert refused.value.http_status == 507
        assert accepted

        mount(folder, "remount,size=128m")
        late = execution()
        await insert(store, late, payload=Payload(noise.randbytes(60_000).hex()))
        page = await store.read(lambda tx: tx.executions.list("org", "workspace", ExecutionFilter(), None, 1000))
        assert {one.id for one in page.items} == {*accepted, late.id}
        await store.close()
        with psycopg.connect(postgresql_server.url("postgres"), autocommit=True) as connection:
            connection.execute("DROP DATABASE flow_small WITH (FORCE)")
            connection.execute("DROP TABLESPACE small")
    finally:
        unmount(folder)


def mount(folder: Path, options: str) -> bool:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "flow-test", folder], capture_output=True, check=False
    )
    return done.returncode == 0


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", folder], check=True)  # Its last user may still be ending.

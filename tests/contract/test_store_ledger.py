"""The ledger and budgets over both databases."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from flow_platform.domain.budget import Budget
from flow_platform.domain.execution import Execution
from flow_platform.domain.ledger import Entry
from flow_platform.store import open_store
from flow_platform.store.base import Store, Transaction, Workspace
from flow_platform.store.ledger_table import By, Cost
from tests.support.eventually import eventually
from tests.support.store_records import child_of, execution, insert, started

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def entry(of: Execution | str, micro_credits: int = 5, **changes: Any) -> Entry:
    if isinstance(of, str):
        of = execution(id=of)
    values: dict[str, Any] = {
        "tree_id": of.root_id,
        "node_id": of.id,
        "source": "attempt:1",
        "org_id": of.org_id,
        "workspace_id": of.workspace_id,
        "at": NOON,
        "lifecycle_event": "workflow",
        "rate_version": "test-1",
        "discount_percent": 0,
        "micro_credits": micro_credits,
        "component_id": of.component_id,
        "cpu_us": 7,
        "memory_kib_ms": 11,
        **changes,
    }
    return Entry(**values)


async def append(store: Store, *entries: Entry) -> list[bool]:
    return await store.write(lambda tx: [tx.ledger.append(one) for one in entries])


async def tenancy(store: Store) -> None:
    def operation(tx: Transaction) -> None:
        tx.tenancy.insert_organization("org", "org", NOON)
        tx.tenancy.insert_workspace(Workspace("org", "workspace", "First"), NOON)
        tx.tenancy.insert_workspace(Workspace("org", "second", "Second"), NOON)

    await store.write(operation)


async def test_an_entry_is_written_once_whatever_comes_later(store: Store) -> None:
    first = entry("one", 5, model="test/echo", prompt_tokens=3, completion_tokens=4, parent_transaction_id="outside")

    assert await append(store, first, dataclasses.replace(first, micro_credits=9)) == [True, False]
    assert await append(store, dataclasses.replace(first, micro_credits=9)) == [False]

    assert await store.read(lambda tx: tx.ledger.entries("one", "one", 10)) == [first]


@pytest.mark.parametrize("statement", ["UPDATE ledger_entries SET micro_credits = 0", "DELETE FROM ledger_entries"])
async def test_the_database_refuses_changes(statement: str, sqlite_url: str, postgresql_url: str) -> None:
    for url in (sqlite_url, postgresql_url):
        store = open_store(url)
        await store.open()
        await append(store, entry("one"))
        await store.close()
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as raw, pytest.raises(sqlite3.IntegrityError):
        raw.execute(statement)
    raw.close()
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        for refused in (statement, "TRUNCATE ledger_entries"):
            with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
                connection.execute(refused)
        assert connection.execute("SELECT sum(micro_credits) FROM ledger_entries").fetchone() == (5,)


async def test_costs_of_a_tree_and_of_its_parts(store: Store) -> None:
    top = started(execution())
    middle, other = started(child_of(top)), started(child_of(top))
    leaf = started(child_of(middle))
    stranger = started(execution())
    await insert(store, top, middle, other, leaf, stranger)
    await append(
        store,
        entry(top, 1),
        entry(middle, 10),
        entry(middle, 20, source="attempt:2"),
        entry(leaf, 300),
        entry(stranger, 4000),
    )

    def costs(tx: Transaction) -> dict[str, Cost]:
        return {one.id: tx.ledger.cost(one) for one in (top, middle, other, leaf)}

    assert await store.read(costs) == {
        top.id: Cost(1, 331),
        middle.id: Cost(30, 330),
        other.id: Cost(0, 0),
        leaf.id: Cost(300, 300),
    }
    every = [top, middle, other, leaf]
    own = {top.id: 1, middle.id: 30, leaf.id: 300}
    assert await store.read(lambda tx: tx.ledger.own_costs(every)) == own
    assert await store.read(lambda tx: tx.ledger.own_costs_of_tree(top.id)) == own
    totals = {top.id: 331, middle.id: 330, other.id: 0, leaf.id: 300}
    assert await store.read(lambda tx: tx.ledger.costs_with_all_below(top.id)) == totals


async def test_a_tree_is_walked_from_above(store: Store) -> None:
    top = execution()
    upper = [child_of(top) for _ in range(3)]
    lower = [child_of(one) for one in upper]
    await insert(store, top, *upper, *lower)

    def below(limit: int) -> Any:
        return store.read(lambda tx: [one.id for one in tx.ledger.below(top.id, limit)])

    assert await below(100) == [one.id for one in (top, *upper, *lower)]
    assert await below(1) == [top.id]
    assert await below(3) == [one.id for one in (top, *upper[:2])]
    assert await below(4) == [one.id for one in (top, *upper)]
    assert await store.read(lambda tx: tx.ledger.below("nobody", 5)) == []


async def test_a_transaction_from_outside_collects_what_names_it(store: Store) -> None:
    named = [started(execution(parent_billing_transaction_id="outside")) for _ in range(2)]
    below = started(child_of(named[0], parent_billing_transaction_id=named[0].id))
    elsewhere = started(execution(parent_billing_transaction_id="outside", workspace_id="second"))
    foreign = started(execution(parent_billing_transaction_id="outside", org_id="other", workspace_id="third"))
    await insert(store, *named, below, elsewhere, foreign)
    call = entry("call", 50_000, parent_transaction_id="outside")
    await append(
        store,
        entry(named[0], 1),
        entry(below, 20),
        entry(named[1], 300),
        entry(elsewhere, 4000),
        entry(foreign, 9),
        call,
    )

    inside = await store.read(lambda tx: tx.ledger.named("org", "workspace", "outside", 10))
    everywhere = await store.read(lambda tx: tx.ledger.named("org", None, "outside", 10))
    few = await store.read(lambda tx: tx.ledger.named("org", None, "outside", 1))

    assert [one.id for one in inside.executions] == [one.id for one in named]
    assert (list(inside.calls), inside.total) == ([call], 50_321)
    assert [one.id for one in everywhere.executions] == [one.id for one in (*named, elsewhere)]
    assert (everywhere.total, few.total, len(few.executions)) == (54_321, 54_321, 1)


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        ("component", [("b", 30), ("component", 5), ("", 2)]),
        ("workspace", [("second", 30), ("workspace", 7)]),
        ("day", [("2026-11-21", 5), ("2026-11-22", 32)]),
        ("model", [("", 35), ("test/echo", 2)]),
    ],
)
async def test_usage_is_grouped(store: Store, by: By, keys: list[tuple[str, int]]) -> None:
    await tenancy(store)
    second = execution(workspace_id="second", component_id="b")
    await append(
        store,
        entry("one", 5, at=NOON - DAY),
        entry(second, 10),
        entry(second, 20, source="attempt:2"),
        entry("call", 2, component_id=None, model="test/echo"),
        entry("early", 1000, at=NOON - 2 * DAY),
        entry("late", 1000, at=NOON + DAY),
        entry(execution(org_id="other", workspace_id="third"), 1000),
    )

    rows = await store.read(lambda tx: tx.ledger.usage("org", None, by, NOON - DAY, NOON + DAY, 10))
    of_one = await store.read(lambda tx: tx.ledger.usage("org", "second", by, NOON - DAY, NOON + DAY, 10))

    assert [(row.key, row.micro_credits) for row in rows] == keys
    assert sum(row.entries for row in rows) == 4
    assert sum(row.cpu_us for row in rows) == 28
    assert [row.micro_credits for row in of_one] == [30]
    assert {row.name for row in rows} == ({"First", "Second"} if by == "workspace" else {""})


async def test_a_budget_counts_from_the_beginning_of_its_periods(store: Store) -> None:
    month_before = datetime(2026, 10, 31, 23, 59, tzinfo=UTC)
    await append(store, entry("a", 1, at=month_before), entry("b", 20, at=NOON - DAY), entry("c", 300))
    assert await store.read(lambda tx: tx.budgets.standing("org", "workspace", NOON)) is None

    await store.write(lambda tx: tx.budgets.save("org", "workspace", Budget(1000, 5000), "admin", NOON))
    await append(store, entry("d", 4000), entry("d", 4000), entry(execution(workspace_id="second"), 9))

    standing = await store.read(lambda tx: tx.budgets.standing("org", "workspace", NOON))
    assert standing is not None
    assert [(period.key, period.spent, period.limit) for period in standing.periods] == [
        ("2026-11-22", 4300, 1000),
        ("2026-11", 4320, 5000),
    ]
    later = await store.read(lambda tx: tx.budgets.standing("org", "workspace", NOON + 9 * DAY))
    assert later is not None
    assert [period.spent for period in later.periods] == [0, 0]

    await store.write(lambda tx: tx.budgets.save("org", "workspace", Budget(7, None, 50, refuses=False), "x", NOON))
    changed = await store.read(lambda tx: tx.budgets.standing("org", "workspace", NOON))
    assert changed is not None
    assert (changed.budget, [period.spent for period in changed.periods]) == (
        Budget(7, None, 50, refuses=False),
        [4300, 4320],
    )
    await store.write(lambda tx: tx.budgets.delete("org", "workspace"))
    assert await store.read(lambda tx: tx.budgets.standing("org", "workspace", NOON)) is None


async def test_a_budget_misses_nothing_that_is_recorded_at_the_moment_it_is_set(postgresql_url: str) -> None:
    one, two = open_store(postgresql_url), open_store(postgresql_url)
    await one.open()
    await two.open()
    appended, go_on = threading.Event(), threading.Event()

    def append_slowly(tx: Transaction) -> None:
        tx.ledger.append(entry("early", 700))
        appended.set()
        assert go_on.wait(60)

    recording = asyncio.create_task(one.write(append_slowly))
    await asyncio.to_thread(appended.wait, 60)
    setting = asyncio.create_task(
        two.write(lambda tx: tx.budgets.save("org", "workspace", Budget(1000), "admin", NOON))
    )
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        await eventually(lambda: _waits_for_a_lock(connection), bool)
    go_on.set()
    await asyncio.gather(recording, setting)
    await append(one, entry("late", 30))

    standing = await two.read(lambda tx: tx.budgets.standing("org", "workspace", NOON))
    assert standing is not None
    assert [period.spent for period in standing.periods] == [730, 730]
    await one.close()
    await two.close()


async def _waits_for_a_lock(connection: psycopg.Connection[Any]) -> bool:
    return bool(connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone())


async def test_entries_of_two_engines_add_up_in_the_budget(postgresql_url: str) -> None:
    stores = [open_store(postgresql_url) for _ in range(2)]
    for store in stores:
        await store.open()
    await stores[0].write(lambda tx: tx.budgets.save("org", "workspace", Budget(1000), "admin", NOON))

    await asyncio.gather(
        *(append(store, entry(f"{number}-{n}", 3)) for number, store in enumerate(stores) for n in range(100))
    )

    standing = await stores[1].read(lambda tx: tx.budgets.standing("org", "workspace", NOON))
    assert standing is not None
    assert [period.spent for period in standing.periods] == [600, 600]
    for store in stores:
        await store.close()

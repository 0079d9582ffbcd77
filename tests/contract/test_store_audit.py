"""The audit log in both databases: one chain per organization, and nothing in it is changed or deleted."""

from __future__ import annotations

import asyncio
import sqlite3

import psycopg
import pytest

from flow_platform.domain import errors
from flow_platform.domain.audit import AuditEntry, verify, verify_log
from flow_platform.domain.clock import ManualClock
from flow_platform.engine.audit_retention import AuditRetention
from flow_platform.store import open_store
from flow_platform.store.audit_table import AuditFilter
from flow_platform.store.base import Store, Transaction
from tests.support.store_records import NOW, SECOND

ENTRY = {"kind": "change", "action": "PUT W/x", "subject": "ada", "workspace_id": "w"}
CHANGES = (
    "UPDATE audit_entries SET text = 'x'",
    "UPDATE audit_entries SET hash = 'x' WHERE sequence = 1",
    "DELETE FROM audit_entries",
    "DELETE FROM audit_entries WHERE sequence = 2",
)


async def _append(store: Store, org_id: str, count: int) -> None:
    for number in range(count):
        await store.write(lambda tx, n=number: tx.audit.append(org_id, {**ENTRY, "n": n}, NOW))


async def test_each_organization_has_its_own_chain(store: Store) -> None:
    await _append(store, "one", 3)
    await _append(store, "two", 2)

    def operation(tx: Transaction) -> None:
        for org_id, count in (("one", 3), ("two", 2), ("none", 0)):
            found = tx.audit.after(org_id, 0, 100)
            assert verify(found) == tx.audit.head(org_id)
            assert [entry.sequence for entry in found] == list(range(1, count + 1))
        assert [entry.sequence for entry in tx.audit.page("one", AuditFilter(subject="ada"), 3, 10)] == [2, 1]
        assert tx.audit.page("one", AuditFilter(workspace_id="other"), None, 10) == []

    await store.read(operation)


async def test_an_entry_is_undone_with_its_transaction(store: Store) -> None:
    def operation(tx: Transaction) -> None:
        tx.audit.append("one", ENTRY, NOW)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.write(operation)
    await _append(store, "one", 1)
    assert verify(await store.read(lambda tx: tx.audit.after("one", 0, 10)))[0] == 1


@pytest.mark.parametrize("statement", CHANGES)
async def test_sqlite_refuses_changes(sqlite_url: str, statement: str) -> None:
    store = open_store(sqlite_url)
    await store.open()
    await _append(store, "one", 2)
    await store.close()
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("statement", [*CHANGES, "TRUNCATE audit_entries"])
async def test_postgresql_refuses_changes(postgresql_url: str, statement: str) -> None:
    store = open_store(postgresql_url)
    await store.open()
    await _append(store, "one", 2)
    await store.close()
    with psycopg.connect(postgresql_url) as connection, pytest.raises(psycopg.Error, match="append-only"):
        connection.execute(statement)  # pyright: ignore[reportArgumentType]


async def test_two_servers_write_one_chain(postgresql_url: str) -> None:
    one, two = open_store(postgresql_url), open_store(postgresql_url)
    await one.open()
    await two.open()
    try:
        await asyncio.gather(_append(one, "one", 25), _append(two, "one", 25))
        found = await one.read(lambda tx: tx.audit.after("one", 0, 100))
        assert verify(found) == await two.read(lambda tx: tx.audit.head("one"))
        assert len(found) == 50
    finally:
        await one.close()
        await two.close()


async def _whole(store: Store) -> list[AuditEntry]:
    return await store.read(lambda tx: tx.audit.after("one", 0, 100_000))


async def test_old_entries_are_removed_and_the_log_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flow_platform.engine.audit_retention.BATCH", 3)
    for number in range(10):
        at = NOW + number * SECOND
        await store.write(lambda tx, at=at, n=number: tx.audit.append("one", {**ENTRY, "n": n}, at))
    before = await _whole(store)
    clock = ManualClock(NOW + 20 * SECOND)
    retention = AuditRetention(store, clock, 13 * SECOND)
    assert await retention.remove() == 7  # Those of 0 to 6.
    assert await retention.remove() == 0
    left = await _whole(store)
    assert left[:3] == before[7:]
    removed, sequence, digest = verify_log(left)
    assert (removed, sequence, digest) == (7, *await store.read(lambda tx: tx.audit.head("one")))
    assert [entry.document["removed"]["sequence"] for entry in left[3:]] == [3, 6, 7]
    assert left[-1].document["removed"]["hash"] == before[6].hash
    for cut in (left[1:], left[2:], left[:-1], left[:3]):  # Whoever removes more, or the word about it.
        with pytest.raises(errors.Conflict, match="no entry says that it was removed"):
            verify_log(cut)
    assert verify_log([*before[:7], *left]) == (0, sequence, digest)  # With an archive in front.
    assert verify_log([*before[3:7], *left]) == (3, sequence, digest)
    with pytest.raises(errors.Conflict, match="no entry says that it was removed"):
        verify_log([*before[4:7], *left])
    clock.advance(100 * SECOND)
    assert await retention.remove() == 6  # Also what said that others were removed.
    assert verify_log(await _whole(store))[0] == 13


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_what_retention_lets_go_is_all_that_can_be_deleted(request: pytest.FixtureRequest, database: str) -> None:
    url: str = request.getfixturevalue(f"{database}_url")
    store = open_store(url)
    await store.open()
    await _append(store, "one", 5)
    await store.write(lambda tx: tx.audit.remove_to("one", 2))
    assert [entry.sequence for entry in await _whole(store)] == [3, 4, 5]
    await store.close()
    statement = "DELETE FROM audit_entries WHERE sequence = 3"
    if database == "sqlite":
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
        connection.close()
        return
    with psycopg.connect(url) as connection, pytest.raises(psycopg.Error, match="append-only"):
        connection.execute(statement)

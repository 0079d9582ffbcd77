"""The audit log in both databases: one chain per organization, and nothing in it is changed or deleted."""

from __future__ import annotations

import asyncio
import sqlite3

import psycopg
import pytest

from flow_platform.domain.audit import verify
from flow_platform.store import open_store
from flow_platform.store.audit_table import AuditFilter
from flow_platform.store.base import Store, Transaction
from tests.support.store_records import NOW

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

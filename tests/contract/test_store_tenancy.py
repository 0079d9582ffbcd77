"""The contracts of `TenancyTable` and `RunnerTable`."""

from __future__ import annotations

import pytest

from flow_platform.domain import errors
from flow_platform.store.base import SigningKey, Store, Transaction, Workspace
from tests.support.store_records import NOW, SECOND, TICK


async def test_the_first_workspace_is_the_oldest(store: Store) -> None:
    assert await store.read(lambda tx: tx.tenancy.first_workspace()) is None
    older, newer = Workspace("org", "w-z", "Older"), Workspace("org", "w-a", "Newer")

    def operation(tx: Transaction) -> None:
        tx.tenancy.insert_organization("org", "Org", NOW)
        tx.tenancy.insert_workspace(newer, NOW + TICK)
        tx.tenancy.insert_workspace(older, NOW)

    await store.write(operation)

    assert await store.read(lambda tx: tx.tenancy.first_workspace()) == older
    assert await store.read(lambda tx: tx.tenancy.find_workspace("org", "w-a")) == newer
    assert await store.read(lambda tx: tx.tenancy.find_workspace("other", "w-a")) is None
    assert await store.read(lambda tx: tx.tenancy.find_workspace("org", "unknown")) is None
    assert await store.read(lambda tx: tx.tenancy.list_workspaces("org", 10)) == [older, newer]
    assert await store.read(lambda tx: tx.tenancy.list_workspaces("org", 1)) == [older]
    assert await store.read(lambda tx: tx.tenancy.list_workspaces("other", 10)) == []


async def test_a_workspace_needs_its_organization_and_an_id_of_its_own(store: Store) -> None:
    with pytest.raises(errors.NotFound):
        await store.write(lambda tx: tx.tenancy.insert_workspace(Workspace("none", "w", "W"), NOW))
    assert await store.read(lambda tx: tx.tenancy.first_workspace()) is None

    await store.write(lambda tx: tx.tenancy.insert_organization("org", "Org", NOW))
    with pytest.raises(errors.Conflict):
        await store.write(lambda tx: tx.tenancy.insert_organization("org", "Again", NOW))


async def test_signing_keys_come_newest_first(store: Store) -> None:
    retired = SigningKey("k1", "private", "public", NOW, NOW + SECOND)
    signs = SigningKey("k2", "private 2", "public 2", NOW + TICK)

    def operation(tx: Transaction) -> None:
        tx.tenancy.insert_signing_key(retired)
        tx.tenancy.insert_signing_key(signs)

    await store.write(operation)

    assert await store.read(lambda tx: tx.tenancy.signing_keys()) == [signs, retired]
    with pytest.raises(errors.Conflict):
        await store.write(lambda tx: tx.tenancy.insert_signing_key(signs))


async def test_a_heartbeat_counts_for_the_registered_instance_only(store: Store) -> None:
    async def seen(instance: str, runner: str = "runner") -> bool:
        return await store.write(lambda tx: tx.runners.seen(runner, instance, NOW + SECOND, 5))

    assert not await seen("one")
    await store.write(lambda tx: tx.runners.register("runner", "one", 4, NOW))
    assert await seen("one")
    assert not await seen("two")

    await store.write(lambda tx: tx.runners.register("runner", "two", 8, NOW + 2 * SECOND))
    assert not await seen("one")
    assert await seen("two")
    assert not await seen("two", runner="other")


async def test_alive_are_the_runners_heard_of_since(store: Store) -> None:
    async def alive() -> tuple[int, int]:
        return await store.read(lambda tx: (tx.runners.alive(NOW), tx.runners.alive(NOW + TICK)))

    assert await alive() == (0, 0)
    await store.write(lambda tx: tx.runners.register("runner", "one", 4, NOW))
    await store.write(lambda tx: tx.runners.register("gone", "one", 4, NOW - TICK))
    assert await alive() == (1, 0)

    await store.write(lambda tx: tx.runners.seen("runner", "one", NOW + TICK, 0))
    assert await alive() == (1, 1)

"""The contract of `ServiceTable`."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

import pytest

from flow_platform.domain import errors
from flow_platform.domain.clock import ManualClock
from flow_platform.domain.component import Component
from flow_platform.domain.principal import Principal, Role
from flow_platform.domain.release import Ring
from flow_platform.domain.service import AuthMode, Endpoint, PublishedService, Service, ServiceToken
from flow_platform.engine.services import Services
from flow_platform.store.base import Store, Transaction, Workspace
from flow_sdk.wire.status import Kind
from tests.support.store_records import NOW, SECOND

RING = Ring("ring", "org", "workspace", "dev", 0, True, NOW)
SERVICE = Service("s1", "org", "workspace", "shop", "Shop", "", "ring", NOW, "ada", NOW)
SCHEMA = {"type": "object", "description": "Ünï \udc00"}
ENDPOINT = Endpoint(
    "e1",
    "note",
    "POST",
    "/a/{b}",
    Kind.CODE_BLOCK,
    "echo",
    tags=("x",),
    request_schema=SCHEMA,
    timeout_seconds=1.5,
    when_to_use=("now",),
    auth=AuthMode.PUBLIC,
)
VERSION = PublishedService("s1", 1, "sha256:d", "Shop", "", (ENDPOINT,), NOW, "ada", b'{"a":1}', "sha256:c")
TOKEN = ServiceToken("t1", "s1", "crm", "fls_abc", "d" * 64, NOW, "ada", NOW + SECOND)


async def prepared(store: Store, *services: Service) -> None:
    def operation(tx: Transaction) -> None:
        tx.tenancy.insert_organization("org", "Org", NOW)
        tx.tenancy.insert_workspace(Workspace("org", "workspace", "Workspace"), NOW)
        tx.catalog.insert_ring(RING)
        for service in services:
            tx.services.insert(service)

    await store.write(operation)


async def test_a_service_is_found_by_id_and_slug_in_its_organization(store: Store) -> None:
    await prepared(store, SERVICE)
    changed = dataclasses.replace(SERVICE, name="Store", latest_version=3, updated_at=NOW + SECOND)

    assert await store.read(lambda tx: [tx.services.find("org", name) for name in ("s1", "shop")]) == [SERVICE] * 2
    assert await store.read(lambda tx: tx.services.find("other", "s1")) is None
    await store.write(lambda tx: tx.services.update(changed))
    assert await store.write(lambda tx: tx.services.find("org", "shop", for_update=True)) == changed
    assert await store.read(lambda tx: tx.services.count("org", "workspace")) == 1


async def test_a_slug_is_there_once(store: Store) -> None:
    await prepared(store, SERVICE)
    with pytest.raises(errors.FlowError):
        await store.write(lambda tx: tx.services.insert(dataclasses.replace(SERVICE, id="s2")))


async def test_lists_are_paged_newest_first(store: Store) -> None:
    services = [
        dataclasses.replace(SERVICE, id=f"s{i}", slug=f"shop-{i}", created_at=NOW + i // 2 * SECOND) for i in range(5)
    ]
    await prepared(store, *services)

    first = await store.read(lambda tx: tx.services.list("org", "workspace", None, 3))
    rest = await store.read(lambda tx: tx.services.list("org", "workspace", first.next_cursor, 3))

    assert [service.id for service in (*first.items, *rest.items)] == ["s4", "s3", "s2", "s1", "s0"]
    assert rest.next_cursor is None


async def test_endpoints_versions_and_tokens_are_kept_as_they_are(store: Store) -> None:
    await prepared(store, SERVICE)
    renamed = dataclasses.replace(ENDPOINT, name="other")

    def write(tx: Transaction) -> None:
        tx.services.save_endpoint("s1", ENDPOINT)
        tx.services.insert_version(VERSION)
        tx.services.insert_token(TOKEN)

    await store.write(write)
    assert await store.read(lambda tx: list(tx.services.endpoints("s1"))) == [ENDPOINT]
    assert await store.read(lambda tx: tx.services.find_version("s1", 1)) == VERSION
    [listed] = await store.read(lambda tx: tx.services.list_versions("s1", 10))
    assert listed == dataclasses.replace(VERSION, endpoints=(), skills=b"")
    assert await store.read(lambda tx: tx.services.find_token("d" * 64)) == TOKEN
    await store.write(lambda tx: tx.services.save_endpoint("s1", renamed))
    await store.write(lambda tx: tx.services.note_token_use("t1", NOW + SECOND))
    assert await store.read(lambda tx: list(tx.services.endpoints("s1"))) == [renamed]
    assert await store.read(lambda tx: [one.last_used_at for one in tx.services.tokens("s1")]) == [NOW + SECOND]
    assert not await store.write(lambda tx: tx.services.delete_token("other", "t1"))
    with pytest.raises(errors.FlowError):
        await store.write(lambda tx: tx.services.insert_version(VERSION))

    await store.write(lambda tx: tx.services.delete("s1"))
    assert await store.read(lambda tx: tx.services.find("org", "s1")) is None
    assert await store.read(lambda tx: tx.services.find_version("s1", 1)) is None
    assert await store.read(lambda tx: tx.services.find_token("d" * 64)) is None


async def test_publishes_at_the_same_time_make_one_version(store: Store, store_url: str) -> None:
    """Two engines, of which each has a store of its own over the same database."""
    from flow_platform.store import open_store

    await prepared(store, SERVICE)
    component = Component("c1", "org", "workspace", Kind.CODE_BLOCK, "echo", "Echo", "", (), NOW)
    await store.write(lambda tx: tx.catalog.insert_component(component))
    await store.write(lambda tx: tx.services.save_endpoint("s1", ENDPOINT))
    other = open_store(store_url)
    await other.open()
    clock = ManualClock(NOW + timedelta(days=1))
    ada = Principal("ada", "org", Role.BUILDER, "workspace")

    published = await asyncio.gather(
        *(Services(one, clock).publish(ada, "org", "workspace", "shop") for one in (store, other) * 4)
    )
    await other.close()

    assert sorted(is_new for _, is_new in published) == [False] * 7 + [True]
    assert len({(version.number, version.checksum, version.skills) for version, _ in published}) == 1
    assert len(await store.read(lambda tx: tx.services.list_versions("s1", 10))) == 1

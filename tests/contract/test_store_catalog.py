"""The contract of `CatalogTable`."""

from __future__ import annotations

import dataclasses

import pytest

from flow_platform.domain import errors
from flow_platform.domain.component import Component, Definition, Version
from flow_platform.domain.execution import RetryPolicy
from flow_platform.domain.release import Deployment, DeploymentState, Ring
from flow_platform.store.base import Store, Transaction
from flow_sdk.wire.runner import EnvironmentRef, Limits
from flow_sdk.wire.status import Kind
from tests.support.store_records import NOW, TICK, component, deployment, ring, version


async def save(store: Store, *records: Component | Version | Ring | Deployment) -> None:
    def operation(tx: Transaction) -> None:
        for record in records:
            match record:
                case Component():
                    tx.catalog.insert_component(record)
                case Version():
                    tx.catalog.insert_version(record)
                case Ring():
                    tx.catalog.insert_ring(record)
                case Deployment():
                    tx.catalog.insert_deployment(record)

    await store.write(operation)


async def find(store: Store, id_or_slug: str, kind: Kind = Kind.CODE_BLOCK, org: str = "org") -> Component | None:
    return await store.read(lambda tx: tx.catalog.find_component(org, "workspace", kind, id_or_slug))


async def test_a_component_is_found_by_id_and_by_slug_in_its_workspace_and_kind(store: Store) -> None:
    mine = component(slug="mine", description="Grüße", tags=())
    await save(store, mine)

    assert await find(store, mine.id) == mine
    assert await find(store, "mine") == mine
    assert await find(store, "mine", Kind.AGENT) is None
    assert await find(store, mine.id, org="other") is None
    assert await find(store, "unknown") is None


async def test_an_id_wins_over_a_slug_that_looks_like_it(store: Store) -> None:
    real = component(id="0190-real", slug="real")
    await save(store, component(slug="0190-real"), real)

    assert await find(store, "0190-real") == real


async def test_a_slug_is_unique_per_workspace_and_kind(store: Store) -> None:
    await save(store, component(slug="s"), component(slug="s", kind=Kind.AGENT), component(slug="s", workspace_id="w2"))

    with pytest.raises(errors.Conflict):
        await save(store, component(slug="s"))


async def test_a_component_is_updated(store: Store) -> None:
    before = component()
    await save(store, before)
    after = dataclasses.replace(before, name="New", description="d", tags=("x",), latest_version=3)

    await store.write(lambda tx: tx.catalog.update_component(after))

    assert await find(store, before.id) == after
    with pytest.raises(errors.NotFound):
        await store.write(lambda tx: tx.catalog.update_component(dataclasses.replace(after, org_id="other")))


async def test_components_page_newest_first(store: Store) -> None:
    components = [component(created_at=NOW + TICK * (i // 2)) for i in range(5)]
    await save(store, *components, component(kind=Kind.AGENT), component(workspace_id="w2"))
    expected = sorted(components, key=lambda c: (c.created_at, c.id), reverse=True)
    seen, cursor = [], None
    while True:
        page = await store.read(
            lambda tx, cursor=cursor: tx.catalog.list_components("org", "workspace", Kind.CODE_BLOCK, cursor, 2)
        )
        seen += page.items
        if (cursor := page.next_cursor) is None:
            break

    assert seen == expected


async def test_a_version_comes_back_with_all_that_it_defines(store: Store) -> None:
    of = component()
    plain = version(of)
    full = version(
        of,
        2,
        definition=Definition(
            kind=Kind.TRANSFORM,
            code="def f():\n    return '\\ud800 \0 世'\n",
            entry_point="f",
            dependencies=("a>=1", "b"),
            timeout_seconds=1.5,
            retry=RetryPolicy(3, 0.5, 1.0, 9.0, ("KeyError",)),
            limits=Limits(memory_bytes=1 << 40, cpus=0.5),
            network=("example.org:443",),
            secrets=("KEY",),
            examples=({"input": {"a": None}, "output": []},),
            requires_context=True,
        ),
        environment=EnvironmentRef(digest="sha256:e", lock="a==1 --hash=sha256:x\n"),
        input_schema={"type": "object"},
        output_schema={"anyOf": []},
    )
    await save(store, of, plain, full)

    for one in (plain, full):
        assert await store.read(lambda tx, one=one: tx.catalog.get_version(one.id)) == one
        assert await store.read(lambda tx, one=one: tx.catalog.find_version(of.id, one.number)) == one
        assert await store.read(lambda tx, one=one: tx.catalog.find_version_by_digest(of.id, one.digest)) == one
        assert one.definition.digest() == one.digest
    assert await store.read(lambda tx: tx.catalog.find_version(of.id)) == full, "the newest"


async def test_an_unknown_version_is_none_or_not_found(store: Store) -> None:
    of = component()
    await save(store, of)

    assert await store.read(lambda tx: tx.catalog.find_version(of.id)) is None
    assert await store.read(lambda tx: tx.catalog.find_version(of.id, 7)) is None
    assert await store.read(lambda tx: tx.catalog.find_version_by_digest(of.id, "sha256:0")) is None
    with pytest.raises(errors.NotFound, match="'unknown'"):
        await store.read(lambda tx: tx.catalog.get_version("unknown"))


async def test_numbers_and_contents_of_versions_are_unique_per_component(store: Store) -> None:
    of, other = component(), component()
    first = version(of)
    await save(store, of, other, first, version(other))

    with pytest.raises(errors.Conflict):
        await save(store, version(of, 1, definition=Definition(of.kind, code="other")))
    with pytest.raises(errors.Conflict):
        await save(store, version(of, 2, definition=first.definition))
    with pytest.raises(errors.NotFound):
        await save(store, version(component()))


async def test_versions_page_newest_first(store: Store) -> None:
    of = component()
    versions = [version(of, number) for number in range(1, 6)]
    await save(store, of, *versions)

    first = await store.read(lambda tx: tx.catalog.list_versions(of.id, None, 2))
    second = await store.read(lambda tx: tx.catalog.list_versions(of.id, first.next_cursor, 10))

    assert [v.number for v in first.items + second.items] == [5, 4, 3, 2, 1]
    assert second.next_cursor is None
    with pytest.raises(errors.InvalidInput):
        await store.read(lambda tx: tx.catalog.list_versions(of.id, "forged", 2))


async def test_rings_are_listed_in_their_order_and_found_by_id_or_name(store: Store) -> None:
    production = ring(name="production", order=30, auto_deploy=False, env={"A": "\0x"})
    dev = ring(name="dev", order=10)
    await save(store, production, dev, ring(name="dev", workspace_id="other"), ring(name="dev", org_id="other"))

    async def found(id_or_name: str, org: str = "org") -> Ring | None:
        return await store.read(lambda tx: tx.catalog.find_ring(org, "workspace", id_or_name))

    assert await store.read(lambda tx: tx.catalog.list_rings("org", "workspace")) == [dev, production]
    assert await found(production.id) == production
    assert await found("dev") == dev
    assert await found(production.id, org="other") is None
    with pytest.raises(errors.Conflict):
        await save(store, ring(name="dev"))


async def test_deployments_page_by_component_and_ring(store: Store) -> None:
    of, other, dev, staging = component(), component(), ring(), ring(name="staging")
    one, two = version(of), version(other)
    ended = DeploymentState.FAILED
    mine = [deployment(one, dev, created_at=NOW + i * TICK, state=ended) for i in range(3)]
    rest = [deployment(one, staging), deployment(two, dev)]
    await save(store, of, other, dev, staging, one, two, *mine, *rest)

    async def page(component_id: str | None, ring_id: str | None, cursor: str | None = None, limit: int = 10):
        return await store.read(
            lambda tx: tx.catalog.list_deployments("org", "workspace", component_id, ring_id, cursor, limit)
        )

    assert len((await page(None, None)).items) == 5
    assert (await page(other.id, None)).items == [rest[1]]
    assert (await page(None, staging.id)).items == [rest[0]]
    first = await page(of.id, dev.id, limit=2)
    second = await page(of.id, dev.id, first.next_cursor)
    assert first.items + second.items == mine[::-1]
    assert second.next_cursor is None
    foreign = await store.read(lambda tx: tx.catalog.list_deployments("other", "workspace", None, None, None, 10))
    assert foreign.items == []

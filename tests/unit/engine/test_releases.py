"""Which version runs: the rules of `resolve_deployment` and `place`, over a real store."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from flow_platform.domain import errors
from flow_platform.domain.clock import ManualClock, seeded_entropy
from flow_platform.domain.component import Component, Definition, Version
from flow_platform.domain.principal import Principal, Role
from flow_platform.domain.release import DeploymentState, Ring
from flow_platform.engine.first_start import ensure_first_tenant
from flow_platform.engine.releases import MAX_RINGS, NewRing, Releases, place, resolve_deployment
from flow_platform.store import open_store
from flow_platform.store.base import Store, Workspace
from flow_sdk.wire.status import Kind

CLOCK = ManualClock()
ENTROPY = seeded_entropy(1)


class Shelf:
    """A component with versions, and the rings of its workspace."""

    def __init__(self, store: Store, workspace: Workspace) -> None:
        self.store = store
        self.workspace = workspace
        self.component = Component(
            str(uuid.uuid4()), workspace.org_id, workspace.workspace_id, Kind.TRANSFORM, "t", "T", "", (), CLOCK.now()
        )
        self.rings: dict[str, Ring] = {}

    async def open(self) -> Shelf:
        await self.store.write(lambda tx: tx.catalog.insert_component(self.component))
        found = await self.store.read(
            lambda tx: tx.catalog.list_rings(self.workspace.org_id, self.workspace.workspace_id)
        )
        self.rings = {ring.name: ring for ring in found}
        return self

    async def version(self, number: int) -> Version:
        definition = Definition(Kind.TRANSFORM, f"# {number}")
        made = Version(str(uuid.uuid4()), self.component.id, number, definition.digest(), definition, CLOCK.now())
        await self.store.write(lambda tx: tx.catalog.insert_version(made))
        return made

    async def resolve(self, ring: str, *, auto_deploy: bool = True) -> Any:
        return await self.store.write(
            lambda tx: resolve_deployment(
                tx,
                self.component,
                self.rings[ring],
                execution_id="any",
                auto_deploy=auto_deploy,
                now=CLOCK.now(),
                entropy=ENTROPY,
            )
        )

    async def place(self, version: Version, ring: str) -> Any:
        return await self.store.write(
            lambda tx: place(tx, self.component, version, self.rings[ring], CLOCK.now(), ENTROPY)
        )


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    store = open_store(f"sqlite:///{tmp_path / 'flow.db'}")
    await store.open()
    yield await Shelf(store, await ensure_first_tenant(store, CLOCK)).open()
    await store.close()


async def test_the_first_use_deploys_the_newest_version_where_the_ring_allows_it(shelf: Shelf) -> None:
    await shelf.version(1)
    newest = await shelf.version(2)
    deployment, version = await shelf.resolve("dev")
    assert (version.id, deployment.version, deployment.state) == (newest.id, 2, DeploymentState.ACTIVE)
    assert deployment.activated_at == CLOCK.now()
    await shelf.version(3)
    again, _ = await shelf.resolve("dev", auto_deploy=False)
    assert again == deployment  # An active one stays: first use is over.


@pytest.mark.parametrize(("ring", "auto_deploy"), [("staging", True), ("production", True), ("dev", False)])
async def test_elsewhere_nothing_is_deployed_by_use(shelf: Shelf, ring: str, auto_deploy: bool) -> None:
    await shelf.version(1)
    with pytest.raises(errors.Conflict) as refused:
        await shelf.resolve(ring, auto_deploy=auto_deploy)
    assert refused.value.error_code == "not_deployed"
    assert "'t'" in refused.value.message
    assert repr(ring) in refused.value.message
    assert refused.value.hint == f"publish it into that ring: flow publish PATH --ring {ring}"


async def test_what_an_earlier_ring_has_is_to_be_promoted(shelf: Shelf) -> None:
    version = await shelf.version(1)
    await shelf.place(version, "dev")
    for ring, how in (("production", " --from dev"), ("staging", "")):
        with pytest.raises(errors.Conflict) as refused:
            await shelf.resolve(ring)
        name = f"{shelf.component.kind.path}/{shelf.component.slug}"
        assert refused.value.hint == f"it is active in ring 'dev': flow promote {name}{how} --to {ring}"


async def test_a_component_without_a_version_is_not_deployed(shelf: Shelf) -> None:
    with pytest.raises(errors.Conflict, match="not deployed"):
        await shelf.resolve("dev")


async def test_one_is_active_and_the_earlier_ones_are_history(shelf: Shelf) -> None:
    first, second = await shelf.version(1), await shelf.version(2)
    one = await shelf.place(first, "staging")
    two = await shelf.place(second, "staging")
    assert await shelf.place(second, "staging") == two
    three = await shelf.place(first, "staging")
    elsewhere = await shelf.place(first, "production")
    where = shelf.workspace.org_id, shelf.workspace.workspace_id
    page = await shelf.store.read(lambda tx: tx.catalog.list_deployments(*where, shelf.component.id, None, None, 10))
    assert {(item.id, item.state) for item in page.items} == {
        (one.id, DeploymentState.SUPERSEDED),
        (two.id, DeploymentState.SUPERSEDED),
        (three.id, DeploymentState.ACTIVE),
        (elsewhere.id, DeploymentState.ACTIVE),
    }
    deployment, version = await shelf.resolve("staging")
    assert (deployment.id, version.id) == (three.id, first.id)


async def test_rings_are_bounded(shelf: Shelf) -> None:
    releases = Releases(shelf.store, CLOCK)
    where = shelf.workspace.org_id, shelf.workspace.workspace_id
    admin = Principal("ada", shelf.workspace.org_id, Role.ADMIN)
    for number in range(MAX_RINGS - 3):
        await releases.create_ring(admin, *where, NewRing(f"ring-{number}", 100 - number))
    with pytest.raises(errors.Conflict) as refused:
        await releases.create_ring(admin, *where, NewRing("one-more", 1))
    assert refused.value.error_code == "too_many_rings"
    orders = [ring.order for ring in await releases.rings(admin, *where)]
    assert orders == sorted(orders)

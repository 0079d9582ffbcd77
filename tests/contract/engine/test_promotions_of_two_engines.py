"""Two engines on one PostgreSQL want to change one track at the same moment: one of them does."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flow_platform.domain import errors
from flow_platform.domain.clock import ManualClock
from flow_platform.domain.principal import Principal, Role
from flow_platform.domain.release import Deployment, DeploymentState, Ring
from flow_platform.engine.rollout_steps import RolloutSteps
from flow_platform.engine.rollouts import Rollouts
from flow_platform.store import open_store
from flow_platform.store.base import Store, Transaction, Workspace
from tests.support.rollouts_alone import rollouts_over
from tests.support.store_records import NOW, component, ring, version

ADMIN = Principal("ada", "org", Role.ADMIN)
WHERE = ("org", "workspace")


@dataclasses.dataclass
class Two:
    """Two engines' parts, each with a store of its own; a component that is active in dev."""

    stores: list[Store]
    engines: list[Rollouts]
    dev: Ring
    staging: Ring
    source: Deployment

    async def in_staging(self) -> list[Deployment]:
        return await self.stores[0].read(lambda tx: tx.rollouts.current(self.source.component_id, self.staging.id))


@pytest.fixture
async def two(postgresql_url: str) -> AsyncIterator[Two]:
    stores = [open_store(postgresql_url) for _ in range(2)]
    for store in stores:
        await store.open()
    clock = ManualClock(NOW)
    engines = [rollouts_over(store, clock) for store in stores]
    of, dev, staging = component(), ring(), ring(name="staging", order=20)
    one = version(of)

    def prepare(tx: Transaction) -> None:
        tx.tenancy.insert_organization("org", "Org", NOW)
        tx.tenancy.insert_workspace(Workspace("org", "workspace", "W"), NOW)
        tx.catalog.insert_component(dataclasses.replace(of, latest_version=1))
        tx.catalog.insert_version(one)
        tx.catalog.insert_ring(dev)
        tx.catalog.insert_ring(staging)

    await stores[0].write(prepare)
    source, _ = await engines[0].deploy(ADMIN, *WHERE, of.id, dev.id)
    yield Two(stores, engines, dev, staging, source)
    for store in stores:
        await store.close()


async def test_of_two_promotions_at_once_one_is_made(two: Two) -> None:
    outcomes = await asyncio.gather(
        *(engine.promote(ADMIN, *WHERE, [two.source.id]) for engine in two.engines for _ in range(4)),
        return_exceptions=True,
    )
    made = [one for one in outcomes if not isinstance(one, BaseException)]
    refused = [one for one in outcomes if isinstance(one, errors.Conflict)]
    assert (len(made), len(refused)) == (1, 7), outcomes
    assert {one.error_code for one in refused} == {"already_active"}
    (active,) = await two.in_staging()
    assert (active.id, active.state) == (made[0][0].id, DeploymentState.ACTIVE)


async def test_one_that_comes_between_reading_and_writing_is_seen(two: Two) -> None:
    """The second engine has read that nothing is on its way; before it writes, the first one's promotion commits."""
    has_read, may_write = threading.Event(), threading.Event()
    runs: list[int] = []

    def slow(steps: RolloutSteps) -> Any:
        runs.append(1)
        of = steps.tx.catalog.find_version(two.source.component_id)
        assert of is not None
        track = steps.track(two.source.component_id, two.staging)
        has_read.set()
        assert may_write.wait(60)
        kinds = [steps.tx.catalog.find_component(*WHERE, kind, two.source.component_id) for kind in _kinds()]
        (found,) = [one for one in kinds if one]
        if track.active is not None:
            return "there"
        return steps.deploy(found, of, two.staging)

    late = asyncio.ensure_future(two.engines[1].change("bob", slow))
    assert await asyncio.to_thread(has_read.wait, 60)
    (made,) = await two.engines[0].promote(ADMIN, *WHERE, [two.source.id])
    may_write.set()
    assert await late == "there"
    assert len(runs) == 2
    (active,) = await two.in_staging()
    assert active.id == made.id


async def test_approvals_at_once_activate_once(two: Two) -> None:
    strict = dataclasses.replace(two.staging, requires_approval=True)
    await two.stores[0].write(lambda tx: tx.catalog.update_ring(strict))
    (made,) = await two.engines[0].promote(ADMIN, *WHERE, [two.source.id])
    outcomes = await asyncio.gather(
        *(engine.approve(ADMIN, *WHERE, made.id) for engine in two.engines), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in outcomes) == ["Deployment", "IllegalTransition"]
    (active,) = await two.in_staging()
    assert (active.id, active.approved_by) == (made.id, "ada")


def _kinds() -> Any:
    from flow_sdk.wire.status import Kind

    return Kind

"""The contract of `RolloutTable`, and of variables."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from flow_platform.domain import errors
from flow_platform.domain.release import Deployment, DeploymentState, Ring, RollbackRule
from flow_platform.domain.rollout import Track
from flow_platform.domain.rollout_health import Sample
from flow_platform.store.base import Store, Transaction, Workspace
from flow_platform.store.rollout_port import SmokeInput
from flow_sdk.wire.status import Status
from tests.support.store_records import (
    NOW,
    SECOND,
    TICK,
    component,
    deployment,
    execution,
    in_status,
    insert,
    insert_history,
    ring,
    started,
    version,
)

ACTIVE, QUEUED, VALIDATING = DeploymentState.ACTIVE, DeploymentState.QUEUED, DeploymentState.VALIDATING


async def shelf(store: Store) -> tuple[Any, Ring, Any]:
    """A component, a ring, and a maker of deployments of new versions."""
    of, dev = component(), ring(rollback=RollbackRule(), requires_approval=True)
    numbers = iter(range(1, 100))

    async def make(state: DeploymentState, **changes: Any) -> Deployment:
        one = version(of, next(numbers))
        await store.write(lambda tx: tx.catalog.insert_version(one))
        return deployment(one, dev, state=state, digest=one.digest, **changes)

    def prepare(tx: Transaction) -> None:
        tx.catalog.insert_component(of)
        tx.catalog.insert_ring(dev)

    await store.write(prepare)
    return of, dev, make


async def save(store: Store, before: Track, *after: Deployment) -> None:
    await store.write(lambda tx: tx.rollouts.save([before], [dataclasses.replace(before, deployments=after)]))


async def test_a_deployment_is_kept_with_all_that_is_known_of_it(store: Store) -> None:
    of, dev, make = await shelf(store)
    full = await make(
        VALIDATING,
        activated_at=NOW + TICK,
        share=30,
        previous_id="p",
        promoted_from_id="f",
        approved_by="Zoë",
        is_restored=True,
        reason="so",
        requested_by="ada",
        set_id="s",
        smoke_execution_id="e",
        first_share=10,
    )
    await save(store, Track(of.id, dev), full)
    assert await store.read(lambda tx: tx.rollouts.current(of.id, dev.id)) == [full]
    assert await store.read(lambda tx: tx.rollouts.in_set("s")) == [full]
    assert await store.read(lambda tx: tx.rollouts.latest(of.id, dev.id)) == full
    assert await store.read(lambda tx: tx.catalog.find_ring("org", "workspace", dev.id)) == dev


async def test_a_second_active_one_or_one_on_its_way_is_refused(store: Store) -> None:
    of, dev, make = await shelf(store)
    nothing = Track(of.id, dev)
    active, queued = await make(ACTIVE), await make(QUEUED)
    await save(store, nothing, active, queued)
    for state in (ACTIVE, QUEUED, VALIDATING):
        second = await make(state)
        with pytest.raises(errors.FlowError):
            await save(store, nothing, second)
    assert len(await store.read(lambda tx: tx.rollouts.current(of.id, dev.id))) == 2


async def test_what_changed_meanwhile_is_not_overwritten(store: Store) -> None:
    of, dev, make = await shelf(store)
    queued = await make(QUEUED)
    await save(store, Track(of.id, dev), queued)
    before = Track(of.id, dev, (queued,))
    failed = dataclasses.replace(queued, state=DeploymentState.FAILED)
    await save(store, before, failed)
    with pytest.raises(errors.Conflict):
        await save(store, before, dataclasses.replace(queued, state=VALIDATING))
    assert await store.read(lambda tx: tx.rollouts.latest(of.id, dev.id)) == failed


async def test_a_track_has_what_matters(store: Store) -> None:
    of, dev, make = await shelf(store)
    oldest = await make(DeploymentState.SUPERSEDED, created_at=NOW)
    previous = await make(DeploymentState.SUPERSEDED, created_at=NOW + TICK)
    active = await make(ACTIVE, created_at=NOW + 2 * TICK, previous_id=previous.id)
    queued = await make(QUEUED, created_at=NOW + 3 * TICK)
    await save(store, Track(of.id, dev), oldest, previous, active, queued)
    found = await store.write(lambda tx: tx.rollouts.track(of.id, dev, for_update=True))
    assert found.deployments == (previous, active, queued)
    also = await store.read(lambda tx: tx.rollouts.track(of.id, dev, [oldest.id, "unknown"]))
    assert also.deployments == (oldest, previous, active, queued)
    assert await store.read(lambda tx: tx.rollouts.moving("", 10)) == [queued]
    assert await store.read(lambda tx: tx.rollouts.queued_in(dev.id)) == [queued]


async def test_new_ones_are_those_of_rings_with_a_rule(store: Store) -> None:
    of, dev, make = await shelf(store)
    active = await make(ACTIVE, activated_at=NOW)
    await save(store, Track(of.id, dev), active)
    assert await store.read(lambda tx: tx.rollouts.new(NOW - TICK, "", 10)) == [active]
    assert await store.read(lambda tx: tx.rollouts.new(NOW, "", 10)) == []
    await store.write(lambda tx: tx.catalog.update_ring(dataclasses.replace(dev, rollback=None)))
    assert await store.read(lambda tx: tx.rollouts.new(NOW - TICK, "", 10)) == []


async def test_a_sample_counts_how_executions_ended(store: Store) -> None:
    mine = {"deployment_id": "d"}

    def operation(tx: Transaction) -> None:
        for status in Status:
            insert_history(tx, in_status(status, **mine))
        insert_history(tx, in_status(Status.COMPLETED, deployment_id="other"))

    await store.write(operation)
    # Completed; failed, dead letter and timeout. Not cancelled, not those that still run.
    assert await store.read(lambda tx: tx.rollouts.sample("d", NOW)) == Sample(4, 3)
    assert await store.read(lambda tx: tx.rollouts.sample("d", NOW + TICK)) == Sample()
    assert await store.read(lambda tx: tx.rollouts.has_live_execution("d"))
    assert not await store.read(lambda tx: tx.rollouts.has_live_execution("other"))
    one = execution(deployment_id="other")
    await insert(store, one)
    await store.write(lambda tx: tx.executions.update(one, started(one, at=NOW + SECOND)))
    assert await store.read(lambda tx: tx.rollouts.has_live_execution("other"))


@pytest.mark.parametrize("value", [{"a": "\0"}, [], 0, "x"])
async def test_a_smoke_input_is_kept_and_removed(store: Store, value: Any) -> None:
    of, _, _ = await shelf(store)
    await store.write(lambda tx: tx.rollouts.set_smoke_input(of.id, SmokeInput("earlier")))
    await store.write(lambda tx: tx.rollouts.set_smoke_input(of.id, SmokeInput(value)))
    assert await store.read(lambda tx: tx.rollouts.smoke_input(of.id)) == SmokeInput(value)
    await store.write(lambda tx: tx.rollouts.set_smoke_input(of.id, None))
    assert await store.read(lambda tx: tx.rollouts.smoke_input(of.id)) is None


async def test_variables_of_the_narrowest_scope_win(store: Store) -> None:
    dev = ring(env={"C": "ring"})

    def prepare(tx: Transaction) -> None:
        tx.tenancy.insert_organization("org", "Org", NOW)
        tx.tenancy.insert_workspace(Workspace("org", "workspace", "W"), NOW)
        tx.catalog.insert_ring(dev)
        assert tx.tenancy.set_variables("org", None, {"A": "org", "B": "org", "C": "org"})
        assert tx.tenancy.set_variables("org", "workspace", {"B": "workspace", "C": "workspace"})
        assert not tx.tenancy.set_variables("other", "workspace", {"X": "1"})
        assert not tx.tenancy.set_variables("none", None, {"X": "1"})

    await store.write(prepare)

    async def merged(ring_id: str | None, org_id: str = "org") -> dict[str, str]:
        return await store.read(lambda tx: tx.tenancy.merged_variables(org_id, "workspace", ring_id))

    assert await merged(dev.id) == {"A": "org", "B": "workspace", "C": "ring"}
    assert await merged(None) == await merged("gone") == {"A": "org", "B": "workspace", "C": "workspace"}
    assert await merged(dev.id, "other") == {}
    assert await store.read(lambda tx: tx.tenancy.variables("org", "workspace")) == {"B": "workspace", "C": "workspace"}

"""Which version runs where: what an execution runs on, and the rings and deployments of a workspace.

At most one deployment is active per component and ring. How another one gets there is in `rollouts`; here is only the
short way of a component's first use in a ring.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock, Entropy, new_id, system_entropy
from flow_platform.domain.component import Component, Version
from flow_platform.domain.deployment import Activated, PlacementStarted, ValidationStarted
from flow_platform.domain.isolation import check_minimum, lowest, require_strong_enough
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.domain.release import Deployment, DeploymentState, Ring, RollbackRule
from flow_platform.domain.rollout import Track, begin, choose, step
from flow_platform.store.base import Page, Store, Transaction
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.status import Kind

MAX_RINGS: Final = 50  # Of one workspace; each is looked at when a version is published.


@dataclass(frozen=True)
class NewRing:
    """A stage to be made. The caller has validated each field."""

    name: str
    order: int
    auto_deploy: bool = False
    env: dict[str, str] = field(default_factory=dict[str, str])
    requires_approval: bool = False
    rollback: RollbackRule | None = None
    minimum_isolation: Isolation | None = None
    """None: as little as a ring of that name may demand."""


def resolve_deployment(
    tx: Transaction,
    component: Component,
    ring: Ring,
    *,
    execution_id: str,
    auto_deploy: bool,
    now: datetime,
    entropy: Entropy = system_entropy,
) -> tuple[Deployment, Version]:
    """What the execution runs on when the component is called in the ring: the active deployment, or the one on its way
    that takes a share.

    A component that is not deployed in a ring that allows it gets its newest version deployed there.

    Raises:
        Conflict: `not_deployed`: nothing is active, and the ring or the caller does not want it deployed on first use.
    """
    track = Track(component.id, ring, tuple(tx.rollouts.current(component.id, ring.id)))
    chosen = choose(track, execution_id)
    if chosen is not None:
        return chosen, tx.catalog.get_version(chosen.version_id)
    newest = tx.catalog.find_version(component.id) if auto_deploy and ring.auto_deploy else None
    why = _why_not_by_use(tx, track, newest) if newest else ""
    if newest is None or why:
        raise errors.Conflict(
            f"{component.kind.value} {component.slug!r} is not deployed in ring {ring.name!r}" + (why and f": {why}"),
            code="not_deployed",
            hint=_how_to_deploy(tx, component, ring, why),
        )
    return place(tx, component, newest, ring, now, entropy), newest


def place(
    tx: Transaction, component: Component, version: Version, ring: Ring, now: datetime, entropy: Entropy
) -> Deployment:
    """Makes a version the active one of its component in a ring, at once; the earlier one is superseded.

    Returns the deployment that is active afterwards: the earlier one when it is of this version already.
    """
    before = tx.rollouts.track(component.id, ring, for_update=True)
    if before.active is not None and before.active.version_id == version.id:
        return before.active
    made = new_deployment(component, version, ring, now, entropy)
    after = begin(before, made)
    for event in (PlacementStarted(now), ValidationStarted(now), Activated(now)):
        after = step(after, made.id, event)
    tx.rollouts.save([before], [after])
    return after.get(made.id)


def new_deployment(
    component: Component, version: Version, ring: Ring, now: datetime, entropy: Entropy, requested_by: str = ""
) -> Deployment:
    """A deployment that is to begin.

    Raises:
        Conflict: `isolation_too_weak`.
    """
    require_strong_enough(component, version.definition, ring)
    return Deployment(
        id=new_id(now, entropy),
        org_id=component.org_id,
        workspace_id=component.workspace_id,
        component_id=component.id,
        version_id=version.id,
        version=version.number,
        ring_id=ring.id,
        state=DeploymentState.QUEUED,
        created_at=now,
        digest=version.digest,
        requested_by=requested_by,
    )


def _how_to_deploy(tx: Transaction, component: Component, ring: Ring, why: str) -> str:
    """What to do about a component that is not deployed in a ring."""
    name = f"{component.kind.path}/{component.slug}"
    if why:
        return f"see flow deployments {name} --ring {ring.name}"
    rings = tx.catalog.list_rings(component.org_id, component.workspace_id)
    before = sorted((one for one in rings if one.order < ring.order), key=lambda one: -one.order)
    for earlier in before:
        current = tx.rollouts.current(component.id, earlier.id)
        if any(deployment.state is DeploymentState.ACTIVE for deployment in current):
            source = "" if earlier is before[0] else f" --from {earlier.name}"
            return f"it is active in ring {earlier.name!r}: flow promote {name}{source} --to {ring.name}"
    return f"publish it into that ring: flow publish PATH --ring {ring.name}"


def _why_not_by_use(tx: Transaction, track: Track, newest: Version) -> str:
    """Why the first use may not deploy the newest version; empty when it may."""
    busy = track.on_its_way
    if busy is not None:
        return f"version {busy.version!r} is {busy.state.value!r} there"
    if track.ring.requires_approval:
        return "deployments there require an approval"
    latest = tx.rollouts.latest(track.component_id, track.ring.id)
    if latest is not None and latest.version_id == newest.id and latest.state is DeploymentState.FAILED:
        return f"version {newest.number!r} failed there: {latest.reason}"
    return ""


class Releases:
    """Rings and deployments of workspaces, as the API offers them."""

    def __init__(self, store: Store, clock: Clock, entropy: Entropy = system_entropy) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy

    async def rings(self, principal: Principal, org_id: str, workspace_id: str) -> list[Ring]:
        """All rings of the workspace, in their order."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> list[Ring]:
            check_workspace(tx, org_id, workspace_id)
            return tx.catalog.list_rings(org_id, workspace_id)

        return sorted(await self._store.read(operation), key=lambda ring: (ring.order, ring.name))

    async def create_ring(self, principal: Principal, org_id: str, workspace_id: str, ring: NewRing) -> Ring:
        """Makes a ring.

        Raises:
            Conflict: `ring_exists`, or `too_many_rings`.
            InvalidInput: It demands less than a ring of that name must.
        """
        require_not_execution(principal, Action.ADMINISTER, org_id, workspace_id)
        now = self._clock.now()
        made = Ring(
            id=new_id(now, self._entropy),
            org_id=org_id,
            workspace_id=workspace_id,
            name=ring.name,
            order=ring.order,
            auto_deploy=ring.auto_deploy,
            created_at=now,
            env=ring.env,
            requires_approval=ring.requires_approval,
            rollback=ring.rollback,
            minimum_isolation=check_minimum(ring.name, ring.minimum_isolation or lowest(ring.name)),
        )

        def operation(tx: Transaction) -> Ring:
            check_workspace(tx, org_id, workspace_id)
            existing = tx.catalog.list_rings(org_id, workspace_id)
            if any(other.name == ring.name for other in existing):
                raise errors.Conflict(
                    f"ring {ring.name!r} exists in this workspace: expected another name",
                    code="ring_exists",
                    details=[{"field": "name", "message": f"{ring.name!r} is taken"}],
                )
            if len(existing) >= MAX_RINGS:
                raise errors.Conflict(
                    f"the workspace has {len(existing)} rings: expected at most {MAX_RINGS}", code="too_many_rings"
                )
            tx.catalog.insert_ring(made)
            return made

        return await self._store.write(operation)

    async def deployments(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        component_id: str | None,
        ring_id: str | None,
        cursor: str | None,
        limit: int,
        state: DeploymentState | None = None,
    ) -> Page:
        """A page of deployments, newest first.

        Raises:
            NotFound: The workspace has no such component or ring.
        """
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> Page:
            check_workspace(tx, org_id, workspace_id)
            component = find_component(tx, org_id, workspace_id, component_id).id if component_id else None
            ring = find_ring(tx, org_id, workspace_id, ring_id).id if ring_id else None
            return tx.catalog.list_deployments(org_id, workspace_id, component, ring, cursor, limit, state)

        return await self._store.read(operation)

    async def get_deployment(
        self, principal: Principal, org_id: str, workspace_id: str, deployment_id: str
    ) -> Deployment:
        """Raises NotFound when there is none in this workspace."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)
        return await self._store.read(lambda tx: find_deployment(tx, org_id, workspace_id, deployment_id))


def require_not_execution(principal: Principal, action: Action, org_id: str, workspace_id: str | None) -> None:
    """Management is not for containers, whatever they read or cancel of their own descendants.

    Raises:
        NotFound: Another tenant's.
        Forbidden: An execution's token, or the role does not include the action.
    """
    principal.require(action, org_id, workspace_id)
    if principal.role is Role.EXECUTION:
        raise errors.Forbidden("an execution's token manages nothing: expected a token of a user")


def check_workspace(tx: Transaction, org_id: str, workspace_id: str) -> None:
    """A token for a whole organization passes every check of tenancy, also for a workspace that does not exist.

    Raises:
        NotFound: There is no such workspace.
    """
    if tx.tenancy.find_workspace(org_id, workspace_id) is None:
        raise errors.NotFound("not found")


def find_ring(tx: Transaction, org_id: str, workspace_id: str, ring_id: str) -> Ring:
    """Raises NotFound when the workspace has no such ring."""
    ring = tx.catalog.find_ring(org_id, workspace_id, ring_id)
    if ring is None:
        raise errors.NotFound(f"ring {ring_id!r} not found")
    return ring


def find_deployment(tx: Transaction, org_id: str, workspace_id: str, deployment_id: str) -> Deployment:
    """Raises NotFound when the workspace has no such deployment."""
    found = tx.catalog.find_deployment(org_id, workspace_id, deployment_id)
    if found is None:
        raise errors.NotFound(f"deployment {deployment_id!r} not found")
    return found


def find_component(
    tx: Transaction, org_id: str, workspace_id: str, reference: str, kind: Kind | None = None
) -> Component:
    """A component by its id, its slug, or its kind and slug: `code_block/report` or `code-blocks/report`.

    Args:
        kind: Only of that kind; None: of whatever kind.

    Raises:
        NotFound: The workspace has none.
        InvalidInput: It is the slug of several.
    """
    before, slash, slug = reference.partition("/")
    kinds = [kind] if kind else list(Kind)
    if slash:
        kinds = [one for one in kinds if before in (one.value, one.path)]
    found = [
        component
        for one in kinds
        if (component := tx.catalog.find_component(org_id, workspace_id, one, slug if slash else reference))
    ]
    if not found:
        raise errors.NotFound(f"{kind.value if kind else 'component'} {reference!r} not found")
    if len(found) > 1:
        whose = " and a ".join(component.kind.value for component in found)
        expected = "expected an id, or " + " or ".join(repr(f"{one.kind.value}/{reference}") for one in found)
        raise errors.InvalidInput(
            f"component_id {reference!r} is the slug of a {whose}: {expected}",
            details=[{"field": "component_id", "message": expected}],
        )
    return found[0]

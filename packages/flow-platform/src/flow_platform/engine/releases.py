"""Which version runs where: rings, and the deployments that place versions in them.

At most one deployment is active per component and ring; placing another version supersedes it in the same
transaction. What was once active stays as history, so that it can be activated again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock, Entropy, new_id, system_entropy
from flow_platform.domain.component import Component, Version
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.domain.release import Deployment, DeploymentState, Ring
from flow_platform.store.base import Page, Store, Transaction
from flow_sdk.wire.status import Kind

MAX_RINGS: Final = 50  # Of one workspace; each is looked at when a version is published.


@dataclass(frozen=True)
class NewRing:
    """A stage to be made. The caller has validated each field."""

    name: str
    order: int
    auto_deploy: bool = False
    env: dict[str, str] = field(default_factory=dict[str, str])


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
    """What the execution runs on when the component is called in the ring.

    A component that is not deployed in a ring that allows it gets its newest version deployed there.

    Raises:
        Conflict: `not_deployed`: nothing is active, and the ring or the caller does not want it deployed on first use.
    """
    active = tx.catalog.active_deployment(component.id, ring.id)
    if active is not None:
        return active, tx.catalog.get_version(active.version_id)
    newest = tx.catalog.find_version(component.id) if auto_deploy and ring.auto_deploy else None
    if newest is None:
        raise errors.Conflict(
            f"{component.kind.value} {component.slug!r} is not deployed in ring {ring.name!r}",
            code="not_deployed",
            hint="deploy a version of it there, or call it in a ring that deploys on first use",
        )
    return place(tx, component, newest, ring, now, entropy), newest


def place(
    tx: Transaction, component: Component, version: Version, ring: Ring, now: datetime, entropy: Entropy
) -> Deployment:
    """Makes a version the active one of its component in a ring; the earlier one is superseded.

    Returns the deployment that is active afterwards: the earlier one when it is of this version already.
    """
    active = tx.catalog.active_deployment(component.id, ring.id)
    if active is not None and active.version_id == version.id:
        return active
    if active is not None:
        tx.catalog.set_deployment_state(active.id, DeploymentState.SUPERSEDED, now)
    deployment = Deployment(
        id=new_id(now, entropy),
        org_id=component.org_id,
        workspace_id=component.workspace_id,
        component_id=component.id,
        version_id=version.id,
        version=version.number,
        ring_id=ring.id,
        state=DeploymentState.ACTIVE,
        created_at=now,
        activated_at=now,
    )
    tx.catalog.insert_deployment(deployment)
    return deployment


def place_in_auto_rings(
    tx: Transaction, component: Component, version: Version, now: datetime, entropy: Entropy
) -> list[Deployment]:
    """Makes a published version the active one in all rings that deploy by themselves."""
    rings = tx.catalog.list_rings(component.org_id, component.workspace_id)
    return [place(tx, component, version, ring, now, entropy) for ring in rings if ring.auto_deploy]


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

    async def deploy(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        component_id: str,
        ring_id: str,
        version: int | None = None,
    ) -> tuple[Deployment, bool]:
        """Makes a version (None: the newest) the active one in a ring.

        Returns:
            The active deployment, and whether it is new: deploying what is active already changes nothing.

        Raises:
            NotFound: Component, version or ring is unknown in this workspace.
        """
        require_not_execution(principal, Action.DEPLOY, org_id, workspace_id)
        now = self._clock.now()

        def operation(tx: Transaction) -> tuple[Deployment, bool]:
            component = _component(tx, org_id, workspace_id, component_id)
            ring = tx.catalog.find_ring(org_id, workspace_id, ring_id)
            if ring is None:
                raise errors.NotFound(f"ring {ring_id!r} not found")
            chosen = tx.catalog.find_version(component.id, version)
            if chosen is None:
                raise errors.NotFound(f"version {version!r} of {component.kind.value} {component.slug!r} not found")
            before = tx.catalog.active_deployment(component.id, ring.id)
            after = place(tx, component, chosen, ring, now, self._entropy)
            return after, before is None or before.id != after.id

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
    ) -> Page:
        """A page of deployments, newest first."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> Page:
            check_workspace(tx, org_id, workspace_id)
            return tx.catalog.list_deployments(org_id, workspace_id, component_id, ring_id, cursor, limit)

        return await self._store.read(operation)

    async def get_deployment(
        self, principal: Principal, org_id: str, workspace_id: str, deployment_id: str
    ) -> Deployment:
        """Raises NotFound when there is none in this workspace."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)
        found = await self._store.read(lambda tx: tx.catalog.find_deployment(org_id, workspace_id, deployment_id))
        if found is None:
            raise errors.NotFound(f"deployment {deployment_id!r} not found")
        return found


def require_not_execution(principal: Principal, action: Action, org_id: str, workspace_id: str) -> None:
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


def _component(tx: Transaction, org_id: str, workspace_id: str, id_or_slug: str) -> Component:
    found = [
        component for kind in Kind if (component := tx.catalog.find_component(org_id, workspace_id, kind, id_or_slug))
    ]
    if not found:
        raise errors.NotFound(f"component {id_or_slug!r} not found")
    if len(found) > 1:
        kinds = " and a ".join(component.kind.value for component in found)
        raise errors.InvalidInput(
            f"component_id {id_or_slug!r} is the slug of a {kinds}: expected an id",
            details=[{"field": "component_id", "message": "expected an id"}],
        )
    return found[0]

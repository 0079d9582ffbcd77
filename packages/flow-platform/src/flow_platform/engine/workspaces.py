"""Workspaces of an organization: what is reached, and new ones."""

from __future__ import annotations

from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock, Entropy, new_id, system_entropy
from flow_platform.domain.principal import Action, Principal
from flow_platform.engine.first_start import ensure_rings
from flow_platform.engine.releases import require_not_execution
from flow_platform.store.base import Store, Transaction, Workspace

MAX_WORKSPACES: Final = 1_000
"""Of an organization: fairness between them is decided anew for each grant, and one answer lists them all."""


class Workspaces:
    def __init__(self, store: Store, clock: Clock, entropy: Entropy = system_entropy) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy

    async def list(self, principal: Principal, org_id: str) -> list[Workspace]:
        """Those that the principal reaches, oldest first.

        Raises:
            NotFound: Another organization's.
        """
        require_not_execution(principal, Action.READ, org_id, None)
        return await self._store.read(lambda tx: reached(tx, principal, MAX_WORKSPACES))

    async def create(self, principal: Principal, org_id: str, name: str) -> Workspace:
        """Makes a workspace, with the rings that every one has.

        Raises:
            NotFound: Another organization's.
            Forbidden: The asking one is no admin of the whole organization.
            Conflict: `workspace_exists`, or `too_many_workspaces`.
        """
        require_creation(principal, org_id)

        def operation(tx: Transaction) -> Workspace:
            now = self._clock.now()
            made = Workspace(org_id, new_id(now, self._entropy), name)
            tx.tenancy.lock_organization(org_id)  # Of two that make the same name, the second sees the first one's.
            existing = tx.tenancy.list_workspaces(org_id, MAX_WORKSPACES)
            if any(other.name == name for other in existing):
                raise errors.Conflict(
                    f"workspace {name!r} exists in this organization: expected another name",
                    code="workspace_exists",
                    details=[{"field": "name", "message": f"{name!r} is taken"}],
                )
            if len(existing) >= MAX_WORKSPACES:
                raise errors.Conflict(
                    f"the organization has {len(existing)} workspaces: expected at most {MAX_WORKSPACES}",
                    code="too_many_workspaces",
                )
            tx.tenancy.insert_workspace(made, now)
            ensure_rings(tx, made, now, self._entropy)
            return made

        return await self._store.write(operation)


def require_creation(principal: Principal, org_id: str) -> None:
    """Raises Forbidden for all but admins of the whole organization."""
    require_not_execution(principal, Action.ADMINISTER, org_id, None)
    if principal.workspace_id is not None:
        raise errors.Forbidden("the token is for one workspace: expected one for the whole organization")


def reached(tx: Transaction, principal: Principal, limit: int) -> list[Workspace]:
    """The workspaces that a principal may name."""
    if principal.workspace_id is None:
        return tx.tenancy.list_workspaces(principal.org_id, limit)
    found = tx.tenancy.find_workspace(principal.org_id, principal.workspace_id)
    return [found] if found is not None else []

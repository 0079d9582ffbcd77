"""Variables of organizations and workspaces. Those of a ring are its own; a container sees all three, merged."""

from __future__ import annotations

from flow_platform.domain import errors
from flow_platform.domain.principal import Action, Principal
from flow_platform.engine.releases import check_workspace, require_not_execution
from flow_platform.store.base import Store, Transaction


class Variables:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, principal: Principal, org_id: str, workspace_id: str | None) -> dict[str, str]:
        """Those of the workspace, or of the organization itself.

        Raises:
            NotFound: Another tenant's.
            Forbidden: Values may be confidential: who may not deploy does not read them.
        """
        _require(principal, Action.DEPLOY, org_id, workspace_id)

        def operation(tx: Transaction) -> dict[str, str]:
            if workspace_id is not None:
                check_workspace(tx, org_id, workspace_id)
            return tx.tenancy.variables(org_id, workspace_id)

        return await self._store.read(operation)

    async def replace(
        self, principal: Principal, org_id: str, workspace_id: str | None, env: dict[str, str]
    ) -> dict[str, str]:
        """Replaces all. Attempts that start from now on see them.

        Raises:
            Forbidden: Only an admin may; of an organization only one whose token is for all of it.
        """
        _require(principal, Action.ADMINISTER, org_id, workspace_id)
        if not await self._store.write(lambda tx: tx.tenancy.set_variables(org_id, workspace_id, env)):
            raise errors.NotFound("not found")
        return env


def _require(principal: Principal, action: Action, org_id: str, workspace_id: str | None) -> None:
    require_not_execution(principal, action, org_id, workspace_id)
    if workspace_id is None and principal.workspace_id is not None and action is Action.ADMINISTER:
        raise errors.Forbidden("the token is for one workspace: expected one for the whole organization")

"""Budgets of workspaces: refusing what would begin, and warning before.

`admit` runs inside the transaction that accepts an execution: it reads what is committed, and what it refuses was
never accepted. What was accepted before, and the model calls on their way, run to their ends; so the most that is
spent over a limit is what those cost.
"""

from __future__ import annotations

from datetime import datetime

from flow_platform.domain import errors
from flow_platform.domain.budget import Budget, Standing
from flow_platform.domain.clock import Clock
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.engine.releases import check_workspace
from flow_platform.store.base import Store, Transaction


def admit(tx: Transaction, org_id: str, workspace_id: str, now: datetime) -> Standing | None:
    """Called for each new execution that somebody, or something that runs, asks for.

    Returns:
        None: there is no budget.

    Raises:
        BudgetExhausted: It is used up.
    """
    standing = tx.budgets.standing(org_id, workspace_id, now)
    if standing is not None:
        standing.require(workspace_id)
    return standing


class Budgets:
    """Reads and sets budgets, and remembers which workspaces are to be warned."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._warned: dict[tuple[str, str], str] = {}

    async def get(self, principal: Principal, org_id: str, workspace_id: str) -> Standing | None:
        """Raises:
        NotFound: The organization has no such workspace.
        Forbidden: An execution asks.
        """
        principal.require(Action.READ, org_id, workspace_id)
        if principal.role is Role.EXECUTION:
            raise errors.Forbidden("an execution reads no budget")

        def operation(tx: Transaction) -> Standing | None:
            check_workspace(tx, org_id, workspace_id)
            return tx.budgets.standing(org_id, workspace_id, self._clock.now())

        return await self._store.read(operation)

    async def set(self, principal: Principal, org_id: str, workspace_id: str, budget: Budget | None) -> Standing | None:
        """Replaces the budget; None takes it away.

        Raises:
            NotFound: The organization has no such workspace.
            Forbidden: The role does not administer.
        """
        principal.require(Action.ADMINISTER, org_id, workspace_id)
        now = self._clock.now()

        def operation(tx: Transaction) -> Standing | None:
            check_workspace(tx, org_id, workspace_id)
            if budget is None:
                tx.budgets.delete(org_id, workspace_id)
            else:
                tx.budgets.save(org_id, workspace_id, budget, principal.subject, now)
            return tx.budgets.standing(org_id, workspace_id, now)

        standing = await self._store.write(operation)
        self.notice(org_id, workspace_id, standing)
        return standing

    def notice(self, org_id: str, workspace_id: str, standing: Standing | None) -> None:
        """Remembers how a workspace stood when it was last looked at."""
        warnings = standing.warnings if standing else []
        if warnings:
            self._warned[org_id, workspace_id] = "; ".join(map(str, warnings))
        else:
            self._warned.pop((org_id, workspace_id), None)

    def warning(self, org_id: str, workspace_id: str) -> str | None:
        """What submits are answered with beside their result; None when there is nothing to warn of."""
        return self._warned.get((org_id, workspace_id))

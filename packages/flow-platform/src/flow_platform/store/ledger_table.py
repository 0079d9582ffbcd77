"""The ports to the ledger and to budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from flow_platform.domain.budget import Budget, Standing
from flow_platform.domain.execution import Execution
from flow_platform.domain.ledger import Entry

By = Literal["component", "workspace", "day", "model"]


@dataclass(frozen=True)
class Cost:
    """Micro-credits of an execution itself, and with all below it; None: not asked for."""

    own: int
    total: int | None


@dataclass(frozen=True)
class UsageRow:
    """What one component, workspace, day or model used.

    Attributes:
        key: Id of a component or workspace, a day as `2026-11-22`, or `provider/model`; empty for what has none.
        name: Slug of the component or name of the workspace, for people.
        entries: Attempts and model calls.
    """

    key: str
    name: str
    entries: int
    cpu_us: int
    memory_kib_ms: int
    prompt_tokens: int
    completion_tokens: int
    micro_credits: int


class LedgerTable(Protocol):
    """Entries are only ever added. The database itself refuses to change or delete one."""

    def append(self, entry: Entry) -> bool:
        """Adds an entry, and to what its workspace has spent, if that has a budget; False when it was there before."""
        ...

    def cost(self, execution: Execution) -> Cost: ...

    def own_costs(self, executions: Sequence[Execution]) -> dict[str, int]:
        """Micro-credits of those that cost something, by id."""
        ...

    def own_costs_of_tree(self, tree_id: str) -> dict[str, int]:
        """The same, of all executions of a tree."""
        ...

    def costs_with_all_below(self, tree_id: str) -> dict[str, int]:
        """Micro-credits of each execution of a tree with all that is below it."""
        ...

    def below(self, execution_id: str, limit: int) -> list[Execution]:
        """The execution and those below it, each behind its parent; the upper ones, where there are more."""
        ...

    def entries(self, tree_id: str, node_id: str, limit: int) -> list[Entry]:
        """Of one transaction, in the order of their time."""
        ...

    def named(self, org_id: str, workspace_id: str | None, transaction_id: str, limit: int) -> Named:
        """What was started from outside and named that transaction as its parent.

        Args:
            workspace_id: Only what is in it; None: the whole organization.
        """
        ...

    def usage(
        self, org_id: str, workspace_id: str | None, by: By, since: datetime, until: datetime, limit: int
    ) -> list[UsageRow]:
        """What was recorded from `since` on and before `until`; days in their order, others by cost, largest first."""
        ...


@dataclass(frozen=True)
class Named:
    """Attributes:
    executions, calls: The first of them, oldest first.
    total: Micro-credits of all, with all that is below.
    """

    executions: Sequence[Execution]
    calls: Sequence[Entry]
    total: int


class BudgetTable(Protocol):
    def standing(self, org_id: str, workspace_id: str, now: datetime) -> Standing | None:
        """None for a workspace without a budget. One statement: it runs for each submit."""
        ...

    def save(self, org_id: str, workspace_id: str, budget: Budget, by: str, now: datetime) -> None:
        """Sets the budget. What was spent so far, counts; nothing that is recorded at this moment is missed."""
        ...

    def delete(self, org_id: str, workspace_id: str) -> None: ...

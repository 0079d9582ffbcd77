"""Policies in a store without an engine, and turns taken as an engine takes them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from flow_platform.domain import execution as domain
from flow_platform.domain.execution import Execution
from flow_platform.domain.policy import Policy
from flow_platform.engine.turns import Turns
from flow_platform.store.base import Transaction
from flow_platform.store.policy_table import StoredPolicy


def set_policies(tx: Transaction, workspace_id: str, policies: Sequence[Policy], at: datetime) -> None:
    """Replaces all of a workspace."""
    for stored in tx.policies.of_workspace("org", workspace_id):
        tx.policies.delete("org", workspace_id, stored.policy.component_id, stored.policy.ring_id)
    for policy in policies:
        tx.policies.save("org", workspace_id, StoredPolicy(policy, at, "a test"))
    tx.policies.revise(workspace_id, at, limit_starts=any(policy.limits_starts for policy in policies))


def start_next(
    tx: Transaction, turns: Turns, slots: int, now: datetime, runner: str = "runner"
) -> tuple[list[Execution], datetime | None]:
    """Leases to a runner what has its turn; also when to look again."""
    turn = turns.next(tx, slots, now)
    started = []
    for execution in turn.executions:
        after = domain.apply(execution, domain.AttemptStarted(now, runner, "one", now + timedelta(minutes=10)))
        tx.executions.update(execution, after)
        started.append(after)
    return started, turn.look_again_at

"""How a new execution stands in the queue: its priority, and the keys that it is counted by."""

from __future__ import annotations

from datetime import datetime, timedelta

from flow_platform.domain.execution import Execution
from flow_platform.domain.limits import AGING
from flow_platform.domain.policy import Policy, key_key
from flow_platform.engine.submission import Submission
from flow_platform.store.base import Transaction


def priority_of(
    submission: Submission, policy: Policy, parent: Execution | None, start_at: datetime | None, now: datetime
) -> int:
    """What is asked for, what its policy adds, and what it inherits.

    Of a parent that is: its priority, with what it gained by waiting, and one more. So children come before further
    parents, however long these wait: those would wait for children, too, and fill the runners with waiting. And a start
    that was delayed for a day is not a day ahead of the others.
    """
    delay = start_at - now if start_at else timedelta()
    return submission.priority + _added(policy, parent, delay, now)


def limit_keys_of(submission: Submission, component_id: str, ring_id: str) -> tuple[str, ...]:
    """Kept whether a policy counts by it now or not: one that is made later holds for what is queued, too."""
    key = submission.concurrency_key
    return () if key is None else (key_key(component_id, ring_id, key),)


def asked_for(tx: Transaction, old: Execution) -> tuple[int, str | None]:
    """The priority and the concurrency key that an execution was once submitted with, for one that repeats it."""
    parent = tx.executions.find(old.parent_id) if old.parent_id else None
    policy = tx.policies.last_seen(old.workspace_id).for_execution(old.component_id, old.ring_id)
    delay = old.deadline_at - timedelta(seconds=old.timeout_seconds) - old.created_at
    key = old.limit_keys[0].split(":", 2)[2] if old.limit_keys else None
    return old.priority - _added(policy, parent, delay, old.created_at), key


def _added(policy: Policy, parent: Execution | None, delay: timedelta, made_at: datetime) -> int:
    inherited = parent.priority + (made_at - parent.created_at) // AGING + 1 if parent else 0
    return (policy.priority or 0) + inherited - delay // AGING

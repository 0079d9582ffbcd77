"""What a queued execution is held back by, as a reader sees it. Nothing is written: it is worked out when asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from flow_platform.domain.execution import Execution
from flow_platform.domain.limits import Candidate, Limits, Usage, choose
from flow_platform.domain.policy import LimitSet, workspace_key
from flow_platform.engine.turns import count_running
from flow_platform.store.base import Transaction
from flow_sdk.wire.execution import WaitingOn
from flow_sdk.wire.status import Status


@dataclass(frozen=True)
class Held:
    """One that is ready, and the limit that does not let it start."""

    execution: Execution
    keys: tuple[str, ...]


def held_back(tx: Transaction, executions: Iterable[Execution], now: datetime) -> dict[str, WaitingOn]:
    """By id, those of the executions that a limit holds back now. Without policies nothing is read."""
    limits = LimitSet()
    limited: list[Held] = []
    for execution in executions:
        if execution.status is not Status.QUEUED or (execution.available_at or now) > now:
            continue
        policies = tx.policies.last_seen(execution.workspace_id)
        keys = limits.keys(
            policies, execution.workspace_id, execution.component_id, execution.ring_id, execution.limit_keys
        )
        if keys:
            limited.append(Held(execution, keys))
    if not limited:
        return {}
    running = count_running(tx.executions.running_counts())
    usage = Usage(running, tx.policies.buckets(sorted(limits.limits.rates)))
    found: dict[str, WaitingOn] = {}
    for held in limited:
        one = Candidate(held.execution.id, held.execution.workspace_id, held.execution.created_at, 0, held.keys)
        blocked = choose([one], usage, limits.limits, 1, now).blocked.get(one.id)
        if blocked is not None:
            message = _message(held.execution, blocked.key, blocked.reason, limits.limits, running)
            until = blocked.until or held.execution.deadline_at
            found[one.id] = WaitingOn(reason=blocked.reason, until=until, message=message)
    return found


def _message(execution: Execution, key: str, reason: str, limits: Limits, running: dict[str, int]) -> str:
    component = f"{execution.kind.value} {execution.component_slug!r} in its ring"
    if reason == "rate":
        rate = limits.rates[key]
        return f"Waits for the rate of {component}: {rate.count} starts in {rate.period.total_seconds():g} s"
    if key == workspace_key(execution.workspace_id):
        limit, of = "concurrency", "its workspace"
    elif key in execution.limit_keys:
        limit, of = "concurrency_per_key", f"{component}, for the key {key.split(':', 2)[2]!r}"
    else:
        limit, of = "concurrency", component
    return f"Waits for another one to end: {limit} {limits.concurrency[key]} of {of}, {running.get(key, 0)} running"

"""What a queued execution is held back by, as a reader sees it: a limit, or that no runner offers its isolation.

Nothing is written: it is worked out when asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from flow_platform.domain.execution import Execution
from flow_platform.domain.limits import Candidate, Limits, Usage, choose
from flow_platform.domain.policy import LimitSet, workspace_key
from flow_platform.engine.turns import count_running
from flow_platform.store.base import Transaction
from flow_sdk.wire.execution import WaitingOn
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.status import Status

RUNNER_SEEN_WITHIN: Final = timedelta(seconds=10)  # Three heartbeats, as long as a lease.


@dataclass(frozen=True)
class Held:
    """One that is ready, and the limit that does not let it start."""

    execution: Execution
    keys: tuple[str, ...]


def held_back(tx: Transaction, executions: Iterable[Execution], now: datetime) -> dict[str, WaitingOn]:
    """By id, those of the executions that a limit or the lack of runners holds back now."""
    ready = [one for one in executions if one.status is Status.QUEUED and (one.available_at or now) <= now]
    if not ready:
        return {}
    offered = tx.runners.offered(now - RUNNER_SEEN_WITHIN)
    limits = LimitSet()
    limited: list[Held] = []
    found: dict[str, WaitingOn] = {}
    for execution in ready:
        if offered and execution.isolation not in offered:
            found[execution.id] = _nobody_offers(execution, offered)
            continue
        policies = tx.policies.last_seen(execution.workspace_id)
        keys = limits.keys(
            policies, execution.workspace_id, execution.component_id, execution.ring_id, execution.limit_keys
        )
        if keys:
            limited.append(Held(execution, keys))
    if not limited:
        return found
    running = count_running(tx.executions.running_counts())
    usage = Usage(running, tx.policies.buckets(sorted(limits.limits.rates)))
    for held in limited:
        one = Candidate(held.execution.id, held.execution.workspace_id, held.execution.created_at, 0, held.keys)
        blocked = choose([one], usage, limits.limits, 1, now).blocked.get(one.id)
        if blocked is not None:
            message = _message(held.execution, blocked.key, blocked.reason, limits.limits, running)
            until = blocked.until or held.execution.deadline_at
            found[one.id] = WaitingOn(reason=blocked.reason, until=until, message=message)
    return found


def _nobody_offers(execution: Execution, offered: frozenset[Isolation]) -> WaitingOn:
    known = ", ".join(sorted(offered))
    message = (
        f"No runner offers isolation {execution.isolation.value!r}, only {known}; "
        f"start one with: FLOW_ISOLATIONS={execution.isolation.value} flow runner"
    )
    return WaitingOn(reason="isolation", until=execution.deadline_at, message=message)


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

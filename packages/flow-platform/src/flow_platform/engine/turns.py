"""Whose turn it is: the queued executions that start next, inside the transaction that starts them.

Usually one workspace has work and nothing is limited: then the queue's own order is the answer, in one statement.
Else each workspace comes with the heads of its lanes, so that neither another's flood nor its own blocked one hides
anything, and `domain.limits` chooses among them.

What a workspace with limits may start is decided by one engine at a time, which holds the workspace's lock until its
commit: it sees every lease that is given, so a limit is never exceeded. Nobody waits for that lock. An engine that does
not get it looks again a moment later: a transaction that waited could hold rows that the other one wants.

What runs is counted from the leases themselves, each time. The rates' buckets are rows of the same transaction. Only
the clocks of the turns between workspaces are this process's own: lost, they begin anew at the same line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from flow_platform.domain import rate_limit
from flow_platform.domain.execution import Execution
from flow_platform.domain.limits import Candidate, Choice, Limits, Usage, choose
from flow_platform.domain.policy import LimitSet, Policies, component_key, workspace_key
from flow_platform.domain.rate_limit import TOKEN, Bucket
from flow_platform.store.base import Transaction
from flow_platform.store.queue_table import RunningCount, parse_lane

MATURE_BATCH: Final = 500  # Delayed executions made ready in one transaction: a few milliseconds.
MAX_WORKSPACES: Final = 500  # Looked at in one decision; the next one begins behind them.
MAX_LANES: Final = 200  # Of one workspace, likewise.
MAX_LOOKS: Final = 20  # Pages of lanes, when most of them are blocked.
MAX_CHOICES: Final = 3  # When others took what was chosen.
CONTENDED: Final = timedelta(milliseconds=5)  # Longer than most transactions of another engine.
_END_OF_COMPONENT: Final = "\\"  # Sorts behind the "[" that its keys begin with.


@dataclass(frozen=True)
class Turn:
    """Who starts, in this order, not leased yet.

    Attributes:
        look_again_at: When more may start by itself: a delayed one, a rate, another engine's lock. None: only when
            something happens.
    """

    executions: Sequence[Execution] = ()
    look_again_at: datetime | None = None


@dataclass
class _Found:
    """What one decision is made from."""

    limits: LimitSet = field(default_factory=LimitSet)
    candidates: list[Candidate] = field(default_factory=list[Candidate])
    running: dict[str, int] = field(default_factory=dict[str, int])
    buckets: dict[str, Bucket] = field(default_factory=dict[str, Bucket])
    workspace_of: dict[str, str] = field(default_factory=dict[str, str])  # Per key with a rate.
    until: list[datetime] = field(default_factory=list[datetime])


class Turns:
    """Takes turns. Used in the store's thread only."""

    def __init__(self) -> None:
        self._usage = Usage()
        self._behind_workspace = ""
        self._behind_lane: dict[str, str] = {}

    def next(self, tx: Transaction, slots: int, now: datetime) -> Turn:
        """Decides who takes up to that many slots."""
        survey = tx.executions.survey()
        if survey.available_at is not None and survey.available_at <= now:
            tx.executions.mature(now, MATURE_BATCH)
            survey = tx.executions.survey()
        if survey.first_workspace is None:
            return Turn((), survey.available_at)
        if survey.first_workspace == survey.last_workspace and not survey.has_limits:
            return Turn(tx.executions.acquire(now, slots), survey.available_at)
        return self._choose(tx, slots, now, survey.available_at)

    def _choose(self, tx: Transaction, slots: int, now: datetime, available_at: datetime | None) -> Turn:
        workspaces = self._workspaces(tx)
        limited = sorted(workspace for workspace, revision in workspaces.items() if revision is not None)
        if not limited and len(workspaces) == 1:
            return Turn(tx.executions.acquire(now, slots), available_at)
        found = _Found()
        if available_at is not None:
            found.until.append(available_at)
        locked = tx.policies.lock(limited)
        if limited:
            found.running = count_running(tx.executions.running_counts())
        for workspace, revision in workspaces.items():
            if revision is None:
                self._gather(tx, workspace, Policies(), found, slots, now)
            elif workspace in locked:
                self._gather(tx, workspace, tx.policies.at(workspace, locked[workspace]), found, slots, now)
            else:
                found.until.append(now + CONTENDED)
        return self._take(tx, found, slots, now)

    def _workspaces(self, tx: Transaction) -> dict[str, int | None]:
        """In turns, when there are more than one decision looks at."""
        found = tx.executions.waiting_workspaces(self._behind_workspace, MAX_WORKSPACES)
        if self._behind_workspace and len(found) < MAX_WORKSPACES:
            found.update(tx.executions.waiting_workspaces("", MAX_WORKSPACES - len(found)))
        self._behind_workspace = next(reversed(found)) if len(found) >= MAX_WORKSPACES else ""
        return found

    def _gather(
        self, tx: Transaction, workspace_id: str, policies: Policies, found: _Found, slots: int, now: datetime
    ) -> None:
        """Adds the workspace's candidates: of each lane as many as could start, of a blocked one the first.

        The first of a blocked lane takes part, for it may be one for whom a place is kept.
        """
        found.limits.add_workspace(workspace_id, policies)
        wanted: dict[str, int] = {}
        keys_of: dict[str, tuple[str, ...]] = {}
        for lane in self._lanes(tx, workspace_id, policies, found, now):
            component_id, ring_id, own = parse_lane(lane)
            keys_of[lane] = found.limits.keys(policies, workspace_id, component_id, ring_id, own)
            wanted[lane] = max(1, min(slots, room(keys_of[lane], found.limits.limits, found.running)))
        for head in tx.executions.heads(workspace_id, wanted, now):
            found.candidates.append(
                Candidate(head.id, workspace_id, head.created_at, head.priority, keys_of[head.lane])
            )

    def _lanes(self, tx: Transaction, workspace_id: str, policies: Policies, found: _Found, now: datetime) -> list[str]:
        """In turns, when there are more; of a component that is blocked as a whole just one."""
        start = after = self._behind_lane.get(workspace_id, "")
        has_wrapped = not start
        lanes: dict[str, None] = {}
        for _ in range(MAX_LOOKS):
            page = tx.executions.lanes(workspace_id, after, MAX_LANES)
            for lane in page:
                component_id, ring_id, _ = parse_lane(lane)
                end_of_component = f"{component_id}@{ring_id or ''}{_END_OF_COMPONENT}"
                if after == end_of_component and lane < after:
                    continue
                lanes[lane] = None
                after = lane
                if self._is_blocked(tx, workspace_id, component_id, ring_id, policies, found, now):
                    after = end_of_component
            if len(lanes) >= MAX_LANES:
                self._behind_lane[workspace_id] = after
                return list(lanes)
            if len(page) < MAX_LANES:
                if has_wrapped:
                    break
                after, has_wrapped = "", True
        self._behind_lane.pop(workspace_id, None)
        return list(lanes)

    def _is_blocked(
        self,
        tx: Transaction,
        workspace_id: str,
        component_id: str,
        ring_id: str | None,
        policies: Policies,
        found: _Found,
        now: datetime,
    ) -> bool:
        """Whether nothing of the component starts in the ring; reads its rate's bucket on the way."""
        keys = found.limits.keys(policies, workspace_id, component_id, ring_id)
        rate = found.limits.limits.rates.get(component_key(component_id, ring_id)) if keys else None
        if rate is not None:
            key = component_key(component_id, ring_id)
            if key not in found.workspace_of:
                found.workspace_of[key] = workspace_id
                found.buckets.update(tx.policies.buckets([key]))
            bucket = found.buckets.get(key)
            if bucket is not None and rate_limit.filled(rate, bucket, now).level < TOKEN:
                return True
        return room(keys, found.limits.limits, found.running) <= 0

    def _take(self, tx: Transaction, found: _Found, slots: int, now: datetime) -> Turn:
        """Chooses, and locks what was chosen. What another process took meanwhile is left out of a second choice."""
        candidates = found.candidates
        usage = Usage(found.running, found.buckets, self._usage.clocks, self._usage.clock)
        for _ in range(MAX_CHOICES):
            choice = choose(candidates, usage, found.limits.limits, slots, now)
            executions = tx.executions.lock_ready(choice.start, now)
            if len(executions) == len(choice.start):
                return self._settle(tx, found, choice, executions)
            got = {execution.id for execution in executions}
            gone = {execution_id for execution_id in choice.start if execution_id not in got}
            candidates = [candidate for candidate in candidates if candidate.id not in gone]
        return Turn((), now + CONTENDED)

    def _settle(self, tx: Transaction, found: _Found, choice: Choice, executions: Sequence[Execution]) -> Turn:
        self._usage = choice.usage
        changed: dict[str, dict[str, Bucket]] = {}
        for key, bucket in choice.usage.buckets.items():
            if bucket != found.buckets.get(key):
                changed.setdefault(found.workspace_of[key], {})[key] = bucket
        for workspace_id, buckets in changed.items():
            tx.policies.save_buckets(workspace_id, buckets)
        until = [*found.until, *(blocked.until for blocked in choice.blocked.values() if blocked.until)]
        return Turn(executions, min(until, default=None))


def count_running(counts: Sequence[RunningCount]) -> dict[str, int]:
    """How many run, by every key that there may be a limit for."""
    running: dict[str, int] = {}
    for one in counts:
        keys = (*one.limit_keys, component_key(one.component_id, one.ring_id), workspace_key(one.workspace_id))
        for key in keys:
            running[key] = running.get(key, 0) + one.count
    return running


def room(keys: Sequence[str], limits: Limits, running: Mapping[str, int]) -> int:
    """How many more may run at the same time; a large number when nothing is limited."""
    limited = [limits.concurrency[key] - running.get(key, 0) for key in keys if key in limits.concurrency]
    return min(limited, default=1 << 30)

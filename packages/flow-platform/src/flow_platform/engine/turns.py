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
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from flow_platform.domain import rate_limit
from flow_platform.domain.execution import Execution
from flow_platform.domain.limits import Candidate, Choice, Limits, Usage, choose
from flow_platform.domain.policy import LimitSet, Policies, component_key, workspace_key
from flow_platform.domain.rate_limit import TOKEN, Bucket
from flow_platform.store.base import Transaction
from flow_platform.store.queue_table import RunningCount, parse_lane
from flow_sdk.wire.isolation import DEFAULT, Isolation

MATURE_BATCH: Final = 500  # Delayed executions made ready in one transaction: a few milliseconds.
PAGE: Final = 200  # Workspaces, and lanes of each, that are looked at together; further ones while slots are left.
MAX_ROUNDS: Final = 20  # Pages in one decision; the next one begins behind them.
MAX_CHOICES: Final = 3  # When others took what was chosen.
CONTENDED: Final = timedelta(milliseconds=5)  # Longer than most transactions of another engine.
UNSEEN: Final = timedelta(milliseconds=100)  # Until what one decision did not come to is looked at.
_END_OF_COMPONENT: Final = ";"  # Sorts behind the ":" that its isolations begin with.


@dataclass(frozen=True)
class Turn:
    """Who starts, in this order, not leased yet.

    Attributes:
        look_again_at: When more may start by itself: a delayed one, a rate, another engine's lock. None: only when
            something happens.
    """

    executions: Sequence[Execution] = ()
    look_again_at: datetime | None = None


class Turns:
    """Takes turns. Used in the store's thread only."""

    def __init__(self) -> None:
        self._usage = Usage()
        self._last_workspace = ""  # Where the last decision stopped, when it did not come around.
        self._last_lanes: dict[str, str] = {}

    def next(self, tx: Transaction, slots: int, now: datetime, isolations: Sequence[Isolation] = (DEFAULT,)) -> Turn:
        """Decides who takes up to that many slots, of those that run in one of these isolations."""
        if slots <= 0:
            return Turn()
        survey = tx.executions.survey()
        if survey.available_at is not None and survey.available_at <= now:
            tx.executions.mature(now, MATURE_BATCH)
            survey = tx.executions.survey()
        if survey.first_workspace is None:
            return Turn((), survey.available_at)
        if survey.first_workspace == survey.last_workspace and not survey.has_limits:
            return Turn(tx.executions.acquire(now, slots, isolations), survey.available_at)
        return self._decide(tx, slots, now, survey.available_at, isolations)

    def _decide(
        self,
        tx: Transaction,
        slots: int,
        now: datetime,
        available_at: datetime | None,
        isolations: Sequence[Isolation],
    ) -> Turn:
        workspaces = _Circle(self._last_workspace)
        found = _Found(tx, slots, now, isolations, until=[available_at] if available_at else [])
        choice = Choice((), self._usage, {})
        for number in range(MAX_ROUNDS):
            if not workspaces.is_done:
                page = tx.executions.waiting_workspaces(workspaces.after, PAGE)
                workspaces.pass_page(list(page), PAGE)
                is_only_one = number == 0 and workspaces.is_done and len(page) == 1
                if is_only_one and not any(page.values()):
                    return Turn(tx.executions.acquire(now, slots, isolations), available_at)
                found.add_workspaces(page, self._last_lanes)
            found.add_lanes()
            choice = found.choose(self._usage)
            if len(choice.start) >= slots or (workspaces.is_done and found.is_complete):
                break
        else:
            found.until.append(now + UNSEEN)
        self._last_workspace = workspaces.stopped_at
        self._last_lanes.update((each, lanes.stopped_at) for each, lanes in found.lanes.items())
        self._last_lanes = {each: lane for each, lane in self._last_lanes.items() if lane}
        return self._take(tx, found, choice)

    def _take(self, tx: Transaction, found: _Found, choice: Choice) -> Turn:
        """Locks what was chosen. What another process took meanwhile is left out of another choice."""
        for _ in range(MAX_CHOICES):
            executions = tx.executions.lock_ready(choice.start, found.now)
            if len(executions) == len(choice.start):
                self._usage = choice.usage
                found.save_buckets(choice.usage.buckets)
                until = [*found.until, *(blocked.until for blocked in choice.blocked.values() if blocked.until)]
                return Turn(executions, min(until, default=None))
            got = {execution.id for execution in executions}
            found.leave_out({execution_id for execution_id in choice.start if execution_id not in got})
            choice = found.choose(self._usage)
        return Turn((), found.now + CONTENDED)


class _Circle:
    """A way once around values in order, page by page, from behind where the way before stopped."""

    def __init__(self, start: str) -> None:
        self._start = start
        self._is_behind_start = bool(start)
        self.after = start
        self.is_done = False

    @property
    def stopped_at(self) -> str:
        """Empty when it came around."""
        return "" if self.is_done else self.after

    def pass_page(self, page: Sequence[str], size: int) -> None:
        if page:
            self.after = max(self.after, page[-1])
        if len(page) >= size:
            self.is_done = not self._is_behind_start and bool(self._start) and self.after >= self._start
        elif self._is_behind_start:
            self.after, self._is_behind_start = "", False
        else:
            self.is_done = True


class _Found:
    """What one decision is made from, gathered as far as it needs."""

    def __init__(
        self, tx: Transaction, slots: int, now: datetime, isolations: Sequence[Isolation], until: list[datetime]
    ) -> None:
        self._tx = tx
        self._isolations = isolations
        self._slots = slots
        self.now = now
        self.until = until
        self.lanes: dict[str, _Circle] = {}  # Per workspace.
        self._policies: dict[str, Policies] = {}
        self._limits = LimitSet()
        self._running: dict[str, int] = {}
        self._buckets: dict[str, Bucket] = {}
        self._workspace_of: dict[str, str] = {}  # Per key with a rate.
        self._keys_of: dict[tuple[str, str], tuple[str, ...]] = {}  # Per workspace and lane.
        self._candidates: list[Candidate] = []

    @property
    def is_complete(self) -> bool:
        return all(circle.is_done for circle in self.lanes.values())

    def add_workspaces(self, revisions: Mapping[str, int | None], last_lanes: Mapping[str, str]) -> None:
        """Takes the workspaces in that are free or could be locked."""
        new = {each: revision for each, revision in revisions.items() if each not in self._policies}
        limited = sorted(each for each, revision in new.items() if revision is not None)
        locked = self._tx.policies.lock(limited)
        if limited:
            # Anew on each page, after its locks: what others started before these is seen, and counts.
            self._running = count_running(self._tx.executions.running_counts())
        for each in new:
            is_limited = new[each] is not None
            if is_limited and each not in locked:
                self.until.append(self.now + CONTENDED)
                continue
            self._policies[each] = self._tx.policies.at(each, locked[each]) if is_limited else Policies()
            self._limits.add_workspace(each, self._policies[each])
            self.lanes[each] = _Circle(last_lanes.get(each, ""))

    def add_lanes(self) -> None:
        """Goes on by a page of lanes in each workspace.

        Of each lane come as many candidates as could start, of a blocked one the first: for whoever needs several keys
        at once, places are kept in those that come free.
        """
        for workspace_id, circle in self.lanes.items():
            if circle.is_done:
                continue
            page = self._tx.executions.lanes(workspace_id, circle.after, PAGE)
            wanted = self._wanted(workspace_id, circle, page)
            circle.pass_page(page, PAGE)
            for head in self._tx.executions.heads(workspace_id, wanted, self.now):
                keys = self._keys_of[workspace_id, head.lane]
                self._candidates.append(Candidate(head.id, workspace_id, head.created_at, head.priority, keys))

    def _wanted(self, workspace_id: str, circle: _Circle, page: Sequence[str]) -> dict[str, int]:
        """How many of each lane; of a component that is blocked as a whole just one of the first."""
        policies = self._policies[workspace_id]
        wanted: dict[str, int] = {}
        for lane in page:
            if (workspace_id, lane) in self._keys_of or lane < circle.after:
                continue
            component_id, ring_id, isolation, own = parse_lane(lane)
            if isolation not in self._isolations:
                continue  # Others' work.
            keys = self._limits.keys(policies, workspace_id, component_id, ring_id, own)
            self._keys_of[workspace_id, lane] = keys
            wanted[lane] = max(1, min(self._slots, room(keys, self._limits.limits, self._running)))
            if self._is_blocked(workspace_id, component_id, ring_id):
                circle.after = f"{component_id}@{ring_id or ''}{_END_OF_COMPONENT}"
        return wanted

    def _is_blocked(self, workspace_id: str, component_id: str, ring_id: str | None) -> bool:
        """Whether nothing of the component starts in the ring; reads the bucket of its rate on the way."""
        limits = self._limits.limits
        keys = self._limits.keys(self._policies[workspace_id], workspace_id, component_id, ring_id)
        key = component_key(component_id, ring_id)
        rate = limits.rates.get(key) if key in keys else None
        if rate is not None:
            if key not in self._workspace_of:
                self._workspace_of[key] = workspace_id
                self._buckets.update(self._tx.policies.buckets([key]))
            bucket = self._buckets.get(key)
            if bucket is not None and rate_limit.filled(rate, bucket, self.now).level < TOKEN:
                return True
        return room(keys, limits, self._running) <= 0

    def choose(self, usage: Usage) -> Choice:
        usage = Usage(self._running, self._buckets, usage.clocks, usage.clock)
        return choose(self._candidates, usage, self._limits.limits, self._slots, self.now)

    def leave_out(self, execution_ids: set[str]) -> None:
        self._candidates = [candidate for candidate in self._candidates if candidate.id not in execution_ids]

    def save_buckets(self, buckets: Mapping[str, Bucket]) -> None:
        for key, bucket in buckets.items():
            if bucket != self._buckets.get(key):
                self._tx.policies.save_buckets(self._workspace_of[key], {key: bucket})


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

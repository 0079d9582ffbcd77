"""Which queued executions may start now: limits by key, priorities, and fairness between workspaces.

A key is any word that limits are set for: a component in a ring, a customer's id. An execution may carry several, and
starts only when every one of them allows it; a key without a limit allows everything.

**Between workspaces** slots are shared by weight (stride scheduling): each start moves its workspace's clock on by
one stride divided by its weight, and the workspace that is furthest behind comes next. A workspace that had nothing
to do, or was held back by its own limits, has saved nothing up; a flood of one delays another by one start at most.

**Within a workspace** the higher priority comes first, then the longer wait. A priority grows by one with each
`AGING` of waiting, so that nothing waits for ever behind a steady stream of something more important.

**Several keys at once** are never free at the same time under load, if others take each as it comes free. So the
longest-waiting execution of that kind, after `PATIENCE`, has a place in each of its keys kept for it. A place that is
kept stands empty meanwhile, so it is kept in turns, each twice as long as the one before: long enough in the end for
whatever runs to have ended, and never all the time when one key stays busy for hours.

Source: Waldspurger and Weihl, "Stride scheduling: deterministic proportional-share resource management" (1995).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from flow_platform.domain import rate_limit
from flow_platform.domain.rate_limit import TOKEN, Bucket, RateLimit

AGING: Final = timedelta(minutes=1)
PATIENCE: Final = timedelta(minutes=1)
STRIDE: Final = 1_000_000
MAX_WEIGHT: Final = 1_000
MAX_PRIORITY: Final = 100
"""That may be asked for, up and down. Bounds how long aging takes: 200 levels, a little more than three hours."""


@dataclass(frozen=True)
class Limits:
    """What is allowed at the moment; may be another at each call.

    Attributes:
        concurrency: Per key, how many run at the same time. 0 stops a key.
        rates: Per key, how many start in a time.
        weights: Per workspace, 1 to `MAX_WEIGHT`; 1 when absent.
    """

    concurrency: Mapping[str, int] = field(default_factory=dict[str, int])
    rates: Mapping[str, RateLimit] = field(default_factory=dict[str, RateLimit])
    weights: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class Usage:
    """What is in use. Whoever calls counts `running` anew from its records; the rest it hands on from call to call.

    Attributes:
        running: Per key.
        buckets: Per key with a rate; a missing one is full.
        clocks: Per workspace, how far ahead it is of `clock`; one that is missing is not ahead.
        clock: Where the workspace stood that was served last.
    """

    running: Mapping[str, int] = field(default_factory=dict[str, int])
    buckets: Mapping[str, Bucket] = field(default_factory=dict[str, Bucket])
    clocks: Mapping[str, int] = field(default_factory=dict[str, int])
    clock: int = 0


@dataclass(frozen=True)
class Candidate:
    """A queued execution.

    Attributes:
        queued_at: Since when it waits.
        priority: May be above what can be asked for: a child's has the waiting of its parent in it.
    """

    id: str
    workspace_id: str
    queued_at: datetime
    priority: int = 0
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Blocked:
    """Why an execution that had its turn does not start.

    Attributes:
        until: When a rate allows it at the earliest; None for concurrency: when another one ends.
    """

    reason: Literal["concurrency", "rate"]
    key: str
    until: datetime | None = None


@dataclass(frozen=True)
class Choice:
    """`start` in this order; `usage` with these running. Who is in neither `start` nor `blocked` waits for a slot."""

    start: tuple[str, ...]
    usage: Usage
    blocked: Mapping[str, Blocked]


def choose(candidates: Iterable[Candidate], usage: Usage, limits: Limits, slots: int, now: datetime) -> Choice:
    """Decides which of the candidates start. Their order does not matter.

    Args:
        slots: How many may start in all.
    """
    return _Chooser(list(candidates), usage, limits, now).run(slots)


class _Chooser:
    """One decision. What is in use only grows in it, so who is blocked once is not looked at again."""

    def __init__(self, candidates: list[Candidate], usage: Usage, limits: Limits, now: datetime) -> None:
        self._limits = limits
        self._now = now
        self._running = dict(usage.running)
        self._buckets = dict(usage.buckets)
        self._clock = usage.clock
        self._clocks = {workspace: at for workspace, at in usage.clocks.items() if at > usage.clock}
        self._places: dict[str, str] = {}  # Per key, for whom.
        self._tokens: dict[str, str] = {}
        self._keep_places(candidates)
        self._queues: dict[str, deque[Candidate]] = {}
        for candidate in sorted(candidates, key=self._rank):
            self._queues.setdefault(candidate.workspace_id, deque()).append(candidate)

    def run(self, slots: int) -> Choice:
        turns = [(self._clocks.get(workspace, self._clock), workspace) for workspace in self._queues]
        heapq.heapify(turns)
        start: list[str] = []
        blocked: dict[str, Blocked] = {}
        while turns and len(start) < slots:
            clock, workspace = heapq.heappop(turns)
            candidate = self._next(self._queues[workspace], blocked)
            if candidate is None:
                continue
            self._take(candidate)
            start.append(candidate.id)
            self._clock = max(self._clock, clock)
            weight = min(max(self._limits.weights.get(workspace, 1), 1), MAX_WEIGHT)
            self._clocks[workspace] = clock + STRIDE // weight
            heapq.heappush(turns, (self._clocks[workspace], workspace))
        ahead = {workspace: at for workspace, at in self._clocks.items() if at > self._clock}
        return Choice(tuple(start), Usage(self._running, self._buckets, ahead, self._clock), blocked)

    def _rank(self, candidate: Candidate) -> tuple[int, datetime, str]:
        waited = max(self._now - candidate.queued_at, timedelta())
        return -(candidate.priority + waited // AGING), candidate.queued_at, candidate.id

    def _keep_places(self, candidates: list[Candidate]) -> None:
        """Keeps a place in each of its keys for the longest-waiting candidates with several; one per key."""
        waiting = [one for one in candidates if len(one.keys) > 1 and self._now - one.queued_at >= PATIENCE]
        for candidate in sorted(waiting, key=lambda one: (one.queued_at, one.id)):
            limited = [key for key in candidate.keys if key in self._limits.concurrency]
            if any(self._limits.concurrency[key] == 0 for key in limited):
                continue
            # Waits of [1, 2), [4, 8), [16, 32)... times the patience.
            turn = ((self._now - candidate.queued_at) // PATIENCE).bit_length()
            if len(limited) > 1 and turn % 2 and not any(key in self._places for key in limited):
                self._places.update(dict.fromkeys(limited, candidate.id))
            rated = [key for key in candidate.keys if key in self._limits.rates]
            # Tokens come back by themselves, so they are kept only for who needs nothing else.
            free = all(self._running.get(key, 0) < self._limits.concurrency[key] for key in limited)
            if len(rated) > 1 and free and not any(key in self._tokens for key in rated):
                self._tokens.update(dict.fromkeys(rated, candidate.id))

    def _next(self, queue: deque[Candidate], blocked: dict[str, Blocked]) -> Candidate | None:
        while queue:
            candidate = queue.popleft()
            reason = self._blocked(candidate)
            if reason is None:
                return candidate
            blocked[candidate.id] = reason
        return None

    def _blocked(self, candidate: Candidate) -> Blocked | None:
        for key in dict.fromkeys(candidate.keys):
            limit = self._limits.concurrency.get(key)
            kept = int(self._places.get(key, candidate.id) != candidate.id)
            if limit is not None and self._running.get(key, 0) + kept >= limit:
                return Blocked("concurrency", key)
            rate = self._limits.rates.get(key)
            if rate is None:
                continue
            bucket = self._bucket(key, rate)
            wanted = 1 + int(self._tokens.get(key, candidate.id) != candidate.id)
            if bucket.level < wanted * TOKEN:
                # With room for one only, what is kept for another is taken by then.
                return Blocked("rate", key, rate_limit.available_at(rate, bucket, min(wanted, rate.burst)))
        return None

    def _bucket(self, key: str, rate: RateLimit) -> Bucket:
        found = self._buckets.get(key)
        return rate_limit.full(rate, self._now) if found is None else rate_limit.filled(rate, found, self._now)

    def _take(self, candidate: Candidate) -> None:
        for key in dict.fromkeys(candidate.keys):
            self._running[key] = self._running.get(key, 0) + 1
            rate = self._limits.rates.get(key)
            if rate is not None:
                taken = rate_limit.take(rate, self._bucket(key, rate), self._now)
                self._buckets[key] = taken or self._bucket(key, rate)
            for kept in (self._places, self._tokens):
                if kept.get(key) == candidate.id:
                    del kept[key]

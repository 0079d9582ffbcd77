"""Limits of calls: requests and tokens per minute, and how many at once, per workspace and pattern of models.

Tokens are known when a call has ended. So a call is let in while its bucket holds any, and what it used is taken
afterwards, which may leave a debt that the next callers wait for: over time the rate holds exactly.

Counted in this process; what other servers' calls used is taken by `elsewhere`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from flow_platform.domain import errors, rate_limit
from flow_platform.domain.clock import Clock
from flow_platform.domain.rate_limit import TOKEN, Bucket, RateLimit
from flow_platform.gateway.providers import LimitRule

MINUTE: Final = timedelta(minutes=1)
MAX_REMEMBERED: Final = 20_000  # Counters; the one that was idle longest is forgotten, which only lets more in.
BUSY_RETRY_SECONDS: Final = 1.0

Key = tuple[str, str, str, str]


@dataclass
class _Counter:
    requests: Bucket | None = None
    tokens: Bucket | None = None
    running: int = 0


@dataclass(frozen=True)
class Ticket:
    """The right to one call, until it is given back."""

    held: tuple[tuple[LimitRule, _Counter], ...]


class Limits:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counters: OrderedDict[Key, _Counter] = OrderedDict()

    def enter(self, org_id: str, workspace_id: str, model: str, rules: Iterable[LimitRule]) -> Ticket:
        """Lets one call in, or changes nothing.

        Raises:
            RateLimited: `model_limit`, naming the limit.
        """
        now = self._clock.now()
        held = tuple(
            (rule, self._counter((org_id, workspace_id, rule.scope, rule.pattern)))
            for rule in rules
            if rule.fits(model)
        )
        taken = [self._check(rule, counter, now) for rule, counter in held]
        for (_, counter), bucket in zip(held, taken, strict=True):
            counter.requests = bucket
            counter.running += 1
        return Ticket(held)

    def leave(self, ticket: Ticket, tokens: int) -> None:
        """Gives it back, and takes what the call used."""
        now = self._clock.now()
        for rule, counter in ticket.held:
            counter.running -= 1
            if rule.limit.tokens_per_minute is not None:
                counter.tokens = _less(_filled(rule.limit.tokens_per_minute, counter.tokens, now), tokens)

    def take(self, org_id: str, workspace_id: str, model: str, rules: Iterable[LimitRule], tokens: int) -> None:
        """Takes a call that somebody else let in, which may leave a debt."""
        now = self._clock.now()
        for rule in rules:
            if not rule.fits(model):
                continue
            counter, limit = self._counter((org_id, workspace_id, rule.scope, rule.pattern)), rule.limit
            if limit.requests_per_minute is not None:
                counter.requests = _less(_filled(limit.requests_per_minute, counter.requests, now), 1)
            if limit.tokens_per_minute is not None:
                counter.tokens = _less(_filled(limit.tokens_per_minute, counter.tokens, now), tokens)

    def _check(self, rule: LimitRule, counter: _Counter, now: datetime) -> Bucket | None:
        """The bucket of requests after this one."""
        limit = rule.limit
        if limit.concurrent is not None and counter.running >= limit.concurrent:
            raise _limited(rule, f"{limit.concurrent} calls at once", BUSY_RETRY_SECONDS)
        if limit.tokens_per_minute is not None:
            rate = _per_minute(limit.tokens_per_minute)
            counter.tokens = _filled(limit.tokens_per_minute, counter.tokens, now)
            if counter.tokens.level < TOKEN:
                raise _limited(rule, f"{limit.tokens_per_minute} tokens per minute", _wait(rate, counter.tokens, now))
        if limit.requests_per_minute is None:
            return counter.requests
        rate = _per_minute(limit.requests_per_minute)
        before = counter.requests or rate_limit.full(rate, now)
        after = rate_limit.take(rate, before, now)
        if after is None:
            ready = rate_limit.filled(rate, before, now)
            raise _limited(rule, f"{limit.requests_per_minute} requests per minute", _wait(rate, ready, now))
        return after

    def _counter(self, key: Key) -> _Counter:
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = _Counter()
            if len(self._counters) > MAX_REMEMBERED:
                self._counters.popitem(last=False)
        self._counters.move_to_end(key)
        return counter


def _per_minute(count: int) -> RateLimit:
    return RateLimit(count, MINUTE, burst=count)


def _filled(count: int, bucket: Bucket | None, now: datetime) -> Bucket:
    rate = _per_minute(count)
    return rate_limit.filled(rate, bucket or rate_limit.full(rate, now), now)


def _less(bucket: Bucket, tokens: int) -> Bucket:
    return Bucket(bucket.level - tokens * TOKEN, bucket.at)


def _wait(rate: RateLimit, bucket: Bucket, now: datetime) -> float:
    at = rate_limit.available_at(rate, bucket)
    return max(0.0, (at - now).total_seconds()) if at else MINUTE.total_seconds()


def _limited(rule: LimitRule, what: str, seconds: float) -> errors.RateLimited:
    return errors.RateLimited(
        f"the {rule.scope}'s limit {rule.pattern!r} of {what} is reached: expected {seconds:.1f} seconds of waiting",
        retry_after=seconds,
        code="model_limit",
    )

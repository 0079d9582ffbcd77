"""Rate limits: a token bucket, computed from the clock that is passed in; nothing ticks.

A bucket fills evenly up to `burst`, and each start takes one token. So in any span of time at most `burst` plus the
span's share of `count` start. All arithmetic is in whole nano-tokens and rounds down: a limit is never exceeded, not
by a billionth. The level does not depend on the limit, which may be edited at any time.

Source: the token bucket of ITU-T I.371 (the same limit as its GCRA).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from flow_platform.domain import errors

MAX_COUNT: Final = 1_000_000
MAX_PERIOD: Final = timedelta(days=31)

TOKEN: Final = 10**9
"""Nano-tokens of one start."""

_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class RateLimit:
    """`count` starts in each `period`, of which `burst` may come at once."""

    count: int
    period: timedelta = timedelta(seconds=1)
    burst: int = 1


@dataclass(frozen=True)
class Bucket:
    """What is left of a limit at an instant. `level` is in nano-tokens."""

    level: int
    at: datetime


def full(limit: RateLimit, now: datetime) -> Bucket:
    """A bucket that nobody took from."""
    return Bucket(limit.burst * TOKEN, now)


def filled(limit: RateLimit, bucket: Bucket, now: datetime) -> Bucket:
    """The bucket as it is now. A clock that went back fills nothing, and takes nothing away."""
    if now <= bucket.at:
        return Bucket(min(bucket.level, limit.burst * TOKEN), bucket.at)
    gained = limit.count * TOKEN * ((now - bucket.at) // _MICROSECOND) // (limit.period // _MICROSECOND)
    return Bucket(min(bucket.level + gained, limit.burst * TOKEN), now)


def take(limit: RateLimit, bucket: Bucket, now: datetime, tokens: int = 1) -> Bucket | None:
    """The bucket after that many starts; None when it does not hold enough, which changes nothing."""
    ready = filled(limit, bucket, now)
    if ready.level < tokens * TOKEN:
        return None
    return Bucket(ready.level - tokens * TOKEN, ready.at)


def available_at(limit: RateLimit, bucket: Bucket, tokens: int = 1) -> datetime | None:
    """From when on `take` gives something if nobody takes before; None when never, because it is above the burst."""
    if tokens > limit.burst:
        return None
    missing = max(0, tokens * TOKEN - bucket.level)
    return bucket.at + _MICROSECOND * -(-missing * (limit.period // _MICROSECOND) // (limit.count * TOKEN))


def check_rate_limit(limit: RateLimit) -> RateLimit:
    """Returns the limit.

    Raises:
        InvalidInput: A field is out of bounds.
    """
    bounds = {
        "count": (1 <= limit.count <= MAX_COUNT, f"1 to {MAX_COUNT}"),
        "period": (timedelta(milliseconds=1) <= limit.period <= MAX_PERIOD, f"1 millisecond to {MAX_PERIOD}"),
        "burst": (1 <= limit.burst <= MAX_COUNT, f"1 to {MAX_COUNT}"),
    }
    for field, (is_within, expected) in bounds.items():
        if not is_within:
            value = str(getattr(limit, field))
            raise errors.InvalidInput(
                f"rate.{field} {value!r} is not valid: expected {expected}",
                details=[{"field": f"rate.{field}", "message": f"expected {expected}, got {value!r}"}],
            )
    return limit

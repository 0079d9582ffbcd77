"""Time and randomness come in as arguments. Source: docs/architecture.md, rule 9."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

Entropy = Callable[[int], bytes]
"""Gives that many random bytes."""


class Clock(Protocol):
    def now(self) -> datetime:
        """The current instant, aware, in UTC."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.fromtimestamp(time.time(), UTC)  # noqa: TID251 - the one place that reads the wall clock.


class ManualClock:
    """A clock for tests: stands still until told otherwise."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> None:
        self._now += by


def system_entropy(size: int) -> bytes:
    return secrets.token_bytes(size)


def seeded_entropy(seed: int) -> Entropy:
    """The same bytes for the same seed, for tests."""
    source = random.Random(seed)  # noqa: S311 - never used for secrets.
    return source.randbytes


def new_id(now: datetime, entropy: Entropy = system_entropy) -> str:
    """Makes a UUID version 7: ids sort by the time they were made. Source: RFC 9562, section 5.7."""
    milliseconds = int(now.timestamp() * 1000)
    noise = int.from_bytes(entropy(10), "big")
    value = (
        (milliseconds & (1 << 48) - 1) << 80
        | 0x7 << 76
        | (noise >> 62 & 0xFFF) << 64
        | 0b10 << 62
        | noise & (1 << 62) - 1
    )
    return str(UUID(int=value))

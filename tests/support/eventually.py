"""Waiting in tests: a condition with a deadline, never a bare sleep."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    probe: Callable[[], Awaitable[T]], accept: Callable[[T], bool], timeout_seconds: float = 60.0
) -> T:
    """Calls `probe` until `accept` likes its value; fails with the last value."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + timeout_seconds
    while True:
        value = await probe()
        if accept(value):
            return value
        if loop.time() > ends:
            raise AssertionError(f"not within {timeout_seconds} s; the last value was {value!r}")
        await asyncio.sleep(0.01)

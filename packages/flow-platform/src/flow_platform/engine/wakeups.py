"""Who waits for what, inside one process; other engines are told over NATS.

No hot path polls: whoever waits subscribes first, then looks at the store, then waits. A wake-up says only "look
again", so a lost one costs time (the waiter looks again by itself after a while), never an answer.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Final

WORK: Final = "work"
"""Key that runners' claims wait on: something was queued, or a slot became free."""


class Waiter:
    """One subscription; `wait` returns when a key it subscribed to was notified since the last `wait`."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    async def wait(self, timeout_seconds: float) -> bool:
        """True when woken, False when the time is over first."""
        try:
            async with asyncio.timeout(max(0.0, timeout_seconds)):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Wakeups:
    """The registry. Not thread-safe: used on the event loop only.

    Args:
        publish: Tells the other engines; called with the keys, must not block. None: there are no others.
    """

    def __init__(self, publish: Callable[[list[str]], None] | None = None) -> None:
        self._waiters: defaultdict[str, set[Waiter]] = defaultdict(set)
        self._publish = publish

    @contextmanager
    def subscribe(self, *keys: str) -> Generator[Waiter]:
        waiter = Waiter()
        for key in keys:
            self._waiters[key].add(waiter)
        try:
            yield waiter
        finally:
            for key in keys:
                self._waiters[key].discard(waiter)
                if not self._waiters[key]:
                    del self._waiters[key]

    def notify(self, keys: Iterable[str]) -> None:
        """Wakes the waiters of the keys here and in the other engines."""
        listed = list(keys)
        self.notify_local(listed)
        self.notify_others(listed)

    def notify_others(self, keys: list[str]) -> None:
        if self._publish and keys:
            self._publish(keys)

    def notify_local(self, keys: Iterable[str]) -> None:
        for key in keys:
            for waiter in self._waiters.get(key, ()):
                waiter.wake()

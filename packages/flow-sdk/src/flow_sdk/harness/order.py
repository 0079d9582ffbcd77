"""Gives a workflow that runs again the ends of its calls in the order in which they came.

Code that takes what comes first (`asyncio.wait`, `as_completed`, a race against `sleep`) goes on with that. When it
runs again, all that ended before is answered at once, and the answers may overtake each other. So they are held back
until the code can do nothing without them; then it is given the one that ended first, and so on.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import datetime
from typing import Final

from flow_sdk import activity

PATIENCE_SECONDS: Final = 5.0
"""Code that never comes to rest, because it always has something to compute, is given what there is after so long."""

_Held = tuple[datetime, int, asyncio.Future[None]]


class EndsInOrder:
    """Of one event loop.

    Args:
        is_busy: Whether a task is about to run.
    """

    def __init__(self, loop: asyncio.SelectorEventLoop, is_busy: Callable[[], bool]) -> None:
        self._loop = loop
        self._is_busy = is_busy
        self._held: list[_Held] = []
        self._number = itertools.count()
        self._next_look: asyncio.Handle | None = None
        self._patience: asyncio.TimerHandle | None = None

    async def __call__(self, ended_at: datetime) -> None:
        """Returns when it is the turn of what ended then."""
        if asyncio.get_running_loop() is not self._loop:
            return  # Another thread's code, that this loop knows nothing of.
        turn: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._held, (ended_at, next(self._number), turn))
        if self._patience is None:
            # Not through the loop's own `call_at`: it is nothing that the component waits for.
            until = self._loop.time() + PATIENCE_SECONDS
            self._patience = asyncio.SelectorEventLoop.call_at(self._loop, until, self._give_all)
        self.look()
        await turn

    def look(self) -> None:
        """Looks soon whether the code has come to rest."""
        if self._held and self._next_look is None:
            self._next_look = self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._next_look = None
        if activity.CURRENT.asking:
            return  # Until that is answered.
        if not self._is_busy():
            self._give_first()
        self.look()

    def _give_first(self) -> None:
        given = False
        while self._held and not given:
            _, _, turn = heapq.heappop(self._held)
            given = not turn.done()  # Else its caller was cancelled.
            if given:
                turn.set_result(None)
        if not self._held and self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_all(self) -> None:
        self._patience = None
        while self._held:
            self._give_first()

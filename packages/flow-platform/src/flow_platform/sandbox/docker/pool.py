"""Sealed containers that wait for work: of one image and environment, for whatever workspace."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.docker.container import DockerContainer

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 2  # Made at the same time, to refill: as many as there are cores on a small machine.
_FIRST_PAUSE_SECONDS: Final = 0.5  # Before the next try when none could be made; doubled each time.
_TRIES: Final = 6  # Then the next one is made when it is asked for.


class Pool:
    """The containers of one kind.

    Args:
        make: A new sealed container.
        size: How many wait; 0: each is made when it is asked for.
    """

    def __init__(self, make: Callable[[], Awaitable[DockerContainer]], *, size: int) -> None:
        self._make = make
        self._size = size
        self._waiting: deque[DockerContainer] = deque()
        self._filling = 0
        self._failures = 0
        self._out: set[DockerContainer] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self.used_at = time.monotonic()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """No container is out in use."""
        return not any(container.is_alive for container in self._out)

    def warm(self) -> None:
        """Begins to fill, in the background."""
        self.used_at = time.monotonic()
        self._failures = 0
        self._refill()

    async def acquire(self) -> DockerContainer:
        """The one that waits longest, or a new one."""
        self.used_at = time.monotonic()
        container = await self._from_waiting() or await self._make()
        self._out = {one for one in self._out if not one.is_freed} | {container}
        self._failures = 0
        self._refill()
        return container

    def on_ended(self, container: DockerContainer) -> None:
        """Another one takes the place of a waiting one that somebody killed, or that the engine took along."""
        if container in self._waiting:
            self._waiting.remove(container)
            self._run(container.wait())  # Frees what it holds.
            self._refill()

    async def close(self) -> None:
        self._is_closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        containers = [*self._waiting, *self._out]
        self._waiting.clear()
        await asyncio.gather(*(container.end() for container in containers))

    async def _from_waiting(self) -> DockerContainer | None:
        while self._waiting:
            container = self._waiting.popleft()
            if container.is_alive:
                return container
            await container.wait()  # Somebody killed it, or the engine was stopped.
        return None

    def _refill(self) -> None:
        while (
            not self._is_closed
            and self._failures < _TRIES
            and self._filling < min(_AT_ONCE, self._size - len(self._waiting))
        ):
            self._filling += 1
            self._run(self._fill_one())

    async def _fill_one(self) -> None:
        try:
            if self._failures:
                await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2 ** (self._failures - 1))
            self._waiting.append(await self._make())
            self._failures = 0
        except SandboxUnavailable as exc:
            self._failures += 1
            logger.warning("a waiting container could not be made", extra={"reason": exc.message})
        finally:
            self._filling -= 1
        self._refill()

    def _run(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

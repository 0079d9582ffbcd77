"""One tenant's template on the host's side, and its sealed containers that wait for work."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.base import API_PORT, NATS_PORT, PROXY_PORT
from flow_platform.sandbox.namespaces.container import NamespacesContainer, Surroundings
from flow_platform.sandbox.namespaces.identity import Identity
from flow_platform.sandbox.namespaces.jail_process import JailProcess

logger = logging.getLogger(__name__)

START_SECONDS: Final = 60.0  # A template takes 0.3 s on an idle machine, one of agents 3 s.
_REFILL_PAUSE_SECONDS: Final = 0.003  # Work that has just come goes first.
_REFILL_AT_ONCE: Final = 2  # As many as there are cores on a small machine.
_SWEEP_AT: Final = 256  # Handed-out containers remembered before the ended ones are forgotten.
_TRIES: Final = 3
_RETRY_SECONDS: Final = 0.05
_PORTS: Final = (API_PORT, NATS_PORT)
_PORTS_WITH_PROXY: Final = (API_PORT, NATS_PORT, PROXY_PORT)

_numbers = itertools.count(1)

MakeContainer = Callable[[int, Sequence[int], Surroundings, Callable[[NamespacesContainer], None]], NamespacesContainer]
"""The host's end of a container about to be made: its number, ports, what is around, and who is told of its end."""


class Template:
    """A running template process."""

    def __init__(
        self,
        jail: JailProcess,
        surroundings: Surroundings,
        identity: Identity,
        make_container: MakeContainer = NamespacesContainer,
    ) -> None:
        self._jail = jail
        self._around = surroundings
        self._identity = identity
        self._make_container = make_container
        self._containers: dict[int, NamespacesContainer] = {}
        self._users: dict[int, int | None] = {}  # Container -> its user id.
        self._made_at = time.monotonic()
        self._made = 0
        self.is_lost = False
        surroundings.loop.add_reader(jail.control.fileno(), self._on_message)

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self._made_at

    @property
    def made(self) -> int:
        return self._made

    def has(self, container: NamespacesContainer) -> bool:
        return container.number in self._containers

    async def wait_idle(self) -> None:
        """Until its last container has ended."""
        for container in list(self._containers.values()):
            await container.wait()

    async def make(self, *, proxy: bool = False) -> NamespacesContainer:
        """A new sealed container, with a listener for its way out where it shall have one."""
        if self.is_lost:
            raise SandboxUnavailable("the template has ended")
        number = next(_numbers)
        ports = _PORTS_WITH_PROXY if proxy else _PORTS
        user = self._users[number] = self._identity.take_user()
        container = self._make_container(number, ports, self._around, self._forget)
        self._containers[number] = container
        self._made += 1
        try:
            request = {"new": number, "user": user, "ports": ports}
            self._jail.send(request, container.take_their_ends())
        except SandboxUnavailable:
            container.close_their_ends()
            container.on_lost()
            await container.wait()
            raise
        container.close_their_ends()
        try:
            await container.wait_sealed()
        except BaseException:
            await container.end()
            raise
        return container

    async def close(self) -> None:
        """Ends the template with all its containers."""
        if not self.is_lost:
            self._around.loop.remove_reader(self._jail.control.fileno())
            self.is_lost = True
        await self._jail.close()
        for container in list(self._containers.values()):
            container.on_lost()
            await container.wait()

    def _on_message(self) -> None:
        while True:
            try:
                message = self._jail.control.recv(4096)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                message = b""
            if not message:
                self._on_lost()
                return
            report: dict[str, Any] = json.loads(message)
            container = self._containers.get(report["exit"])
            if container is not None:
                container.on_exit(report)

    def _on_lost(self) -> None:
        logger.error("a template ended unexpectedly", extra={"last_words": self._jail.last_words()})
        self._around.loop.remove_reader(self._jail.control.fileno())
        self.is_lost = True
        for container in list(self._containers.values()):
            container.on_lost()

    def _forget(self, container: NamespacesContainer) -> None:
        self._containers.pop(container.number, None)
        self._identity.give_back(self._users.pop(container.number, None))


class _Shelf:
    """The waiting containers of one kind, and how many more are being made."""

    def __init__(self, *, proxy: bool) -> None:
        self.proxy = proxy
        self.waiting: deque[NamespacesContainer] = deque()
        self.filling = 0

    @property
    def stock(self) -> int:
        return len(self.waiting) + self.filling


class Pool:
    """The containers of one spec. Renews its template by age and by the number of its forks.

    Those with a way out wait on a shelf of their own, which is filled once one was asked for.

    All forks of a template share its memory layout and hash seed; a renewed one has new ones.
    """

    def __init__(
        self,
        start_template: Callable[[], Awaitable[Template]],
        *,
        size: int,
        max_age_seconds: float,
        max_forks: int,
    ) -> None:
        self._start_template = start_template
        self._size = size
        self._max_age_seconds = max_age_seconds
        self._max_forks = max_forks
        self._template: Template | None = None
        self._starting: asyncio.Task[Template] | None = None
        self._live: list[Template] = []  # With those that only wait for their last container.
        self._shelves: dict[bool, _Shelf] = {}  # By whether they have a way out.
        self._out: set[NamespacesContainer] = set()
        self._cold = 0
        self._refill_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self.used_at = time.monotonic()

    @property
    def waiting(self) -> int:
        return sum(len(shelf.waiting) for shelf in self._shelves.values())

    @property
    def is_idle(self) -> bool:
        """No container is out in use."""
        self._out = {container for container in self._out if container.is_alive}
        return not self._out and not self._cold

    async def warm(self, *, proxy: bool = False) -> None:
        self._shelf(proxy)
        await self._current()
        self._schedule_refill()

    async def acquire(self, *, proxy: bool = False) -> NamespacesContainer:
        """The container of that kind that waits longest, or a new one."""
        self.used_at = time.monotonic()
        waiting = self._shelf(proxy).waiting
        while waiting:
            container = waiting.popleft()
            if container.is_alive:
                self._schedule_refill()
                return self._hand_out(container)
            await container.wait()
        self._cold += 1
        try:
            return self._hand_out(await self._make_cold(proxy=proxy))
        finally:
            self._cold -= 1
            self._schedule_refill()

    def _shelf(self, proxy: bool) -> _Shelf:
        shelf = self._shelves.get(proxy)
        if shelf is None:
            shelf = self._shelves[proxy] = _Shelf(proxy=proxy)
        return shelf

    def _hand_out(self, container: NamespacesContainer) -> NamespacesContainer:
        self._out.add(container)
        if len(self._out) > _SWEEP_AT:
            self._out = {container for container in self._out if container.is_alive}
        return container

    async def _make_cold(self, *, proxy: bool) -> NamespacesContainer:
        for _ in range(_TRIES - 1):
            template = await self._current()
            try:
                return await template.make(proxy=proxy)
            except SandboxUnavailable:
                # Its template may have died under it, which shows a moment later; the next one starts afresh.
                await asyncio.sleep(_RETRY_SECONDS)
        return await (await self._current()).make(proxy=proxy)

    async def close(self) -> None:
        self._is_closed = True
        if self._refill_timer is not None:
            self._refill_timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        for template in list(self._live):
            await self._close_template(template)
        self._template = None
        for shelf in list(self._shelves.values()):
            while shelf.waiting:  # Those whose template died before, too.
                await shelf.waiting.popleft().end()

    async def _current(self) -> Template:
        """The template that serves; starts one when there is none. Several callers share one start."""
        template = self._template
        if template is not None and not template.is_lost:
            return template
        if template is not None:
            self._template = None
            self._run(self._close_template(template))
        fresh = await asyncio.shield(self._start())
        self._template = fresh
        return fresh

    def _start(self) -> asyncio.Task[Template]:
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start_one())
            self._starting.add_done_callback(self._on_started)
        return self._starting

    async def _start_one(self) -> Template:
        template = await self._start_template()
        self._live.append(template)
        return template

    def _on_started(self, starting: asyncio.Task[Template]) -> None:
        self._starting = None
        if not starting.cancelled():
            starting.exception()  # Whoever waits for it raises it; nobody may be waiting any more.

    async def _close_template(self, template: Template) -> None:
        await template.close()
        # Only now, so that a cancelled close is done again.
        if template in self._live:
            self._live.remove(template)

    def _schedule_refill(self) -> None:
        if self._is_closed or self._refill_timer is not None:
            return
        shelf = self._emptiest()
        if shelf is None:
            return
        loop = asyncio.get_running_loop()
        # Below the low-water mark at once, else when the work that has just come has had its start.
        pause = 0.0 if len(shelf.waiting) < max(1, self._size // 4) else _REFILL_PAUSE_SECONDS
        self._refill_timer = loop.call_later(pause, self._refill)

    def _refill(self) -> None:
        self._refill_timer = None
        while not self._is_closed and self._cold == 0 and self._filling < _REFILL_AT_ONCE:
            shelf = self._emptiest()
            if shelf is None:
                return
            shelf.filling += 1
            self._run(self._fill_one(shelf))

    @property
    def _filling(self) -> int:
        return sum(shelf.filling for shelf in self._shelves.values())

    def _emptiest(self) -> _Shelf | None:
        """The shelf that needs a container most; None when all are full."""
        short = [shelf for shelf in self._shelves.values() if shelf.stock < self._size]
        return min(short, key=lambda shelf: shelf.stock, default=None)

    async def _fill_one(self, shelf: _Shelf) -> None:
        try:
            await self._renew_if_old()
            container = await (await self._current()).make(proxy=shelf.proxy)
        except SandboxUnavailable as exc:
            if not self._is_closed:
                logger.warning("a waiting container could not be made", extra={"reason": exc.message})
            return
        finally:
            shelf.filling -= 1
        if self._is_closed:
            await container.end()
            return
        shelf.waiting.append(container)
        self._schedule_refill()

    async def _renew_if_old(self) -> None:
        old = self._template
        if old is None or old.is_lost or self._starting is not None:
            return
        if old.age_seconds < self._max_age_seconds and old.made < self._max_forks:
            return
        self._template = await asyncio.shield(self._start())
        self._run(self._retire(old))

    async def _retire(self, old: Template) -> None:
        """Closes an old template once its last container has ended; its waiting ones are ended now."""
        for shelf in list(self._shelves.values()):
            for container in [container for container in shelf.waiting if old.has(container)]:
                shelf.waiting.remove(container)
                await container.end()
        await old.wait_idle()
        await self._close_template(old)

    def _run(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

"""Sees that a workflow does nothing but wait for the platform, and gives its container back.

A container that only waits for a child, a timer or an event costs memory for nothing: the platform can run the code
again when there is something to go on with (see `flow_sdk.durable`). It is only given back if nothing but the platform
can wake the code: no task is about to run, no timer, socket, thread or request of the component's own is pending. A
deadline that the component set itself (`asyncio.timeout`, a caller's wait budget below the child's) is such a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import socket
import stat
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, cast
from urllib.parse import urlsplit

from flow_sdk import activity, calling
from flow_sdk.ahead import Ahead
from flow_sdk.errors import PlatformClientError
from flow_sdk.harness.failure import Suspended
from flow_sdk.harness.order import EndsInOrder
from flow_sdk.wire.durable import SUSPENDED
from flow_sdk.wire.execution import ErrorDocument

MAX_WAITS: Final = 32
"""A workflow that waits for more keeps its container: each end would run its code again, with all its calls."""

_LOOK_AGAIN_SECONDS: Final = 1.0
_EXECUTOR_THREAD: Final = "asyncio_"  # The prefix of the threads of asyncio's own executor, which stay when idle.


class WatchedLoop(asyncio.SelectorEventLoop):
    """An event loop that knows what the component itself waits for."""

    def __init__(self) -> None:
        super().__init__()
        self._timers: weakref.WeakSet[asyncio.TimerHandle] = weakref.WeakSet()
        self._calls = 0

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = super().call_at(when, callback, *args, context=context)
        if not activity.is_ours():
            self._timers.add(handle)
        return handle

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        future = super().run_in_executor(executor, func, *args)
        if not activity.is_ours():
            self._calls += 1
            future.add_done_callback(self._called)
        return future

    @property
    def is_busy(self) -> bool:
        """Whether a task is about to run."""
        return bool(self._ready)  # type: ignore[attr-defined]

    @property
    def waits_for_others(self) -> bool:
        """Whether something besides the platform can wake a task, or one is about to run."""
        now = self.time()
        return bool(
            self.is_busy
            or self._calls
            or any(not handle.cancelled() and handle.when() > now for handle in self._timers)
            or any(_is_foreign(thread) for thread in threading.enumerate())
            or self._has_foreign_sockets()
        )

    def _called(self, _: object) -> None:
        self._calls -= 1

    def _has_foreign_sockets(self) -> bool:
        wakes_itself = cast("socket.socket", self._ssock).fileno()  # type: ignore[attr-defined]
        watched = cast("selectors.BaseSelector", self._selector).get_map()  # type: ignore[attr-defined]
        platform = _platform_addresses()
        return any(key.fd != wakes_itself and _peer(key.fd) not in platform for key in watched.values())


def run(work: Coroutine[Any, Any, Any], suspend_after_seconds: float) -> Any:
    """Runs a workflow's coroutine to its end, or until it only waits.

    Raises:
        Suspended: It only waits, for so long, and the platform goes on waiting in its place.
    """
    runner = asyncio.Runner(loop_factory=WatchedLoop)
    loop = cast("WatchedLoop", runner.get_loop())
    watch = _Watch(loop, suspend_after_seconds)
    ends = EndsInOrder(loop, lambda: loop.is_busy)
    activity.CURRENT.in_turn, activity.CURRENT.on_answer = ends, ends.look
    # The first attempt may have calls, too: of an execution that it repeats.
    is_expected = True if os.environ.get("ATTEMPT", "1") != "1" else None
    activity.CURRENT.ahead = ahead = Ahead(loop, is_expected=is_expected)
    try:
        returned = runner.run(_settled(watch.over(work), ahead))
    except Suspended:
        # Left as it is: closing would cancel the component's tasks, and run their clean-up in the midst of its work.
        _left.append(runner)
        raise
    except BaseException:
        runner.close()
        raise
    finally:
        activity.CURRENT.on_wait = activity.CURRENT.on_answer = activity.CURRENT.in_turn = None
        activity.CURRENT.ahead = None
    runner.close()
    return returned


async def _settled(work: Coroutine[Any, Any, Any], ahead: Ahead) -> Any:
    """The workflow's own end, whatever it is, behind what there is to say of its calls."""
    try:
        returned = await work
    except Exception:
        await _settle(ahead)
        raise
    await _settle(ahead)
    return returned


async def _settle(ahead: Ahead) -> None:
    """The platform may be away: then it does not know whether a call that it gave ahead was made."""
    with contextlib.suppress(PlatformClientError):
        await ahead.settle((await calling.shared_client()).checkpoints.tell)


_left: Final[list[asyncio.Runner]] = []
"""Kept until the process ends, as its tasks would be closed with it."""


class _Watch:
    def __init__(self, loop: WatchedLoop, suspend_after_seconds: float) -> None:
        self._loop = loop
        self._after = suspend_after_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._suspended: asyncio.Future[ErrorDocument] = loop.create_future()
        activity.CURRENT.on_wait = self._arm

    async def over(self, work: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._done)
        try:
            document = await self._suspended
        except asyncio.CancelledError:
            if task.done():
                return task.result()
            task.cancel()
            raise
        raise Suspended(document)

    def _done(self, _: object) -> None:
        self._suspended.cancel()

    def _arm(self) -> None:
        if self._timer is None and self._asking is None:
            self._again(self._after)

    def _again(self, seconds: float) -> None:
        # Not through the loop's own `call_at`: the watch is nothing that the component waits for.
        self._timer = asyncio.SelectorEventLoop.call_at(self._loop, self._loop.time() + seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        current = activity.CURRENT
        if not current.waits:
            return  # The next wait arms it again.
        quiet = time.monotonic() - current.changed_at
        if quiet < self._after:
            self._again(self._after - quiet)
        elif self._only_waits():
            self._asking = self._loop.create_task(self._ask(current.changed_at))
        else:
            self._again(max(self._after, _LOOK_AGAIN_SECONDS))

    def _only_waits(self) -> bool:
        current = activity.CURRENT
        return (
            current.requests == 0
            and len(current.waits) <= MAX_WAITS
            and all(wait.may_suspend for wait in current.waits)
            and not self._loop.waits_for_others
        )

    async def _ask(self, changed_at: float) -> None:
        waits = list(activity.CURRENT.waits)
        try:
            checkpoints = (await calling.shared_client()).checkpoints
            if activity.CURRENT.ahead is not None:
                await activity.CURRENT.ahead.settle(checkpoints.tell)
            may_suspend = await checkpoints.may_suspend(waits)
        except PlatformClientError:
            may_suspend = False
        self._asking = None
        if not may_suspend:
            self._again(max(self._after, _LOOK_AGAIN_SECONDS))
        elif set(waits) == activity.CURRENT.waits and not self._suspended.done():
            details = [{"field": wait.field, "message": wait.id} for wait in waits]
            message = f"gave its container back to wait for {len(waits)} of the platform's things"
            self._suspended.set_result(ErrorDocument(code=SUSPENDED, message=message, details=details))
        else:
            self._again(self._after)


def _is_foreign(thread: threading.Thread) -> bool:
    return thread is not threading.main_thread() and not thread.name.startswith(_EXECUTOR_THREAD)


def _platform_addresses() -> set[tuple[str, int]]:
    urls = (urlsplit(os.environ.get(name, "")) for name in ("PLATFORM_API_URL", "NATS_URL"))
    return {(url.hostname, url.port) for url in urls if url.hostname and url.port}


def _peer(fd: int) -> tuple[str, int] | None:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None
        duplicate = socket.socket(fileno=os.dup(fd))
    except OSError:
        return None
    with duplicate:
        try:
            name = duplicate.getpeername()
        except OSError:
            return None
        return (name[0], name[1]) if isinstance(name, tuple) and len(name) >= 2 else None  # type: ignore[arg-type]

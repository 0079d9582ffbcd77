"""The host's end of one container that an engine made."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.base import PROXY_PORT, Ended, Ending, Usage
from flow_platform.sandbox.docker import creation, exit_status, hardening
from flow_platform.sandbox.docker.engine_api import EngineApi
from flow_platform.sandbox.docker.entrance import Arrived
from flow_platform.sandbox.harness_channel import ConnectedContainer
from flow_platform.sandbox.namespaces import cgroups
from flow_sdk.wire.runner import Limits

_DEFAULT_LIMITS: Final = Limits()
_EVIDENCE_SECONDS: Final = 10.0
_SIGNALLED: Final = 128  # Added by shells and engines to the number of the signal that ended a process.


@dataclass(frozen=True)
class Made:
    """A sealed container as the pool made it.

    Attributes:
        out: Our end of its stdout's pipe; `err`: of its stderr's.
        hardens: Whether the sizes of its file systems can be set from here.
    """

    engine: EngineApi
    id: str
    arrived: Arrived
    out: int
    err: int
    hardens: bool


class DockerContainer(ConnectedContainer):
    """See `flow_platform.sandbox.base.Container`.

    Args:
        forget: Told once, when it has ended: removes it from the engine.
    """

    def __init__(self, made: Made, forget: Callable[[DockerContainer], None]) -> None:
        arrived = made.arrived
        super().__init__(asyncio.get_running_loop(), arrived.channel, made.out, made.err, arrived.listeners)
        self._made = made
        self._forget = forget
        self._group = cgroups.group_of(arrived.process)
        self._pidfd = os.pidfd_open(arrived.process)
        self._exited: asyncio.Future[Ended] = self._loop.create_future()
        self._learning: asyncio.Task[None] | None = None
        self._usage = Usage()
        self._cpu_before = 0.0
        self._killed = False
        self._oom_before_kill = False
        self._too_small = False
        self._closed = False
        self._loop.add_reader(self._pidfd, self._on_exit)

    @property
    def id(self) -> str:
        """The engine's."""
        return self._made.id

    @property
    def process(self) -> int:
        """Its first process, by its number on this machine."""
        return self._made.arrived.process

    @property
    def is_counted(self) -> bool:
        """Whether its limits are set, and what it used is read, without asking the engine."""
        return self._group is not None

    @property
    def is_closed_up(self) -> bool:
        """Whether root closed what the engine leaves open."""
        return self._made.hardens

    @property
    def is_alive(self) -> bool:
        """Asked of the kernel: the event loop may not have heard of its end yet."""
        return self._learning is None and not self._exited.done() and not _has_ended(self._pidfd)

    @property
    def is_freed(self) -> bool:
        """Whether it has ended, and whoever had it knows: nothing of it is open any more."""
        return self._closed

    def close_way_out(self) -> None:
        """For a component that declared no network: nobody listens on that port any more."""
        listener = self._listeners.pop(PROXY_PORT, None)
        if listener is not None:
            listener.close()

    # --- the port ---

    def usage(self) -> Usage:
        if self._group is not None and not self._exited.done():
            with contextlib.suppress(OSError):
                counted = self._group.usage()
                self._usage = replace(counted, cpu_ms=max(0.0, counted.cpu_ms - self._cpu_before))
        return self._usage

    async def end(self, grace_seconds: float = 0.0) -> Ended:
        if not self._exited.done():
            if grace_seconds > 0 and self._started:
                await self._signal(signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(self._exited), grace_seconds)
            if self.is_alive:
                self._oom_before_kill = self._oom_before_kill or self._oom_kills() > 0
                self._killed = True
                await self._signal(signal.SIGKILL)
        return await self.wait()

    async def wait(self) -> Ended:
        try:
            ended = await asyncio.shield(self._exited)
        finally:
            if self._exited.done():
                self._free()
        return ended

    # --- limits ---

    async def _limit(self, limits: Limits) -> bool:
        """False when it needs more memory than it may have."""
        group = self._group
        if group is not None:
            self._cpu_before = self.usage().cpu_ms
        if limits != _DEFAULT_LIMITS:
            try:
                if group is not None:
                    group.limit(limits)
                else:
                    await self._made.engine.update(self.id, creation.resources(limits))
            except OSError as exc:
                if exc.errno != errno.EBUSY:
                    raise
                self._too_small = True  # The kernel cannot bring it below what it holds already.
                await self._signal(signal.SIGKILL)
                return False
        if limits.tmp_bytes != _DEFAULT_LIMITS.tmp_bytes and self._made.hardens:
            with contextlib.suppress(FileNotFoundError):  # It has ended.
                hardening.resize(self._made.arrived.process, limits.tmp_bytes)
        if group is not None:
            with contextlib.suppress(OSError):
                group.forget_peak()
        return True

    # --- ends ---

    def _oom_kills(self) -> int:
        if self._group is not None:
            with contextlib.suppress(OSError):
                return self._group.oom_kills()
        return 0

    async def _signal(self, number: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return
        except PermissionError:  # The engine's processes are another user's.
            with contextlib.suppress(SandboxUnavailable):
                await self._made.engine.kill(self.id, number.name)

    def _on_exit(self) -> None:
        """Process 1 is gone, and the kernel has ended everything in its namespace."""
        self._loop.remove_reader(self._pidfd)
        usage = self.usage()  # Now: the engine removes the group in a moment.
        if self._killed and not self._oom_before_kill:
            self._settle(Ended(Ending.KILLED, None, signal.SIGKILL, usage))
        else:
            self._learning = asyncio.ensure_future(self._learn(usage))

    async def _learn(self, usage: Usage) -> None:
        """How it ended: what the kernel says, else what the engine says."""
        status = exit_status.read(self._pidfd)
        if status is None:  # Not reaped yet, or an older kernel.
            code = None
            with contextlib.suppress(SandboxUnavailable):
                code = await self._made.engine.wait(self.id, _EVIDENCE_SECONDS)
            status = exit_status.read(self._pidfd) or _from_engine(code)
        exit_code, number = status
        if number == signal.SIGKILL and not usage.oom_kills and await self._engine_saw_oom():
            usage = replace(usage, oom_kills=1)
        self._settle(Ended(self._classify(exit_code, number, usage), exit_code, number, usage))

    async def _engine_saw_oom(self) -> bool:
        """It listens for that itself; our look at the counters may have come too late."""
        with contextlib.suppress(SandboxUnavailable, KeyError):
            return bool((await self._made.engine.inspect(self.id))["State"]["OOMKilled"])
        return False

    def _settle(self, ended: Ended) -> None:
        self._usage = ended.usage
        self._exited.set_result(ended)
        self._forget(self)

    def _classify(self, exit_code: int | None, number: int | None, usage: Usage) -> Ending:
        if self._too_small:
            return Ending.OUT_OF_MEMORY
        if not self._started and not self._killed:
            return Ending.START_FAILED
        if exit_code is not None:
            return Ending.EXITED
        if number == signal.SIGSYS:
            return Ending.FORBIDDEN_SYSCALL
        if number != signal.SIGKILL:
            return Ending.CRASHED
        # Process 1 may be in the middle of being OOM-killed when we see its socket close and kill it ourselves.
        if usage.oom_kills and (not self._killed or (self._oom_before_kill and self._frames.is_ended)):
            return Ending.OUT_OF_MEMORY
        return Ending.KILLED if self._killed else Ending.CRASHED

    def _free(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._disconnect()
        os.close(self._pidfd)


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _from_engine(code: int | None) -> tuple[int | None, int | None]:
    """Its exit code says either: a program that exits with 128 and more reads as ended by a signal."""
    if code is None:
        return None, signal.SIGKILL  # Nobody knows; it did not end in peace.
    if _SIGNALLED < code < _SIGNALLED + signal.NSIG:
        return None, code - _SIGNALLED
    return code, None

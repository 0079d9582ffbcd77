"""The host's end of one container."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.base import Ended, Ending, Usage
from flow_platform.sandbox.harness_channel import ConnectedContainer
from flow_platform.sandbox.namespaces import syscalls
from flow_platform.sandbox.namespaces.cgroups import Group
from flow_sdk.wire.runner import Limits

_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(12) + socket.CMSG_SPACE(8 * 4)
_DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True)
class Surroundings:
    """What all containers of a sandbox share.

    Attributes:
        create_group: Makes a cgroup and puts a process into it, in a thread; None where there are no cgroups.
        remove_group: Removes it, in a thread.
        own_users: Whether each container has a user id of its own, so that RLIMIT_NPROC can count for it alone.
    """

    loop: asyncio.AbstractEventLoop
    create_group: Callable[[int], asyncio.Future[Group]] | None
    remove_group: Callable[[Group], object]
    own_users: bool


class NamespacesContainer(ConnectedContainer):
    """See `flow_platform.sandbox.base.Container`. Made by a template, which reports its exit."""

    def __init__(
        self,
        number: int,
        ports: Sequence[int],
        surroundings: Surroundings,
        forget: Callable[[NamespacesContainer], None],
    ) -> None:
        self.number = number
        self._ports = ports
        self._around = surroundings
        self._forget = forget
        channel, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        out, self._their_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        err, self._their_err = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for descriptor in (self._their_out, self._their_err):
            os.set_blocking(descriptor, True)
        self._err = err
        super().__init__(surroundings.loop, channel, out, err, {})
        self._process = 0
        self._pidfd = -1
        self._tmp_settings = -1
        self._group: asyncio.Future[Group] | None = None
        self._sealed: asyncio.Future[None] = self._loop.create_future()
        self._exited: asyncio.Future[Ended] = self._loop.create_future()
        self._last_usage = Usage()
        self._killed = False
        self._oom_before_kill = False
        self._closed = False
        self._loop.add_reader(self._channel.fileno(), self._on_setting_up)

    # --- being made ---

    def take_their_ends(self) -> list[int]:
        """The descriptors for the container: socket, stdout, stderr. `close_their_ends` after they were sent."""
        return [self._theirs.fileno(), self._their_out, self._their_err]

    def close_their_ends(self) -> None:
        self._theirs.close()
        os.close(self._their_out)
        os.close(self._their_err)

    async def wait_sealed(self) -> None:
        """Raises `SandboxUnavailable` with what the container said when it could not be made."""
        await asyncio.shield(self._sealed)

    @property
    def is_alive(self) -> bool:
        return not self._exited.done()

    def _on_setting_up(self) -> None:
        try:
            data, ancillary, _, _ = self._channel.recvmsg(16, _ANCILLARY_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, ancillary = b"", []
        for _, kind, content in ancillary:
            if kind == socket.SCM_RIGHTS:
                self._take_descriptors(content)
            elif kind == socket.SCM_CREDENTIALS and not self._process:
                self._process = struct.unpack("3i", content[:12])[0]
        if data.startswith(b"L") and self._around.create_group is not None:
            self._group = self._around.create_group(self._process)
        if data.endswith(b"R"):
            self._loop.remove_reader(self._channel.fileno())
            self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
            if not self._sealed.done():
                self._sealed.set_result(None)
        elif not data:
            self._loop.remove_reader(self._channel.fileno())
            self._fail("it closed its socket before it was sealed")

    def _take_descriptors(self, content: bytes) -> None:
        received = array.array("i")
        received.frombytes(content[: len(content) - len(content) % received.itemsize])
        self._pidfd, self._tmp_settings, *listeners = received
        for port, descriptor in zip(self._ports, listeners, strict=True):
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
            listener.setblocking(False)
            self._listeners[port] = listener

    def _fail(self, reason: str) -> None:
        if not self._sealed.done():
            said = ""
            with contextlib.suppress(OSError):
                said = os.read(self._err, 65536).decode(errors="replace").strip()
            self._sealed.set_exception(SandboxUnavailable(f"a container could not be made: {reason}: {said[-2000:]}"))
            self._sealed.exception()  # Marks it as seen: nobody may be waiting.

    # --- the port ---

    async def _limit(self, limits: Limits) -> bool:
        if self._group is not None:
            group = await self._group
            if limits != _DEFAULT_LIMITS:
                group.limit(limits)
        else:
            self._limit_by_rlimits(limits)
        if limits.tmp_bytes != _DEFAULT_LIMITS.tmp_bytes:
            syscalls.reconfigure(self._tmp_settings, {"size": str(limits.tmp_bytes)})
        return True

    def usage(self) -> Usage:
        if self._group is not None and self._group.done() and not self._closed:
            with contextlib.suppress(OSError):
                self._last_usage = self._group.result().usage()
        return self._last_usage

    async def end(self, grace_seconds: float = 0.0) -> Ended:
        if not self._exited.done():
            if grace_seconds > 0 and self._started:
                self._signal(signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(self._exited), grace_seconds)
            self._kill()
        return await self.wait()

    async def wait(self) -> Ended:
        try:
            ended = await asyncio.shield(self._exited)
        finally:
            if self._exited.done():
                await self._free()
        return ended

    # --- ends ---

    def _kill(self) -> None:
        if self._exited.done():
            return
        if not self._killed:
            self._oom_before_kill = self._oom_kills() > 0
        self._killed = True
        self._signal(signal.SIGKILL)

    def _oom_kills(self) -> int:
        if self._group is not None and self._group.done():
            with contextlib.suppress(OSError):
                return self._group.result().oom_kills()
        return 0

    def _signal(self, number: int) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
        else:
            self._channel.shutdown(socket.SHUT_RDWR)  # Not far enough to have told its pidfd; it ends by itself.

    def on_exit(self, report: dict[str, Any]) -> None:
        """The template reaped it: the whole pid namespace is gone."""
        code = os.waitstatus_to_exitcode(report["status"])
        if self._group is None:
            self._last_usage = Usage(cpu_ms=report["cpu_ms"], max_rss_bytes=report["max_rss_bytes"])
        self._settle(code if code >= 0 else None, -code if code < 0 else None)

    def on_lost(self) -> None:
        """The template died, and with it everything in its jail."""
        self._settle(None, signal.SIGKILL)

    def _settle(self, exit_code: int | None, signal_number: int | None) -> None:
        if self._exited.done():
            return
        self._fail(f"it ended with exit code {exit_code!r}, signal {signal_number!r}")
        usage = self.usage()
        ending = self._classify(exit_code, signal_number, usage)
        self._exited.set_result(Ended(ending, exit_code, signal_number, usage))
        self._forget(self)

    def _classify(self, exit_code: int | None, signal_number: int | None, usage: Usage) -> Ending:
        if not self._started and not self._killed:
            return Ending.START_FAILED
        if exit_code is not None:
            return Ending.EXITED
        if signal_number == signal.SIGSYS:
            return Ending.FORBIDDEN_SYSCALL
        if signal_number != signal.SIGKILL:
            return Ending.CRASHED
        # Process 1 may be in the middle of being OOM-killed when we see its socket close and kill it ourselves.
        if usage.oom_kills and (not self._killed or (self._oom_before_kill and self._frames.is_ended)):
            return Ending.OUT_OF_MEMORY
        return Ending.KILLED if self._killed else Ending.CRASHED

    async def _free(self) -> None:
        if self._closed:
            return
        self._closed = True
        # Whatever became of it: a descriptor closed under a reader would make the next one of that number deaf.
        self._loop.remove_reader(self._channel.fileno())
        self._disconnect()
        for descriptor in (self._pidfd, self._tmp_settings):
            if descriptor >= 0:
                os.close(descriptor)
        if self._group is not None:
            with contextlib.suppress(OSError):
                self._around.remove_group(await self._group)

    def _limit_by_rlimits(self, limits: Limits) -> None:
        """Weaker than cgroups: memory per process, not per container. `check` says so."""
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(self._process, resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
            resource.prlimit(self._process, resource.RLIMIT_NPROC, (limits.pids, limits.pids))

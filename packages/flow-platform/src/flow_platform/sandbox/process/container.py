"""The runner's end of one plain process that runs a component. It is called a container, and holds nothing back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.base import (
    API_PORT,
    CORE_BYTES,
    NATS_PORT,
    PROXY_PORT,
    Ended,
    Ending,
    OnTheMachine,
    Usage,
    Whereabouts,
)
from flow_platform.sandbox.harness_channel import ConnectedContainer
from flow_platform.sandbox.process.keeper import READY
from flow_platform.sandbox.process.kept_process import KeptProcess
from flow_sdk.wire.runner import Limits

RLIMITS: Final = {"CORE": CORE_BYTES, "NOFILE": 512}
_BACKLOG: Final = 64
_READY_SECONDS: Final = 60.0  # It takes 0.3 s on an idle machine.


class ProcessContainer(ConnectedContainer, OnTheMachine):
    """See `flow_platform.sandbox.base.Container`."""

    def __init__(
        self,
        paths: Sequence[str],
        environ: Mapping[str, str],
        certificates: str,
        forget: Callable[[ProcessContainer], None],
        *,
        proxy: bool,
    ) -> None:
        self._forget = forget
        ports = (API_PORT, NATS_PORT, PROXY_PORT) if proxy else (API_PORT, NATS_PORT)
        listeners = {port: listen() for port in ports}
        self._whereabouts = Whereabouts(
            {port: listener.getsockname()[1] for port, listener in listeners.items()}, certificates
        )
        self._folder = Path(tempfile.mkdtemp(prefix="flow-process-"))
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        out, their_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        err, their_err = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        super().__init__(asyncio.get_running_loop(), channel, out, err, listeners)
        for descriptor in (their_out, their_err):
            os.set_blocking(descriptor, True)
        config = {"harness": theirs.fileno(), "folder": str(self._folder), "rlimits": RLIMITS, "paths": list(paths)}
        own = {"HOME": str(self._folder), "TMPDIR": str(self._folder)}
        try:
            self._process = KeptProcess(
                config, environ={**environ, **own}, out=their_out, err=their_err, pass_fds=(theirs.fileno(),)
            )
        except BaseException:
            self._disconnect()
            raise
        finally:
            theirs.close()
            os.close(their_out)
            os.close(their_err)
        self._killed = False
        self._freeing: asyncio.Task[Ended] | None = None

    @property
    def whereabouts(self) -> Whereabouts:
        return self._whereabouts

    async def wait_ready(self) -> None:
        """Raises `SandboxUnavailable` with what it said when it could not be made."""
        said = b""
        with contextlib.suppress(TimeoutError, OSError):
            said = await asyncio.wait_for(self._loop.sock_recv(self._channel, len(READY)), _READY_SECONDS)
        if said != READY:
            ended = await self.end()
            words = b"".join(chunk.data for chunk in self._logs.drain()).decode(errors="replace").strip()
            raise SandboxUnavailable(f"a process could not be made: {ended.ending.value}: {words[-2000:]}")

    def usage(self) -> Usage:
        exited = self._process.exited
        return exited.result()[1] if exited.done() else Usage()

    async def end(self, grace_seconds: float = 0.0) -> Ended:
        exited = self._process.exited
        if not exited.done():
            if grace_seconds > 0 and self._started:
                self._process.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(exited), grace_seconds)
            if not exited.done():
                self._killed = True
                self._process.kill()
        return await self.wait()

    async def wait(self) -> Ended:
        await asyncio.shield(self._process.exited)
        if self._freeing is None:
            self._freeing = asyncio.create_task(self._free(), name="free-process")
        return await asyncio.shield(self._freeing)

    async def _free(self) -> Ended:
        status, used = self._process.exited.result()
        ended = self._ended(os.waitstatus_to_exitcode(status), used)
        await self._process.free()
        self._disconnect()
        await self._loop.run_in_executor(None, lambda: shutil.rmtree(self._folder, ignore_errors=True))
        self._forget(self)
        return ended

    def _ended(self, code: int, used: Usage) -> Ended:
        number = -code if code < 0 else None
        if not self._started and not self._killed:
            ending = Ending.START_FAILED
        elif number is None:
            ending = Ending.EXITED
        elif number == signal.SIGKILL and self._killed:
            ending = Ending.KILLED
        else:
            ending = Ending.CRASHED
        return Ended(ending, code if code >= 0 else None, number, used)

    async def _limit(self, limits: Limits) -> bool:
        """Of memory and of the size of one file: what the kernel counts per process."""
        bounds = {resource.RLIMIT_DATA: limits.memory_bytes, resource.RLIMIT_FSIZE: limits.tmp_bytes}
        keeper = self._process.pid
        _set_limits(keeper, bounds)  # First: what it forks from now on has them.
        for child in _children(keeper):
            _set_limits(child, bounds)
        return True


def listen() -> socket.socket:
    """On whatever port of loopback is free: all processes of the machine share them."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):  # It has ended meanwhile.
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _set_limits(pid: int, bounds: Mapping[int, int]) -> None:
    for what, most in bounds.items():
        with contextlib.suppress(OSError):  # It has ended meanwhile.
            resource.prlimit(pid, what, (most, most))

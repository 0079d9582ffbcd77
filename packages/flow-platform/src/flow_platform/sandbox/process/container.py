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
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
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
    LogChunk,
    OnTheMachine,
    Usage,
    Whereabouts,
)
from flow_platform.sandbox.namespaces.frames import FrameReader
from flow_platform.sandbox.namespaces.logs import LogReader
from flow_platform.sandbox.process.keeper import READY
from flow_platform.sandbox.process.kept_process import KeptProcess
from flow_sdk.wire.harness import HEADER, Frame
from flow_sdk.wire.runner import Limits

RLIMITS: Final = {"CORE": CORE_BYTES, "NOFILE": 512}
_BACKLOG: Final = 64
_READY_SECONDS: Final = 60.0  # It takes 0.3 s on an idle machine.


class ProcessContainer(OnTheMachine):
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
        self._loop = asyncio.get_running_loop()
        self._forget = forget
        ports = (API_PORT, NATS_PORT, PROXY_PORT) if proxy else (API_PORT, NATS_PORT)
        self._listeners = {port: listen() for port in ports}
        self._whereabouts = Whereabouts(
            {port: listener.getsockname()[1] for port, listener in self._listeners.items()}, certificates
        )
        self._folder = Path(tempfile.mkdtemp(prefix="flow-process-"))
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._channel.setblocking(False)
        out, their_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        err, their_err = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._logs = LogReader(self._loop, out, err)
        self._frames = FrameReader(self._loop, self._channel)
        for descriptor in (their_out, their_err):
            os.set_blocking(descriptor, True)
        config = {"harness": theirs.fileno(), "folder": str(self._folder), "rlimits": RLIMITS, "paths": list(paths)}
        own = {"HOME": str(self._folder), "TMPDIR": str(self._folder)}
        try:
            self._process = KeptProcess(
                config, environ={**environ, **own}, out=their_out, err=their_err, pass_fds=(theirs.fileno(),)
            )
        except BaseException:
            self._logs.close()
            self._close()
            raise
        finally:
            theirs.close()
            os.close(their_out)
            os.close(their_err)
        self._started = False
        self._killed = False
        self._freeing: asyncio.Task[Ended] | None = None

    @property
    def whereabouts(self) -> Whereabouts:
        return self._whereabouts

    @property
    def listeners(self) -> Mapping[int, socket.socket]:
        return self._listeners

    async def wait_ready(self) -> None:
        """Raises `SandboxUnavailable` with what it said when it could not be made."""
        said = b""
        with contextlib.suppress(TimeoutError, OSError):
            said = await asyncio.wait_for(self._loop.sock_recv(self._channel, len(READY)), _READY_SECONDS)
        if said != READY:
            ended = await self.end()
            words = b"".join(chunk.data for chunk in self._logs.drain()).decode(errors="replace").strip()
            raise SandboxUnavailable(f"a process could not be made: {ended.ending.value}: {words[-2000:]}")

    async def start(self, frame: bytes, limits: Limits) -> None:
        if self._started:
            raise RuntimeError("a container is started once")
        self._started = True
        self._limit(limits)
        self._frames.start(limits.events, limits.output_bytes)
        self._logs.start(limits.log_bytes)
        with contextlib.suppress(ConnectionError):  # It died meanwhile: `frames` ends, `wait` says how.
            await self._loop.sock_sendall(self._channel, HEADER.pack(Frame.START, len(frame)) + frame)

    def frames(self) -> AsyncIterator[tuple[Frame, bytes]]:
        return self._frames.frames()

    def logs(self) -> AsyncIterator[LogChunk]:
        return self._logs.chunks(self._dropped_events_line)

    def drain_logs(self) -> list[LogChunk]:
        chunks = self._logs.drain()
        words = self._logs.dropped_line() + self._dropped_events_line()
        return [*chunks, LogChunk("stderr", words.encode())] if words else chunks

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
        self._close()
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

    def _close(self) -> None:
        self._frames.close()
        self._logs.close()
        self._channel.close()
        for listener in self._listeners.values():
            listener.close()

    def _limit(self, limits: Limits) -> None:
        """Of memory and of the size of one file: what the kernel counts per process."""
        bounds = {resource.RLIMIT_DATA: limits.memory_bytes, resource.RLIMIT_FSIZE: limits.tmp_bytes}
        keeper = self._process.pid
        _set_limits(keeper, bounds)  # First: what it forks from now on has them.
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split():
                _set_limits(int(child), bounds)

    def _dropped_events_line(self) -> str:
        if not self._frames.dropped_events:
            return ""
        return f"[flow] {self._frames.dropped_events} more events were dropped: the limit on events was reached\n"


def listen() -> socket.socket:
    """On whatever port of loopback is free: all processes of the machine share them."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _set_limits(pid: int, bounds: Mapping[int, int]) -> None:
    for what, most in bounds.items():
        with contextlib.suppress(OSError):  # It has ended meanwhile.
            resource.prlimit(pid, what, (most, most))

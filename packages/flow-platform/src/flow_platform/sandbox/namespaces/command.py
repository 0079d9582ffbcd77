"""Runs one command of ours on a tenant's files, e.g. a build, in a jail of its own."""

from __future__ import annotations

import array
import asyncio
import itertools
import json
import os
import signal
import socket
import struct
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.base import CORE_BYTES, PROXY_PORT, Command, CommandEnded, Ended, Ending, Usage
from flow_platform.sandbox.command_proxy import serve_proxy
from flow_platform.sandbox.namespaces.cgroups import Group, Groups
from flow_platform.sandbox.namespaces.identity import Identity, command_identity
from flow_platform.sandbox.namespaces.jail_process import JailProcess, jail_config, refusal
from flow_sdk.wire.runner import Limits

OUTPUT_BYTES: Final = 256 << 10
_READY_SECONDS: Final = 30.0
_CPUS: Final = 4.0
_numbers = itertools.count(1)


class CommandRunner:
    """Runs commands one after another or at the same time; holds nothing between them."""

    def __init__(self, *, root: Path, identity: Identity, groups: Groups, threads: Executor) -> None:
        self._root = root
        self._identity = identity
        self._groups = groups
        self._threads = threads

    async def run(self, command: Command, proxy_handler: object | None) -> CommandEnded:
        """Runs the command to its end, its timeout, or the cancellation of the caller."""
        maps, owner = command_identity(self._identity)
        loop = asyncio.get_running_loop()
        if owner is not None:
            await loop.run_in_executor(self._threads, _give, list(command.writable), owner)
        output, output_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(output_in, True)
        try:
            jail = JailProcess(output=output_in)
        finally:
            os.close(output_in)
        tail = _Tail(loop, output)
        group: Group | None = None
        proxy: asyncio.Task[None] | None = None
        try:
            jail.control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            jail.send(self._config(command, maps))
            process, listeners = await _receive_ready(jail, tail)
            if listeners:
                proxy = asyncio.ensure_future(serve_proxy(listeners[0], proxy_handler))
            group = await self._limit(command, process)
            return await self._wait(command, jail, tail, group)
        finally:
            if proxy is not None:
                proxy.cancel()
                await asyncio.gather(proxy, return_exceptions=True)
            await jail.close(at_once=True)
            tail.close()
            if group is not None:
                await loop.run_in_executor(self._threads, group.remove)
            if owner is not None:
                await loop.run_in_executor(self._threads, _give, list(command.writable), os.geteuid())

    async def _wait(self, command: Command, jail: JailProcess, tail: _Tail, group: Group | None) -> CommandEnded:
        jail.control.send(b"go")
        killed = False
        try:
            code = await asyncio.wait_for(jail.wait(), command.timeout_seconds)
        except TimeoutError:
            killed = True
            code = await jail.close(at_once=True)
        await tail.wait_closed()
        usage = group.usage() if group is not None else Usage()
        # The outer process passes on how the inner one ended: its code, or minus the signal in the low byte.
        number = 256 - code if code > 255 - signal.NSIG else None
        if killed:
            ended = Ended(Ending.KILLED, None, signal.SIGKILL, usage)
        elif number == signal.SIGKILL and usage.oom_kills:
            ended = Ended(Ending.OUT_OF_MEMORY, None, number, usage)
        elif number is not None:
            ending = Ending.FORBIDDEN_SYSCALL if number == signal.SIGSYS else Ending.CRASHED
            ended = Ended(ending, None, number, usage)
        else:
            ended = Ended(Ending.EXITED, code, None, usage)
        return CommandEnded(ended, tail.text())

    def _config(self, command: Command, maps: dict[str, list[list[int]]]) -> dict[str, Any]:
        binds = [(str(path), f"/{path.name}", False) for path in sorted(self._root.iterdir()) if _is_bound(path)]
        links = {f"/{path.name}": str(path.readlink()) for path in sorted(self._root.iterdir()) if path.is_symlink()}
        binds += [(str(path.absolute()), inside, False) for path, inside in command.readable.items()]
        binds += [(str(path.absolute()), inside, True) for path, inside in command.writable.items()]
        without_groups = self._groups.kind == "none"
        return jail_config(
            self._identity,
            binds=binds,
            maps=maps,
            user=1000,
            command={
                "argv": list(command.argv),
                "environ": dict(command.env),
                "folder": "/tmp",  # noqa: S108
                "links": links,
                "tmp_bytes": command.memory_bytes // 2,
                "ports": [PROXY_PORT] if command.proxy else [],
                "refuse": ["memfd_create"] if without_groups else [],
                "rlimits": {
                    "CORE": CORE_BYTES,
                    "NOFILE": 4096,
                    **({"DATA": command.memory_bytes} if without_groups else {}),
                },
            },
        )

    async def _limit(self, command: Command, process: int) -> Group | None:
        if self._groups.kind == "none":
            return None
        limits = Limits(memory_bytes=command.memory_bytes, pids=command.pids, cpus=_CPUS)

        def create() -> Group:
            group = self._groups.create(f"command{next(_numbers)}")
            try:
                group.limit(limits)
                group.attach(process)
            except ProcessLookupError:
                pass  # It has ended already, and said why.
            except BaseException:
                group.remove()
                raise
            return group

        return await asyncio.get_running_loop().run_in_executor(self._threads, create)


def _is_bound(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and path.name not in ("proc", "dev", "tmp", "env", "build")


def _give(folders: list[Path], owner: int) -> None:
    """Makes the folders with all in them belong to one user."""
    for folder in folders:
        os.lchown(folder, owner, owner)
        for parent, folders_in, files in os.walk(folder, followlinks=False):
            for name in (*folders_in, *files):
                os.lchown(os.path.join(parent, name), owner, owner)  # noqa: PTH118 - a hot loop over whole environments.


async def _receive_ready(jail: JailProcess, tail: _Tail) -> tuple[int, list[socket.socket]]:
    """Waits until the jail stands: its process, as seen from here, and the listeners inside."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(jail.control.fileno(), lambda: readable.done() or readable.set_result(None))
    try:
        await asyncio.wait_for(readable, _READY_SECONDS)
    except TimeoutError:
        raise SandboxUnavailable(f"the jail of a command did not stand within {_READY_SECONDS} s") from None
    finally:
        loop.remove_reader(jail.control.fileno())
    message, ancillary, _, _ = jail.control.recvmsg(65536, socket.CMSG_SPACE(12) + socket.CMSG_SPACE(4 * 4))
    if not message:
        await tail.wait_closed()
        raise SandboxUnavailable(f"the jail of a command ended while it was being made: {tail.text()[-2000:]}")
    document: dict[str, Any] = json.loads(message)
    if "error" in document:
        raise refusal(document["error"])
    process = 0
    listeners: list[socket.socket] = []
    for _, kind, content in ancillary:
        if kind == socket.SCM_CREDENTIALS:
            process = struct.unpack("3i", content[:12])[0]
        elif kind == socket.SCM_RIGHTS:
            received = array.array("i")
            received.frombytes(content)
            listeners = [socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, number) for number in received]
    return process, listeners


class _Tail:
    """Keeps the end of what a command writes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._kept = bytearray()
        self._dropped = 0
        self._closed: asyncio.Future[None] = loop.create_future()
        loop.add_reader(descriptor, self._on_readable)

    def text(self) -> str:
        text = self._kept.decode(errors="replace")
        return f"[{self._dropped} bytes before this were dropped]\n{text}" if self._dropped else text

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    def close(self) -> None:
        if not self._closed.done():
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._closed.set_result(None)

    def _on_readable(self) -> None:
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        self._kept += data
        excess = len(self._kept) - OUTPUT_BYTES
        if excess > 0:
            self._dropped += excess
            del self._kept[:excess]

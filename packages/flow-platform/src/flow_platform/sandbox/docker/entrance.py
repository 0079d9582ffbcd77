"""The unix socket between a runner and one container, from its making to the harness's first frame.

Each container has a folder of its own, mounted read-only where its first program looks for the socket. Who connects is
checked against the engine's container; after that the socket's name is gone.
"""

from __future__ import annotations

import array
import asyncio
import base64
import contextlib
import json
import os
import secrets
import shutil
import socket
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flow_platform.domain.errors import SandboxUnavailable
from flow_platform.sandbox.namespaces import seccomp
from flow_sdk.harness import container as inside

_LINE_BYTES: Final = 1 << 16
_DESCRIPTORS: Final = 8
_CREDENTIALS: Final = struct.Struct("3i")


_PREFIX: Final = "flow-"


def make_folder() -> Path:
    """Where the sockets of one sandbox are: a short and neutral path, since containers see it in their mount table."""
    parent = "/run" if os.access("/run", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    folder.chmod(0o711)  # Names in it cannot be guessed; engines with a user namespace look them up as somebody else.
    return folder


def remove_folder(path: str) -> None:
    """One that `make_folder` of an earlier process made; anything else is left alone."""
    folder = Path(path)
    if folder.name.startswith(_PREFIX) and str(folder.parent) in ("/run", tempfile.gettempdir()):
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Arrived:
    """A container whose first program is ready.

    Attributes:
        process: Its number on this machine.
        about: What it says of itself: {python, machine, sdk}.
    """

    channel: socket.socket
    process: int
    listeners: Mapping[int, socket.socket]
    about: Mapping[str, Any]

    def close(self) -> None:
        """For one that is not taken: it ends when its socket closes."""
        self.channel.close()
        for listener in self.listeners.values():
            listener.close()


class Entrance:
    """The socket of one container, before it is connected."""

    def __init__(self, parent: Path) -> None:
        self.folder = parent / secrets.token_hex(8)
        self.folder.mkdir(mode=0o755)
        self._path = self.folder / Path(inside.SOCKET).name
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        self._path.chmod(0o666)  # The container's user is one of its own.
        self._listener.listen(1)
        self._listener.setblocking(False)

    async def arrive(
        self, container: str, ports: Sequence[int], modules: Sequence[str], *, environment: bool, streams: Sequence[int]
    ) -> Arrived:
        """Waits for the container, tells it what it is for, and waits until it is ready.

        Args:
            container: Its id, which the groups of whoever connects must bear.
            streams: Ends of the pipes that become its stdout and stderr.

        Raises:
            SandboxUnavailable: It said why it cannot, it ended, or somebody else connected.
        """
        entered, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        # A pair without names: those of the other socket would be listed in the container's network namespace.
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.setblocking(False)
        try:
            self.close()
            process = _check_peer(entered, container)
            program = base64.b64encode(seccomp.inherited_filter(seccomp.SET_UP)).decode()
            told = {"ports": list(ports), "modules": list(modules), "environment": environment, "filter": program}
            # Small enough for any socket's buffer.
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [*streams, theirs.fileno()]))]
            entered.sendmsg([json.dumps(told).encode() + b"\n"], rights)
            theirs.close()  # So that its end is seen here.
            about, passed = await _receive_line(channel)
            listeners = _listeners(about, passed, ports)
        except BaseException:
            channel.close()
            theirs.close()
            raise
        finally:
            entered.close()
        return Arrived(channel, process, listeners, about)

    def close(self) -> None:
        """Takes the socket's name away. Idempotent; a connection that was made stays."""
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def _check_peer(entered: socket.socket, container: str) -> int:
    credentials = entered.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process = _CREDENTIALS.unpack(credentials)[0]
    if process == 0:
        raise SandboxUnavailable(
            "processes of the container engine are not visible to this runner",
            hint="run the runner on the engine's machine, outside of any container",
        )
    try:
        groups = Path(f"/proc/{process}/cgroup").read_text()
    except OSError as exc:
        raise SandboxUnavailable(f"the container that connected has ended: {exc}") from exc
    if container not in groups:
        raise SandboxUnavailable(f"process {process} connected in the place of container {container[:12]}")
    return process


async def _receive_line(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The container's one line, and the descriptors that came with it."""
    loop = asyncio.get_running_loop()
    line = bytearray()
    passed = array.array("i")
    readable = asyncio.Event()
    loop.add_reader(channel.fileno(), readable.set)
    try:
        while not line.endswith(b"\n"):
            await readable.wait()
            readable.clear()
            try:
                data, ancillary, _, _ = channel.recvmsg(_LINE_BYTES, socket.CMSG_SPACE(_DESCRIPTORS * passed.itemsize))
            except (BlockingIOError, InterruptedError):
                continue
            for _, kind, content in ancillary:
                if kind == socket.SCM_RIGHTS:
                    passed.frombytes(content[: len(content) - len(content) % passed.itemsize])
            line += data
            _check_goes_on(data, line)
        document: dict[str, Any] = json.loads(line)
    except (OSError, ValueError) as exc:
        _close(passed)
        raise SandboxUnavailable(f"the container's first program cannot be understood: {exc}") from exc
    except BaseException:
        _close(passed)
        raise
    finally:
        loop.remove_reader(channel.fileno())
    return document, list(passed)


def _check_goes_on(data: bytes, line: bytearray) -> None:
    if not data or len(line) > _LINE_BYTES:
        raise SandboxUnavailable("the container's first program ended before it was ready")


def _listeners(about: Mapping[str, Any], passed: Sequence[int], ports: Sequence[int]) -> dict[int, socket.socket]:
    if "error" in about:
        _close(passed)
        raise SandboxUnavailable(f"the container's first program failed: {about['error']}")
    listeners = [socket.socket(fileno=descriptor) for descriptor in passed]
    expected = [("127.0.0.1", port) for port in ports]
    if [_name(listener) for listener in listeners] != expected:
        for listener in listeners:
            listener.close()
        raise SandboxUnavailable(f"the container's first program gave other listeners than {list(ports)!r}")
    for listener in listeners:
        listener.setblocking(False)
    return dict(zip(ports, listeners, strict=True))


def _name(listener: socket.socket) -> object:
    listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return listener.getsockname() if listens and listener.family == socket.AF_INET else None


def _close(descriptors: Sequence[int] | array.array[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

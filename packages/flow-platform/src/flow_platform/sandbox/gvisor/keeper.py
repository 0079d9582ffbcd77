"""Process 1 of a gVisor container: makes the component's world inside it, then waits and ferries. Runs inside gVisor.

It is root in there, with the rights that mounting takes; they are the sentry's to give, and worth nothing outside. The
component is its child, in a process id namespace of its own, where the keeper does not exist.

Control messages (JSON, one per packet, on descriptor 0):

    host -> keeper   the configuration, once, with the component's socket: see `flow_platform.sandbox.gvisor.container`
    host -> keeper   {"limits": {tmp_bytes, pids, memory_bytes or null}}, once     keeper -> host   {"limited": true}
    host -> keeper   {"signal": n}
    keeper -> host   {"ended": status of the component, as waitpid tells it}, the last one
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import resource
import selectors
import signal
import socket
import time
from typing import Any, Final, NoReturn

from flow_platform.sandbox.gvisor import calls, component, ferry
from flow_platform.sandbox.namespaces import syscalls

DOORS: Final = "/build"
"""Where the unix sockets of the runner are mounted until the component is made."""

_DEVICES: Final = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
_MEMORY_MAJOR: Final = 1
_LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "shm": "/tmp/.shm",  # noqa: S108
}
_LAST_WORDS_SECONDS: Final = 1.0  # For what the component sent before its end to reach the runner.


def main() -> NoReturn:
    control = socket.socket(fileno=os.dup(0))
    message, ancillary, _, _ = control.recvmsg(1 << 18, socket.CMSG_SPACE(4))
    config: dict[str, Any] = json.loads(message)
    (channel,) = array.array("i", ancillary[0][2])
    os.umask(0)
    os.chdir(DOORS)  # The only way to them from here on: their mount goes.
    _furnish(config["tmp_bytes"])
    os.umask(0o022)
    ferries = ferry.Ferry({port: str(port) for port in config["ports"]})
    syscalls.unshare(syscalls.NEW_PID)
    size_of_empty, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(size_of_empty)
        component.become(config, channel, told)
    os.close(told)
    os.close(channel)
    for standard in (0, 1, 2):
        os.close(standard)  # The component alone says when its output ends.
    _Keeper(control, child, size_of_empty, ferries).serve()


def _furnish(tmp_bytes: int) -> None:
    """What the component sees beside the runtime root: five devices and an empty /tmp."""
    for target in (DOORS, "/sys", "/dev/pts"):
        with contextlib.suppress(OSError):  # Not in every release.
            syscalls.detach_mount(target)
    syscalls.mount_tmpfs("/dev", "size=64k,mode=755", 0)
    for name, minor in _DEVICES.items():
        os.mknod(f"/dev/{name}", 0o20666, os.makedev(_MEMORY_MAJOR, minor))
    for name, target in _LINKS.items():
        os.symlink(target, f"/dev/{name}")  # noqa: PTH211
    calls.mount_read_only("/dev")  # Where it cannot, the modes have to do: the component is not root.
    _mount_tmp(tmp_bytes)


def _mount_tmp(size: int) -> None:
    syscalls.mount_tmpfs("/tmp", f"size={size},mode=1777")  # noqa: S108
    os.mkdir(_LINKS["shm"])  # noqa: PTH102
    os.chmod(_LINKS["shm"], 0o1777)  # noqa: PTH101, S103


class _Keeper:
    """Args:
    size_of_empty: Where the component says how large it was before it had any code.
    """

    def __init__(self, control: socket.socket, child: int, size_of_empty: int, ferries: ferry.Ferry) -> None:
        self._control = control
        self._child = child
        self._size_of_empty = size_of_empty
        self._ferries = ferries
        self._selector = ferries.selector
        self._selector.register(control, selectors.EVENT_READ, self._on_control)
        woken, wakes = socket.socketpair()
        for end in (woken, wakes):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        self._wakes = wakes
        self._selector.register(woken, selectors.EVENT_READ, lambda: woken.recv(64))

    def serve(self) -> NoReturn:
        while True:
            status = self._ended()
            if status is not None:
                self._leave(status)
            self._turn(None)

    def _turn(self, seconds: float | None) -> None:
        for key, events in self._selector.select(seconds):
            if isinstance(key.data, ferry.Side):
                key.data.go(events)
            else:
                key.data()

    def _ended(self) -> int | None:
        found, status = os.waitpid(self._child, os.WNOHANG)
        return status if found else None

    def _leave(self, status: int) -> NoReturn:
        self._ferries.stop_accepting()
        until = time.monotonic() + _LAST_WORDS_SECONDS
        while self._ferries.has_more() and time.monotonic() < until:
            self._turn(0.02)
        self._control.send(json.dumps({"ended": status}).encode())
        os._exit(0)

    def _on_control(self) -> None:
        message = self._control.recv(4096)
        if not message:
            os._exit(0)  # The runner is gone.
        request: dict[str, Any] = json.loads(message)
        if "limits" in request:
            self._limit(request["limits"])
            self._control.send(b'{"limited": true}')
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, request["signal"])

    def _limit(self, limits: dict[str, Any]) -> None:
        """Before the component has its code: it only waits for it."""
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(self._child, resource.RLIMIT_NPROC, (limits["pids"], limits["pids"]))
            if limits["memory_bytes"] is not None:
                # This kernel does not count private mappings as data, only as addresses.
                most = int(os.read(self._size_of_empty, 32)) + limits["memory_bytes"]
                resource.prlimit(self._child, resource.RLIMIT_AS, (most, most))
        if limits["tmp_bytes"] is not None:
            # A tmpfs of this kernel cannot be resized. The component goes to the new one when it starts.
            syscalls.detach_mount("/tmp")  # noqa: S108
            _mount_tmp(limits["tmp_bytes"])

"""The parent of one plain process: starts it, and ends whatever it leaves behind.

It is the reaper of all that the process starts, also of what goes into a session of its own, and so can end all of it:
when the process has ended, when it is told to, or when the runner is gone. Standard library only.

Control messages on its socket, one per packet:

    runner -> keeper   b"T": SIGTERM to the process;  b"K", or the end of the socket: SIGKILL to everything
    keeper -> runner   {"exit": wait status, "cpu_ms": x, "max_rss_bytes": n}, once
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final, NoReturn

HARNESS: Final = 3  # The descriptor of the socket to the runner, as in every container.
READY: Final = b"R"
"""What a process says before any frame: everything is imported, and it waits for START."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_CLEAR_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.002


def main(config: dict[str, Any]) -> NoReturn:
    """Runs one process to its end.

    Args:
        config: `control` and perhaps `harness`, descriptors of sockets; `folder` to work in; `rlimits`; `paths` of the
            component's imports, or `argv` of a command.
    """
    control = socket.socket(fileno=config["control"])
    control.set_inheritable(False)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    myself = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            _become(config, control, myself)
        except BaseException:  # noqa: BLE001 - the last frame of a process: whatever it was, say it and end.
            traceback.print_exc()
        os._exit(70)
    if "harness" in config:
        os.close(config["harness"])
    status, used = _watch(control, child)
    _end_all_children()
    report = {
        "exit": status,
        "cpu_ms": (used.ru_utime + used.ru_stime) * 1000,
        "max_rss_bytes": used.ru_maxrss * 1024,
    }
    with contextlib.suppress(OSError):
        control.send(json.dumps(report).encode())
    os._exit(0)


def _become(config: dict[str, Any], control: socket.socket, parent: int) -> None:
    control.close()
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(70)  # It was gone before we asked to be told.
    for name, value in config["rlimits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    os.chdir(config["folder"])
    if "argv" in config:
        os.execve(config["argv"][0], config["argv"], dict(os.environ))  # noqa: S606 - a command has no shell.
    sys.path[:] = [path for path in sys.path if path != config["source"]] + config["paths"]
    if config["harness"] != HARNESS:
        os.dup2(config["harness"], HARNESS)
        os.close(config["harness"])
    os.set_inheritable(HARNESS, False)
    from flow_sdk.harness import main as harness
    from flow_sdk.harness.rehearsal import rehearse

    rehearse()
    channel = socket.socket(fileno=HARNESS)
    channel.sendall(READY)
    harness.run(channel)


def _watch(control: socket.socket, child: int) -> tuple[int, resource.struct_rusage]:
    """Until the process has ended, by itself or because it was told to."""
    pidfd = os.pidfd_open(child)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(control.fileno(), select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if pidfd in ready:
            break
        word = b""
        with contextlib.suppress(OSError):
            word = control.recv(16)
        if word == b"T":
            os.kill(child, signal.SIGTERM)
            continue
        os.kill(child, signal.SIGKILL)
        break
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    return status, used


def _end_all_children() -> None:
    """What dies leaves its own children to us, so this ends when there are none."""
    ends = time.monotonic() + _CLEAR_SECONDS
    while time.monotonic() < ends:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for child in _children():
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        time.sleep(_PAUSE_SECONDS)


def _children() -> list[int]:
    myself = str(os.getpid())
    found: list[int] = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if fields[1] == myself:
                    found.append(int(entry.name))
    return found

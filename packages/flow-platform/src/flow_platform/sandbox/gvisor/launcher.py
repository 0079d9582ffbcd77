"""The program inside the jail: executes runsc for one container after another. Runs inside the jail, not in gVisor.

It holds no secret: code, input and token reach a container on its own socket, after it is sealed.

Control messages (JSON, one per packet, on descriptor 3):

    host -> launcher   {"argv": [...], "environ": {...}, "bundle": {...}}, once
    launcher -> host   {"up": true}, once
    host -> launcher   {"new": id, "ports": [n]} with five descriptors: the component's socket, stdout, stderr, the
                       keeper's socket, runsc's log
    launcher -> host   {"exit": id, "status": n, "cpu_ms": x, "max_rss_bytes": n}

A container's process is process 1 of its own process id namespace: when it ends, however it ends, the kernel ends
everything that runsc started. Its state lies in a /tmp of its mount namespace alone: nothing can be left behind.
"""

from __future__ import annotations

import json
import os
import socket
import traceback
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NoReturn

from flow_platform.sandbox.namespaces import forks, seal, syscalls

CONTROL: Final = 3
STATE: Final = "/tmp/state"  # noqa: S108 - a tmpfs of the container's mount namespace.
BUNDLE: Final = "/tmp/bundle"  # noqa: S108
DOORS: Final = "/tmp/doors"  # noqa: S108
"""Unix sockets, one per port, on which the runner accepts: mounted into the container."""

LOG: Final = 3
"""The descriptor of runsc's own log."""

_PRIVATE_TMP: Final = "size=4m,mode=755"
_LAST_DESCRIPTOR: Final = 1 << 16
_BACKLOG: Final = 64
_OOM_SCORE: Final = "500"  # Containers die before anything of the host.


def main() -> NoReturn:
    control = socket.socket(fileno=CONTROL)
    config: dict[str, Any] = json.loads(control.recv(1 << 18))
    control.send(b'{"up": true}')
    forks.Forks(control, descriptors=5, become=partial(_become_container, config)).serve()
    os._exit(0)


def _become_container(config: dict[str, Any], request: dict[str, Any], descriptors: Sequence[int]) -> NoReturn:
    try:
        component, out, err, keeper, log = descriptors
        os.dup2(out, 1)
        os.dup2(err, 2)
        syscalls.die_with_parent()
        os.setsid()
        syscalls.unshare(syscalls.NEW_MOUNT | syscalls.NEW_IPC | syscalls.NEW_UTS)
        _mount_own()
        _write_bundle(config["bundle"])
        doors = [_open_door(port) for port in request["ports"]]
        myself = os.pidfd_open(os.getpid())
        with socket.socket(fileno=component) as channel:
            seal.pass_on(channel, b"L", [myself, *(door.fileno() for door in doors)])
        with socket.socket(fileno=os.dup(keeper)) as control:
            if control.recv(16) != b"go":  # Once this process is in its cgroup, and so whatever it starts.
                os._exit(1)
        os.dup2(keeper, 0)
        log = os.dup(log) if log <= LOG else log
        os.dup2(log, LOG)
        os.closerange(LOG + 1, _LAST_DESCRIPTOR)
        os.execve(config["argv"][0], config["argv"], config["environ"])  # noqa: S606
    except BaseException:  # noqa: BLE001 - the last frame of a process: whatever it was, say it and end.
        traceback.print_exc()
    os._exit(70)


def _mount_own() -> None:
    settings, mount = syscalls.new_file_system("proc", {}, syscalls.NO_SETUID | syscalls.NO_DEVICES | syscalls.NO_EXEC)
    os.close(settings)
    # In this order: the kernel grants a new procfs only to those who can already see one.
    syscalls.detach_mount("/proc")
    syscalls.attach_tree(mount, "/proc")
    syscalls.mount_tmpfs("/tmp", _PRIVATE_TMP)  # noqa: S108
    with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - no pathlib here: it is imported by nothing.
        file.write(_OOM_SCORE)


def _write_bundle(bundle: dict[str, Any]) -> None:
    for folder in (STATE, BUNDLE, DOORS):
        os.mkdir(folder)  # noqa: PTH102
    with open(f"{BUNDLE}/config.json", "w") as file:  # noqa: PTH123
        json.dump(bundle, file)


def _open_door(port: int) -> socket.socket:
    """A listener that only this container's mounts lead to, wherever its descriptor goes."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind(f"{DOORS}/{port}")
    door.listen(_BACKLOG)
    return door

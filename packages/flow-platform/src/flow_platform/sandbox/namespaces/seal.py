"""What a fork of the template does until it is a sealed container. Runs inside the jail.

The order matters. Mount, network, ipc, uts and cgroup namespaces come before the user namespace, so that the
container's own user namespace owns none of them: capabilities regained in it would be worth nothing there. Everything
that needs rights happens before the capabilities go, and the second filter comes last.
"""

from __future__ import annotations

import array
import gc
import os
import socket
import ssl
import tempfile
from collections.abc import Sequence
from typing import Any, Final

from flow_platform.sandbox.namespaces import syscalls

SHARED_MEMORY: Final = "/tmp/.shm"  # noqa: S108 - inside the container; counted by its limit on /tmp.
INODES: Final = 4096
USER: Final = 1000
HARNESS: Final = 3
"""The descriptor of the container's socket."""

_UNSHARED: Final = syscalls.NEW_MOUNT | syscalls.NEW_IPC | syscalls.NEW_UTS | syscalls.NEW_CGROUP | syscalls.NEW_NET


def listen(port: int) -> socket.socket:
    """A listener that lives in this network namespace, wherever its descriptor goes."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    return listener


def pass_on(channel: socket.socket, message: bytes, descriptors: Sequence[int]) -> None:
    rights = array.array("i", descriptors)
    channel.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else [])


def seal(user: int | None, ports: Sequence[int], config: dict[str, Any], filter_program: bytes) -> socket.socket:
    """Turns this freshly forked process into a sealed container.

    Args:
        user: The id, in the jail, that is the container's alone; None where the jail has only one.
        ports: Of the listeners on loopback.
        config: `tmp_bytes`.
        filter_program: The second stage of seccomp.

    Returns:
        The container's socket. The host got the listeners, the settings of /tmp and a pidfd over it.
    """
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, HARNESS)
    os.setsid()
    syscalls.unshare(_UNSHARED)
    _mount_proc()
    tmp_settings = _mount_tmp(config["tmp_bytes"])
    syscalls.bring_loopback_up()
    listeners = [listen(port) for port in ports]
    myself = os.pidfd_open(os.getpid())
    pass_on(channel, b"L", [myself, tmp_settings, *(listener.fileno() for listener in listeners)])
    for listener in listeners:
        listener.close()
    os.close(tmp_settings)
    os.close(myself)
    _take_identity(user)
    syscalls.join_empty_keyring()
    syscalls.drop_capabilities()
    syscalls.forbid_new_privileges()
    os.chdir("/tmp")  # noqa: S108
    syscalls.install_filter(filter_program)
    _forget_shared_randomness()
    gc.enable()
    channel.sendall(b"R")
    return channel


def _mount_proc() -> None:
    settings, mount = syscalls.new_file_system(
        "proc", {"hidepid": "2", "subset": "pid"}, syscalls.NO_SETUID | syscalls.NO_DEVICES | syscalls.NO_EXEC
    )
    os.close(settings)
    # In this order: the kernel grants a new procfs only to those who can already see one.
    syscalls.detach_mount("/proc")
    syscalls.attach_tree(mount, "/proc")


def _mount_tmp(size: int) -> int:
    options = {"size": str(size), "nr_inodes": str(INODES), "mode": "1777"}
    settings, mount = syscalls.new_file_system("tmpfs", options, syscalls.NO_SETUID | syscalls.NO_DEVICES)
    syscalls.attach_tree(mount, "/tmp")  # noqa: S108
    os.mkdir(SHARED_MEMORY)  # noqa: PTH102 - no pathlib on this path: it is timed.
    os.chmod(SHARED_MEMORY, 0o1777)  # noqa: PTH101, S103
    return settings


def _take_identity(user: int | None) -> None:
    mine = 0
    if user is not None:
        mine = user
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        syscalls.set_dumpable(True)  # Else our own /proc/self is closed to us.
    syscalls.unshare(syscalls.NEW_USER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{USER} {mine} 1"), ("gid_map", f"{USER} {mine} 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)


def _forget_shared_randomness() -> None:
    """Whatever generator state the template had is the same in all its forks: draw anew from the kernel.

    `random` needs no help: it does so itself after each fork.
    """
    ssl.RAND_add(os.urandom(32), 32.0)
    tempfile._name_sequence = None  # type: ignore[attr-defined]  # noqa: SLF001 - made anew at its next use.

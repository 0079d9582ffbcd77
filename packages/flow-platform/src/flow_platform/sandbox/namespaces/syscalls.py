"""The Linux calls that a container needs, through the C library's `syscall`: Python 3.11 has no names for them.

Every refusal is an OSError that names the call and its arguments, because that is what a user must know.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from typing import Final

from flow_platform.sandbox.namespaces.syscall_numbers import NUMBERS

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
# Declared once: to make objects of the arguments took longer than the call, which a container makes 40 times.
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)

NEW_CGROUP: Final = 0x02000000
NEW_UTS: Final = 0x04000000
NEW_IPC: Final = 0x08000000
NEW_USER: Final = 0x10000000
NEW_PID: Final = 0x20000000
NEW_NET: Final = 0x40000000
NEW_MOUNT: Final = 0x00020000

READ_ONLY: Final = 1
NO_SETUID: Final = 2
NO_DEVICES: Final = 4
NO_EXEC: Final = 8
_REMOUNT: Final = 32
_BIND: Final = 4096
_RECURSIVE: Final = 16384
_PRIVATE: Final = 1 << 18

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_CLOSE_ON_EXEC: Final = 0x80000

_NAMESPACES: Final = {
    NEW_USER: "CLONE_NEWUSER",
    NEW_MOUNT: "CLONE_NEWNS",
    NEW_PID: "CLONE_NEWPID",
    NEW_NET: "CLONE_NEWNET",
    NEW_IPC: "CLONE_NEWIPC",
    NEW_UTS: "CLONE_NEWUTS",
    NEW_CGROUP: "CLONE_NEWCGROUP",
}


def _call(name: str, shown: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = _libc.syscall(ctypes.c_long(NUMBERS[name]), *values)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}({shown}): {errno.errorcode.get(number, number)} {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    names = "|".join(name for flag, name in _NAMESPACES.items() if flags & flag)
    _call("unshare", names, flags)


def enter_pid_namespace_of(pidfd: int) -> None:
    """Makes later forks be born in that namespace again; undoes an unshare(CLONE_NEWPID)."""
    _call("setns", "pidfd, CLONE_NEWPID", pidfd, NEW_PID)


def prctl(option: int, argument: int) -> int:
    result: int = _libc.prctl(option, argument, 0, 0, 0)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {errno.errorcode.get(number, number)} {os.strerror(number)}")
    return result


def die_with_parent(signal_number: int = 9) -> None:
    prctl(1, signal_number)  # PR_SET_PDEATHSIG


def set_dumpable(on: bool) -> None:
    prctl(4, int(on))  # PR_SET_DUMPABLE


def forbid_new_privileges() -> None:
    prctl(38, 1)  # PR_SET_NO_NEW_PRIVS


def drop_capabilities() -> None:
    """Leaves no capability in any set, nor a way to gain one."""
    for capability in range(64):
        try:
            prctl(24, capability)  # PR_CAPBSET_DROP
        except OSError:
            break  # Past the last one that this kernel knows.
    prctl(47, 4)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL
    _call("capset", "none", struct.pack("II", 0x20080522, 0), bytes(24))


def install_filter(program: bytes) -> None:
    """Adds a seccomp filter to this process and its descendants."""
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    _call("seccomp", "SECCOMP_SET_MODE_FILTER", 1, 0, header)


def join_empty_keyring() -> None:
    _call("keyctl", "KEYCTL_JOIN_SESSION_KEYRING", 1, 0)


def mount_tmpfs(target: str, options: str, flags: int = NO_SETUID | NO_DEVICES) -> None:
    _call("mount", f"tmpfs, {target}", b"tmpfs", target.encode(), b"tmpfs", flags, options.encode())


def make_mounts_private() -> None:
    """Keeps what we mount from the host, and what the host mounts from us."""
    _call("mount", "/, MS_REC|MS_PRIVATE", None, b"/", None, _RECURSIVE | _PRIVATE, None)


def make_read_only(target: str) -> None:
    flags = _REMOUNT | _BIND | READ_ONLY | NO_SETUID | NO_DEVICES
    _call("mount", f"{target}, MS_REMOUNT|MS_BIND|MS_RDONLY", None, target.encode(), None, flags, None)


def detach_mount(target: str) -> None:
    _call("umount2", f"{target}, MNT_DETACH", target.encode(), 2)


def swap_root(target: str) -> None:
    """Makes the mount at `target` the root, and lets go of the old root at once."""
    os.chdir(target)
    _call("pivot_root", "., .", b".", b".")
    detach_mount(".")
    os.chdir("/")


def clone_tree(path: str, *, read_only: bool = True) -> int:
    """A detached copy of the mount tree at `path`: a descriptor whose `..` cannot leave it."""
    tree = _call("open_tree", f"{path}, OPEN_TREE_CLONE", _AT_FDCWD, path.encode(), 1 | _CLOSE_ON_EXEC | _AT_RECURSIVE)
    attributes = (READ_ONLY if read_only else 0) | NO_SETUID | NO_DEVICES
    change = struct.pack("QQQQ", attributes, 0, _PRIVATE, 0)
    _call("mount_setattr", path, tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, change, len(change))
    return tree


def clone_device(path: str) -> int:
    """As `clone_tree` for one device node. It stays usable as a device: read-only are its own attributes, as its times,
    which all containers of the machine share.
    """
    device = _call("open_tree", f"{path}, OPEN_TREE_CLONE", _AT_FDCWD, path.encode(), 1 | _CLOSE_ON_EXEC)
    change = struct.pack("QQQQ", READ_ONLY | NO_SETUID | NO_EXEC, 0, _PRIVATE, 0)
    _call("mount_setattr", path, device, b"", _AT_EMPTY_PATH, change, len(change))
    return device


def attach_tree(tree: int, target: str) -> None:
    """Mounts a detached tree and closes its descriptor."""
    _call("move_mount", target, tree, b"", _AT_FDCWD, target.encode(), 4)
    os.close(tree)


def new_file_system(kind: str, options: dict[str, str], attributes: int) -> tuple[int, int]:
    """Makes a file system in the caller's namespaces.

    Returns:
        The descriptor of its settings, which `reconfigure` takes, and the detached mount.
    """
    settings = _call("fsopen", kind, kind.encode(), 1)
    for key, value in options.items():
        _call("fsconfig", f"{kind}, {key}={value}", settings, 1, key.encode(), value.encode(), 0)
    _call("fsconfig", f"{kind}, FSCONFIG_CMD_CREATE", settings, 6, 0, 0, 0)
    return settings, _call("fsmount", kind, settings, 1, attributes)


def reconfigure(settings: int, options: dict[str, str]) -> None:
    """Changes a mounted file system, also from outside of its namespaces."""
    for key, value in options.items():
        _call("fsconfig", f"{key}={value}", settings, 1, key.encode(), value.encode(), 0)
    _call("fsconfig", "FSCONFIG_CMD_RECONFIGURE", settings, 7, 0, 0, 0)


def bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as request:
        fcntl.ioctl(request, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS, IFF_UP|IFF_RUNNING


def pick_file_system(path: str) -> int:
    """The settings of the file system that is mounted at the path, for `reconfigure`; also another process's."""
    return _call("fspick", path, _AT_FDCWD, path.encode(), 1)


def make_file_system_read_only(settings: int) -> None:
    """All of it, wherever it is mounted; devices in it can still be used."""
    _call("fsconfig", "ro", settings, 0, b"ro", 0, 0)
    _call("fsconfig", "FSCONFIG_CMD_RECONFIGURE", settings, 7, 0, 0, 0)

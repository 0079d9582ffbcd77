"""System calls that only the inside of a gVisor container makes; the others are in `namespaces.syscalls`."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Final

from flow_platform.sandbox.namespaces import syscalls
from flow_platform.sandbox.namespaces.syscall_numbers import NUMBERS

_libc = ctypes.CDLL(None, use_errno=True)

_CAPABILITIES: Final = 41
_DROP_FROM_BOUNDING_SET: Final = 24  # PR_CAPBSET_DROP
_VERSION: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3


def mount(kind: str, target: str, flags: int) -> None:
    _check("mount", f"{kind}, {target}", _libc.mount(kind.encode(), target.encode(), kind.encode(), flags, None))


def bind(source: str, target: str) -> None:
    _check("mount", f"{source}, {target}, MS_BIND", _libc.mount(source.encode(), target.encode(), None, 4096, None))


def mount_read_only(target: str) -> bool:
    """Makes a mount read-only; False in kernels that cannot change one (releases of gVisor before 2023)."""
    remount_bind_read_only = 32 | 4096 | 1
    return _libc.mount(None, target.encode(), None, remount_bind_read_only, None) == 0


def empty_bounding_set() -> None:
    """Takes CAP_SETPCAP, so it comes before `drop_capabilities`."""
    for capability in range(_CAPABILITIES):
        _libc.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)  # Those that this kernel does not have fail.


def drop_capabilities() -> None:
    """There is no ambient set in this kernel.

    Raises:
        OSError: Some are left, in any set.
    """
    header = ctypes.create_string_buffer(struct.pack("II", _VERSION, 0))
    _check("capset", "none", _libc.capset(header, ctypes.create_string_buffer(24)))
    with open("/proc/self/status") as status:  # noqa: PTH123 - pathlib is not imported in here.
        left = [line.strip() for line in status if line.startswith("Cap") and int(line.split()[1], 16)]
    if left:
        raise OSError(errno.EPERM, f"capabilities are left: {left!r}")


def install_ping_filter() -> None:
    """Refuses ICMP sockets: the host's kernel refuses them to this user by a setting, gVisor's has none."""
    load = (0x20, 0, 0)
    equal, answer, refusal = 0x15, 0x06, 0x00050000
    program = [
        (*load, 0),  # The call's number.
        (equal, 0, 5, NUMBERS["socket"]),
        (*load, 16),  # Family, of which 2 is IPv4 and 10 IPv6: the only ones that the first filter lets through...
        (equal, 3, 0, socket.AF_UNIX),
        (*load, 32),  # ...and protocol.
        (equal, 2, 0, socket.IPPROTO_ICMP),
        (equal, 1, 0, socket.IPPROTO_ICMPV6),
        (answer, 0, 0, 0x7FFF0000),
        (answer, 0, 0, refusal | errno.EACCES),
    ]
    syscalls.install_filter(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))


def _check(name: str, shown: str, result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}({shown}): {errno.errorcode.get(number, number)} {os.strerror(number)}")

"""System calls that only the inside of a gVisor container makes; the others are in `namespaces.syscalls`."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)

_CAPABILITIES: Final = 41
_DROP_FROM_BOUNDING_SET: Final = 24  # PR_CAPBSET_DROP
_VERSION: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3


def mount(kind: str, target: str, flags: int) -> None:
    _check("mount", f"{kind}, {target}", _libc.mount(kind.encode(), target.encode(), kind.encode(), flags, None))


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


def _check(name: str, shown: str, result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}({shown}): {errno.errorcode.get(number, number)} {os.strerror(number)}")

"""How a process ended that is not our child, from the kernel itself (6.15 and later)."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

_INFO: Final = struct.Struct("QQ11Ii")  # struct pidfd_info of include/uapi/linux/pidfd.h
_GET_INFO: Final = (3 << 30) | (_INFO.size << 16) | (0xFF << 8) | 11  # _IOWR(0xFF, 11, struct pidfd_info)
_EXIT: Final = 1 << 3


def read(pidfd: int) -> tuple[int | None, int | None] | None:
    """Exit code and signal, one of them None, once its parent has reaped it; None where the kernel does not tell."""
    request = bytearray(_INFO.pack(_EXIT, *[0] * 12, 0))
    try:
        fcntl.ioctl(pidfd, _GET_INFO, request)
    except OSError:
        return None
    mask, *_, status = _INFO.unpack(request)
    if not mask & _EXIT:
        return None
    code = os.waitstatus_to_exitcode(status)
    return (code, None) if code >= 0 else (None, -code)

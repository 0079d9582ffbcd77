"""What all attempts inside of a container share: it stands before each of their sources.

An answer that begins with "OK" is a success of the attacker; everything else says how it was refused.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Callable
from typing import Any

Answers = dict[str, dict[str, str]]
"""Group -> attempt -> answer."""

libc = ctypes.CDLL(None, use_errno=True)
COLUMN = {"x86_64": 0, "aarch64": 1}.get(platform.machine(), -1)


def attempt(function: Callable[..., Any], *arguments: Any) -> str:
    try:
        return f"OK {function(*arguments)!r:.60}"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except BaseException as error:  # noqa: BLE001 - whatever it was, it was no success.
        return type(error).__name__


def call(numbers: tuple[int, ...], *arguments: Any) -> str:
    """A system call by its numbers on x86-64 and aarch64; -1 where it has none."""
    number = numbers[COLUMN] if COLUMN >= 0 else -1
    if number < 0:
        return "no such call"
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    if libc.syscall(ctypes.c_long(number), *values) >= 0:
        return "OK"
    return errno.errorcode.get(ctypes.get_errno(), "refused")


def write(path: str, content: bytes) -> int:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        return os.write(descriptor, content)
    finally:
        os.close(descriptor)

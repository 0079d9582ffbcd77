"""What the engine cannot close, root closes from outside, before a container is handed out.

An engine masks files of /proc one by one; here all of it goes but the container's own processes. Device nodes become
read-only. And the sizes of /tmp and /dev/shm are set when the limits are known, which is after the container was made.
All of it changes file systems of the container alone, by their path under /proc/PID/root: nothing is entered.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from typing import Final

from flow_platform.sandbox.docker.creation import INODES
from flow_platform.sandbox.namespaces import syscalls

_MEMORY: Final = ("/tmp", "/dev/shm")  # noqa: S108
_PROC: Final = {"subset": "pid", "hidepid": "2"}


def is_possible() -> bool:
    """Whether this process may change mounted file systems at all; `close_up` then shows whether a container's."""
    return os.geteuid() == 0


def close_up(process: int) -> None:
    """Leaves of /proc only the container's processes, makes its devices read-only, bounds how many files it can make.

    Raises:
        OSError: The kernel refused: the engine's processes are in a user namespace, or ours are.
    """
    with _picked(process, "/proc") as settings:
        syscalls.reconfigure(settings, _PROC)
    with _picked(process, "/dev") as settings:
        syscalls.make_file_system_read_only(settings)
    for path in _MEMORY:
        with _picked(process, path) as settings:
            syscalls.reconfigure(settings, {"nr_inodes": str(INODES)})


def resize(process: int, size: int) -> None:
    """Sets how much /tmp and /dev/shm hold, each."""
    for path in _MEMORY:
        with _picked(process, path) as settings:
            syscalls.reconfigure(settings, {"size": str(size)})


@contextlib.contextmanager
def _picked(process: int, path: str) -> Generator[int]:
    settings = syscalls.pick_file_system(f"/proc/{process}/root{path}")
    try:
        yield settings
    finally:
        os.close(settings)

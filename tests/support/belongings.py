"""What this process holds of the machine: whatever a part left behind is here, and was not before."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def belongings() -> set[str]:
    """Each descriptor, mount and child by a name of its own.

    Without mounts of container engines: one of other tests mounts when it likes.
    """
    found: set[str] = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(f"descriptor {entry.name}: {entry.readlink()}")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found |= {f"mount {line}" for line in mounts if not any(word in line for word in ("docker", "overlay", "nsfs"))}
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return found | {f"child {child}" for child in children}

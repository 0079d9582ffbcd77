"""By which labels our containers are found again, and which of them belong to nobody any more."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

OWNER_LABEL: Final = "flow.owner"
"""The sandbox that made it: its process's namespace, id and start, and a word of its own. All of ours have it."""

RUNNER_LABEL: Final = "flow.runner"
FOLDER_LABEL: Final = "flow.folder"
"""Where the sockets of its sandbox are."""


@dataclass(frozen=True)
class Owner:
    """One sandbox of this process: another one's containers are not its own.

    Attributes:
        runner: Id of the runner, stable over restarts; empty: none.
    """

    name: str
    runner: str = ""

    @property
    def labels(self) -> dict[str, str]:
        return {OWNER_LABEL: self.name} | ({RUNNER_LABEL: self.runner} if self.runner else {})


def new_owner(runner: str) -> Owner:
    return Owner(f"{_namespace()}-{os.getpid()}-{_started(os.getpid())}-{secrets.token_hex(4)}", runner)


def abandoned(containers: Iterable[Mapping[str, Any]], owner: Owner) -> list[Mapping[str, Any]]:
    """Those that an earlier process of this runner made, or one of this machine that is gone.

    A process in another namespace cannot be seen from here, so what it made is left alone.
    """
    found: list[Mapping[str, Any]] = []
    for container in containers:
        labels: Mapping[str, str] = container["Labels"]
        maker = labels[OWNER_LABEL]
        if maker == owner.name:
            continue
        earlier = bool(owner.runner) and labels.get(RUNNER_LABEL) == owner.runner
        if earlier or not _may_live(maker):
            found.append(container)
    return found


def _may_live(maker: str) -> bool:
    namespace, _, rest = maker.partition("-")
    process, _, rest = rest.partition("-")
    started = rest.partition("-")[0]
    if namespace != _namespace():
        return True
    try:
        return _started(int(process)) == started
    except (OSError, ValueError):
        return False


def _namespace() -> str:
    """Of this machine since it was started, and of the processes that can be seen here."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    return boot + str(Path("/proc/self/ns/pid").stat().st_ino)


def _started(process: int) -> str:
    """When the process started, in ticks: a process id alone may be somebody else's by now."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]

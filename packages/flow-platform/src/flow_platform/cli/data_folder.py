"""The data folder of one platform: its lock, and the file that says how to reach it while it runs."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flow_platform.domain.errors import Conflict, FlowError

READY_FILE: Final = "ready.json"
LOCK_FILE: Final = "lock"
TOKEN_FILE: Final = "admin-token"  # noqa: S105 - a file's name.
ORPHAN_GRACE_SECONDS: Final = 5.0
"""How long a lock may outlive its holder: the server keeps it until it is gone, so that two never share a database."""


class DataFolder:
    """Made private at the first start: the database and the admin token are in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock_descriptor = -1

    def create(self) -> None:
        """Makes the folder.

        Raises:
            FlowError: It cannot be made or written.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / "logs").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise FlowError(
                f"the data folder {str(self.path)!r} cannot be used: {error.strerror}",
                hint="name another one with --data",
            ) from error

    def lock(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Takes the folder for this process and those it hands `lock_descriptor` to.

        Raises:
            Conflict: Another process has it, with its id.
        """
        path = self.path / LOCK_FILE
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        give_up = monotonic() + ORPHAN_GRACE_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = path.read_text().strip()
                if _is_alive(holder) or monotonic() > give_up:
                    os.close(descriptor)
                    raise Conflict(
                        f"the data folder {str(self.path)!r} is in use by process {holder or '?'}",
                        hint=f"stop it (kill {holder}), or name another folder with --data",
                    ) from None
                time.sleep(0.05)  # Its holder was killed; the server that inherited the lock is on its way out.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self.lock_descriptor = descriptor

    def unlock(self) -> None:
        if self.lock_descriptor >= 0:
            os.close(self.lock_descriptor)
            self.lock_descriptor = -1

    @property
    def ready_file(self) -> Path:
        return self.path / READY_FILE

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"


def write_atomically(path: Path, document: dict[str, Any]) -> None:
    """A reader sees the old file or the new one, never half of it. Private: it holds a token."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise FlowError(f"{str(path)!r} cannot be written: {error.strerror}") from error


def _is_alive(holder: str) -> bool:
    if not holder.isdecimal():
        return False
    try:
        os.kill(int(holder), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

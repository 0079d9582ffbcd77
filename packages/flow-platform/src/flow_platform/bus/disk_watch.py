"""Notices that nats-server could not write, and when it can again.

After one failed write a stream stays broken until the server is started again: it stores nothing and answers nothing,
also when there is room. What it had acknowledged before is kept. Measured with nats-server 2.15.1.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# Its log tells of every failed write; but a log on the same disk may be silent, so an empty disk counts, too.
FAILED_WRITE: Final = (b"Critical write error", b"no space left on device", b"JetStream out of")
FULL_BELOW_BYTES: Final = 1 << 20
FREE_AGAIN_BYTES: Final = 8 << 20  # Enough for its files' headers and some messages; more comes free or it fails again.
MAX_READ_BYTES: Final = 1 << 20


class DiskWatch:
    """Looks at the log and the disk of one server."""

    def __init__(self, directory: Path, log: Path) -> None:
        self._directory = directory
        self._log = log
        self._position = self._log_size()
        self._has_failed = False

    def needs_restart(self) -> bool:
        """True once a write failed and there is room again. Then it starts from the beginning."""
        free = self._free_bytes()
        news = self._news()
        if free < FULL_BELOW_BYTES or any(sign in news for sign in FAILED_WRITE):
            self._has_failed = True
        if not self._has_failed or free < FREE_AGAIN_BYTES:
            return False
        self._has_failed = False
        return True

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize

    def _log_size(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

    def _news(self) -> bytes:
        size = self._log_size()
        if size < self._position:
            self._position = 0  # A new file took its place.
        if size == self._position:
            return b""
        try:
            with self._log.open("rb") as file:
                file.seek(max(self._position, size - MAX_READ_BYTES))
                news = file.read(MAX_READ_BYTES)
        except OSError:
            return b""
        self._position = size
        return news

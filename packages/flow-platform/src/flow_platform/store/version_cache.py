"""Versions that were read before. A version never changes, and every submit and every claim needs one."""

from __future__ import annotations

import threading
from typing import Final

from flow_platform.domain.component import Version

MAX_VERSIONS: Final = 128


class VersionCache:
    """Of one store, for all its threads; who came first leaves first."""

    def __init__(self) -> None:
        self._versions: dict[str, Version] = {}
        self._lock = threading.Lock()

    def find(self, version_id: str) -> Version | None:
        return self._versions.get(version_id)

    def keep(self, version: Version) -> None:
        with self._lock:
            if len(self._versions) >= MAX_VERSIONS and version.id not in self._versions:
                del self._versions[next(iter(self._versions))]
            self._versions[version.id] = version

"""uv's cache, in the hands of one build at a time.

A build sandbox owns the folder while it runs (its files change their owner and back), so two builds cannot share one.
There are a few caches, and a build takes the first that is free: nearly always the same one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

from flow_platform.build.folder import remove_tree

logger = logging.getLogger(__name__)

CACHES: Final = 4  # More builds than that at the same time wait.
MAX_CACHE_BYTES: Final = 4 << 30  # Of each; a larger one is thrown away whole: it is only a cache.
POLL_SECONDS: Final = 0.1


class UvCaches:
    """The caches of this machine, shared by all its runners.

    Args:
        path: Their parent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.asynccontextmanager
    async def take(self) -> AsyncGenerator[Path]:
        """The first free cache, held until the end of the block."""
        self._path.mkdir(parents=True, exist_ok=True)
        while (taken := self._try_take()) is None:  # noqa: ASYNC110 - the holder may be another process.
            await asyncio.sleep(POLL_SECONDS)
        descriptor, cache = taken
        try:
            yield cache
            await asyncio.to_thread(_bound, cache)
        finally:
            os.close(descriptor)

    def _try_take(self) -> tuple[int, Path] | None:
        for number in range(CACHES):
            descriptor = os.open(self._path / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            cache = self._path / str(number)
            cache.mkdir(exist_ok=True)
            return descriptor, cache
        return None


def _bound(cache: Path) -> None:
    size = sum(Path(parent, name).lstat().st_size for parent, _, names in os.walk(cache) for name in names)
    if size > MAX_CACHE_BYTES:
        logger.info("emptying a cache of packages", extra={"bytes": size})
        remove_tree(cache)

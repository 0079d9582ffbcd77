"""Finished environments on disk: complete or absent, never half, and never more than a bound together.

    environments/<digest>/lock        flock: shared while a process uses the environment, exclusive to make or remove it
    environments/<digest>/complete    JSON {"folder", "bytes"}; its time says when the environment was last used
    environments/<digest>/<folder>/   the packages; a new name for each build, so that no template confuses two of them

The lock file stays when an environment is removed: were it removed too, two processes could each hold "the" lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

UNUSED_SECONDS: Final = 3600.0  # An environment used within the last hour is never removed.
TOUCH_SECONDS: Final = 60.0  # How exactly the last use is known.
_COMPLETE: Final = "complete"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Folder:
    """One process's view of the environments below one folder. All methods are quick but `finish` and `collect`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._locks: dict[str, int] = {}
        self._packages: dict[str, Path] = {}
        self._touched: dict[str, float] = {}

    def find(self, digest: str) -> Path | None:
        """The packages of a complete environment, which stays from now on until this process ends."""
        known = self._packages.get(digest)
        if known is None and self._locks.get(digest) is None and (self._home(digest) / _COMPLETE).exists():
            known = self._open(digest)
        if known is not None:
            self._touch(digest)
        return known

    def try_lock(self, digest: str) -> bool:
        """Takes the exclusive lock; False while another process has the environment in its hands."""
        home = self._home(digest)
        home.mkdir(parents=True, exist_ok=True)
        if digest not in self._locks:
            self._locks[digest] = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._locks[digest], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self, digest: str) -> None:
        """Gives the lock back without an environment."""
        descriptor = self._locks.pop(digest, None)
        if descriptor is not None:
            os.close(descriptor)

    def locked(self, digest: str) -> Path | None:
        """What another process finished before we got the lock; keeps it in use."""
        packages = self._read(digest)
        if packages is not None:
            self._keep(digest, packages)
        return packages

    def finish(self, digest: str, packages: Path) -> Path:
        """Moves built packages into place; the caller holds the lock. Readable by all, writable by nobody."""
        size = _seal(packages)
        home = self._home(digest)
        target = home / secrets.token_hex(4)
        packages.rename(target)
        draft = home / f"{_COMPLETE}.new"
        draft.write_text(json.dumps({"folder": target.name, "bytes": size}))
        draft.replace(home / _COMPLETE)
        self._keep(digest, target)
        return target

    def collect(self, max_bytes: int) -> list[str]:
        """Removes the least recently used environments until the rest fits; returns their digests."""
        found = sorted(self._all(), key=lambda entry: entry[1])
        total = sum(size for _, _, size in found)
        removed: list[str] = []
        now = time.time()  # noqa: TID251 - compared with the file system's clock.
        for digest, used_at, size in found:
            if total <= max_bytes or now - used_at < UNUSED_SECONDS:
                break
            if digest not in self._packages and self._remove(digest):
                total -= size
                removed.append(digest)
        return removed

    def close(self) -> None:
        for descriptor in self._locks.values():
            os.close(descriptor)
        self._locks.clear()
        self._packages.clear()

    def _home(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"digest {digest!r} is not 64 hexadecimal digits")
        return self._path / digest

    def _open(self, digest: str) -> Path | None:
        descriptor = os.open(self._home(digest) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        packages = self._read(digest)
        if packages is None:
            os.close(descriptor)
            return None
        self._locks[digest] = descriptor
        self._packages[digest] = packages
        return packages

    def _keep(self, digest: str, packages: Path) -> None:
        fcntl.flock(self._locks[digest], fcntl.LOCK_SH)
        self._packages[digest] = packages

    def _read(self, digest: str) -> Path | None:
        home = self._home(digest)
        try:
            packages = home / str(json.loads((home / _COMPLETE).read_text())["folder"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return packages if packages.is_dir() else None

    def _touch(self, digest: str) -> None:
        now = time.monotonic()
        if now - self._touched.get(digest, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            self._touched[digest] = now
            os.utime(self._home(digest) / _COMPLETE)

    def _all(self) -> Iterator[tuple[str, float, int]]:
        for complete in self._path.glob(f"*/{_COMPLETE}"):
            try:
                size = int(json.loads(complete.read_text())["bytes"])
                yield complete.parent.name, complete.stat().st_mtime, size
            except (OSError, ValueError, KeyError, TypeError) as error:
                logger.warning("environment %s is unreadable: %s", complete.parent.name, error)

    def _remove(self, digest: str) -> bool:
        home = self._home(digest)
        descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (home / _COMPLETE).unlink(missing_ok=True)
            for folder in home.iterdir():
                if folder.is_dir():
                    remove_tree(folder)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True


def remove_abandoned(parent: Path) -> None:
    """Removes work folders that a killed process left behind; none is in use for that long."""
    oldest = time.time() - UNUSED_SECONDS  # noqa: TID251 - compared with the file system's clock.
    for path in parent.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest:
                remove_tree(path)


def remove_tree(folder: Path) -> None:
    """Removes a folder that may have been made read-only."""
    for parent, _, _ in os.walk(folder):
        Path(parent).chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)


def _seal(folder: Path) -> int:
    """Makes the tree readable by all and writable by nobody; returns its size.

    What a package put there is not trusted: links are not followed, and special files are removed.
    """
    size = 0
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(parent, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                size += status.st_size
                path.chmod(0o555 if status.st_mode & 0o100 else 0o444)
            elif not stat.S_ISLNK(status.st_mode):
                path.unlink()
        Path(parent).chmod(0o755 if Path(parent) == folder else 0o555)
    return size

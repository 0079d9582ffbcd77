"""Finds runsc, what it can, and keeps a copy of it where jails can see it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flow_platform.domain.errors import SandboxUnavailable

NAME: Final = "runsc"
INSTALL_HINT: Final = (
    "install gVisor's runsc, e.g. `apt-get install runsc` (Debian), a release of 2023 or later, or name its path in "
    "FLOW_RUNSC"
)
_SECONDS: Final = 10.0
_ABANDONED_SECONDS: Final = 3600.0
_VERSION: Final = re.compile(r"runsc version (\S+)")


@dataclass(frozen=True)
class Program:
    """A runsc that can be executed.

    Attributes:
        path: Where it is on the host.
        version: As it says itself, e.g. `release-20240729.0`.
        platform: `systrap`, or `ptrace` in releases that do not have that.
        flags: Names of all that it takes before its command.
    """

    path: Path
    version: str
    platform: str
    flags: frozenset[str]

    @property
    def is_old(self) -> bool:
        """Without systrap: several times slower, and it lacks mounts that can be made read-only."""
        return self.platform != "systrap"


def find_program(named: str | Path | None) -> Program:
    """Asks runsc itself.

    Args:
        named: A path; None or empty: the one on PATH.

    Raises:
        SandboxUnavailable: There is none, or it does not answer.
    """
    path = shutil.which(str(named or NAME))
    if path is None:
        raise SandboxUnavailable(f"{str(named or NAME)!r} is no program that can be executed", hint=INSTALL_HINT)
    version = _VERSION.search(_ask(path, "--version"))
    flags = frozenset(re.findall(r"^\s+--?([a-z0-9-]+)", _ask(path, "flags"), re.MULTILINE))
    if version is None or "platform" not in flags:
        raise SandboxUnavailable(f"{path!r} does not answer as gVisor's runsc", hint=INSTALL_HINT)
    has_systrap = bool(re.search(r"-platform \S+\n\s.*\bsystrap\b", _ask(path, "flags")))
    return Program(Path(path), version[1], "systrap" if has_systrap else "ptrace", flags)


def _ask(path: str, question: str) -> str:
    try:
        done = subprocess.run([path, question], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise SandboxUnavailable(f"{path!r} could not be executed: {exc}", hint=INSTALL_HINT) from exc
    return done.stdout + done.stderr


def ensure_copy(program: Program, cache_dir: Path) -> Path:
    """A folder for a jail's `/build`: a copy of runsc, and empty folders where the jail mounts the container's root.

    A copy, because another user executes it, and an upgrade of the host's must not change it under running containers.
    """
    try:
        with program.path.open("rb") as file:
            folder = cache_dir / "gvisor" / hashlib.file_digest(file, "sha256").hexdigest()[:20]
        if not folder.is_dir():
            _make(program, folder)
    except OSError as exc:
        raise SandboxUnavailable(f"{str(program.path)!r} cannot be copied to {str(cache_dir)!r}: {exc}") from exc
    return folder


def _remove_abandoned(parent: Path) -> None:
    """What a process that died while copying left."""
    oldest = time.time() - _ABANDONED_SECONDS  # noqa: TID251 - compared with the file system's clock.
    for path in parent.glob(".building-*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path, ignore_errors=True)


def _make(program: Program, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o755)
    _remove_abandoned(folder.parent)
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        shutil.copyfile(program.path, building / NAME)
        (building / NAME).chmod(0o755)
        for name in ("root", "env"):
            (building / name).mkdir(mode=0o755)
        building.chmod(0o755)
        os.rename(building, folder)  # noqa: PTH104 - not over an existing one: then another process was faster.
    except OSError:
        shutil.rmtree(building, ignore_errors=True)
        if not folder.is_dir():
            raise

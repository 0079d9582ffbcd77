"""The file of master keys: made by `flow up`, and led by a new key after `flow secret rotate`."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Final

from flow_platform.domain.errors import FlowError
from flow_platform.settings import Settings

KEY_BYTES: Final = 32


def ensure_master_key(settings: Settings) -> None:
    """Makes the file when no master key comes from elsewhere.

    Raises:
        FlowError: It cannot be written.
    """
    path = settings.master_key_file
    if path is not None and not (settings.master_key or settings.master_key_command or path.exists()):
        _write(path, _new_key())


def rotate(path: Path) -> int:
    """Puts a new key in front of the others; returns how many there are. They take effect at the next start.

    Raises:
        FlowError: There is no such file, or it cannot be written.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise FlowError(
            f"the master key file {str(path)!r} cannot be read: {error.strerror}",
            hint="a key of FLOW_MASTER_KEY is rotated by giving the new one, and the old one as"
            " FLOW_PREVIOUS_MASTER_KEY",
        ) from error
    _write(path, _new_key() + text)
    return sum(1 for line in text.splitlines() if line.strip() and line[0] != "#") + 1


def _new_key() -> str:
    return base64.b64encode(os.urandom(KEY_BYTES)).decode() + "\n"


def _write(path: Path, text: str) -> None:
    """On the disk when it returns: what it encrypts is of no use without it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise FlowError(f"the master key file {str(path)!r} cannot be written: {error.strerror}") from error

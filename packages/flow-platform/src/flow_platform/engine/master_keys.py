"""Master keys: they encrypt the data keys of workspaces and nothing else, and are never in the database.

A key is 32 random bytes, from a file or a variable, or it stays in a key management service that a command speaks to.
Several may be known at a time: the current one encrypts, the others only decrypt what they encrypted before.

Source: NIST SP 800-38D (GCM, random 96-bit nonces), SP 800-57 part 1 (key wrapping, rotation).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import logging
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from flow_platform.domain.errors import SettingsError
from flow_platform.domain.secrets import MasterKeyUnavailable, SecretUnreadable

logger = logging.getLogger(__name__)

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
COMMAND_ID: Final = "command"
COMMAND_SECONDS: Final = 20.0  # A key management service answers in tens of milliseconds.
MAX_COMMAND_ANSWER: Final = 64 << 10
_FORBIDDEN_MODE: Final = 0o077


class MasterKey(Protocol):
    """Encrypts data keys.

    Attributes:
        id: Names the key in the database; says nothing about it.
    """

    id: str

    async def wrap(self, data_key: bytes, context: str) -> bytes: ...

    async def unwrap(self, wrapped: bytes, context: str) -> bytes:
        """Raises SecretUnreadable: it was not encrypted by this key for this context."""
        ...


def encrypt(key: bytes, plain: bytes, context: bytes) -> bytes:
    """AES-256-GCM under a random nonce, which stands in front."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, context)


def decrypt(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Raises SecretUnreadable: another key or context, or not what `encrypt` gave."""
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
    except (InvalidTag, ValueError) as error:
        raise SecretUnreadable("the stored bytes cannot be decrypted: another key, or they were changed") from error


class LocalMasterKey:
    """A key that this process holds."""

    def __init__(self, key: bytes) -> None:
        assert len(key) == KEY_BYTES  # noqa: S101 - `parse_key` sees to it.
        self._key = key
        self.id = "local-" + hashlib.sha256(b"flow master key id\0" + key).hexdigest()[:16]

    async def wrap(self, data_key: bytes, context: str) -> bytes:
        return encrypt(self._key, data_key, context.encode())

    async def unwrap(self, wrapped: bytes, context: str) -> bytes:
        return decrypt(self._key, wrapped, context.encode())


class CommandMasterKey:
    """A key of a key management service: `COMMAND wrap CONTEXT` and `COMMAND unwrap CONTEXT`, base64 in and out.

    What the command writes to standard error goes to the server's log.
    """

    def __init__(self, command: str) -> None:
        self._argv = shlex.split(command)
        self.id = COMMAND_ID

    async def wrap(self, data_key: bytes, context: str) -> bytes:
        return await self._run("wrap", data_key, context)

    async def unwrap(self, wrapped: bytes, context: str) -> bytes:
        return await self._run("unwrap", wrapped, context)

    async def _run(self, verb: str, given: bytes, context: str) -> bytes:
        own = {name: value for name, value in os.environ.items() if not name.startswith("FLOW_")}
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv, verb, context, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=own
            )
        except OSError as error:
            raise MasterKeyUnavailable(f"the command of the master key cannot be run: {error.strerror}") from error
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                answer, _ = await process.communicate(base64.b64encode(given) + b"\n")
        except TimeoutError:
            raise MasterKeyUnavailable(
                f"the command of the master key did not {verb} within {COMMAND_SECONDS:g} s"
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        if process.returncode != 0 or len(answer) > MAX_COMMAND_ANSWER:
            raise MasterKeyUnavailable(
                f"the command of the master key ended with {process.returncode!r} and {len(answer)} bytes",
                hint="what it wrote to standard error is in the log of the server",
            )
        try:
            return base64.b64decode(answer.strip(), validate=True)
        except binascii.Error as error:
            raise MasterKeyUnavailable("the command of the master key did not answer in base64") from error


@dataclass(frozen=True)
class MasterKeys:
    """What this process was given.

    Attributes:
        current: Encrypts. None: there are no secrets here.
        earlier: Only decrypt.
        lost_id: A key that nobody has any more; what it encrypted is deleted at the start.
    """

    current: MasterKey | None = field(default=None, repr=False)
    earlier: Sequence[MasterKey] = field(default=(), repr=False)
    lost_id: str = ""

    def require_current(self) -> MasterKey:
        if self.current is None:
            raise MasterKeyUnavailable(
                "this server has no master key, so it can keep no secrets",
                hint="give FLOW_MASTER_KEY, FLOW_MASTER_KEY_FILE or FLOW_MASTER_KEY_COMMAND, the same to all servers",
            )
        return self.current

    def find(self, key_id: str) -> MasterKey | None:
        known = [self.current, *self.earlier] if self.current is not None else []
        return next((key for key in known if key.id == key_id), None)


def new_key() -> str:
    """A master key as text."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def parse_key(text: str, source: str) -> LocalMasterKey:
    """Reads a key as `new_key` or `openssl rand -base64 32` makes it.

    Raises:
        SettingsError: It is none. The message never shows it.
    """
    try:
        key = base64.b64decode(text.strip().translate(str.maketrans("-_", "+/")), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(
            f"{source} is no master key: expected {KEY_BYTES} bytes in base64 (openssl rand -base64 32)"
        )
    if len(set(key)) == 1:
        raise SettingsError(f"{source} is no master key: all its bytes are equal, and a key is random")
    return LocalMasterKey(key)


def load_master_keys(*, key: str, previous_key: str, file: Path | None, command: str, lost_id: str) -> MasterKeys:
    """The master keys of this process: the command wins over the variable, the variable over the file.

    What is not the current one still decrypts, so that changing the source re-encrypts the data keys by itself.

    Args:
        file: One key per line, the current one first; lines that are empty or begin with `#` are skipped.

    Raises:
        SettingsError: A key is none, or the file can be read by others than its owner.
    """
    known: list[MasterKey] = [CommandMasterKey(command)] if command else []
    if key:
        known.append(parse_key(key, "FLOW_MASTER_KEY"))
    if file is not None:
        known += _read_file(file)
    if previous_key and not known:
        raise SettingsError("FLOW_PREVIOUS_MASTER_KEY is given alone: expected the newer master key with it")
    if previous_key:
        known.append(parse_key(previous_key, "FLOW_PREVIOUS_MASTER_KEY"))
    return MasterKeys(known[0], known[1:], lost_id) if known else MasterKeys(lost_id=lost_id)


def _read_file(path: Path) -> list[LocalMasterKey]:
    try:
        mode = path.stat().st_mode
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the master key file {str(path)!r} cannot be read: {type(error).__name__}") from error
    if mode & _FORBIDDEN_MODE:
        raise SettingsError(
            f"the master key file {str(path)!r} has the mode {mode & 0o777:04o}: expected 0600",
            hint=f"chmod 600 {shlex.quote(str(path))}",
        )
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    if not numbered:
        raise SettingsError(f"the master key file {str(path)!r} holds no key")
    return [parse_key(line, f"{str(path)!r} line {number}") for number, line in numbered]

"""Secrets: what is kept of one, which one an execution gets, and which values are taken at all.

Nothing here holds a value in plain text, and what holds an encrypted one does not show it (`repr=False`): a record that
lands in a log line or a traceback says whose it is and no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from flow_platform.domain import errors

MIN_VALUE_CHARACTERS: Final = 6  # A shorter one stands in too much harmless text to be taken out of it.
MAX_VALUE_BYTES: Final = 32 << 10  # A private key with its chain of certificates has some 10 KiB.
MAX_SECRETS: Final = 1_000  # Of one workspace, its rings' own values included.
MAX_ATTEMPT_BYTES: Final = 256 << 10  # All that one attempt is given: one message, and one environment.
WORKSPACE_WIDE: Final = ""
"""In place of a ring: the value of every ring that has none of its own."""


class MasterKeyUnavailable(errors.FlowError):
    """Secrets can be neither encrypted nor decrypted here."""

    code = "master_key_unavailable"
    http_status = 503


class SecretUnreadable(errors.FlowError):
    """What is stored is not what was stored: another key, or changed by somebody."""

    code = "secret_unreadable"
    http_status = 500


@dataclass(frozen=True)
class SecretInfo:
    """What may be said of a secret.

    Attributes:
        ring_id: `WORKSPACE_WIDE`, or the ring whose executions get this value instead of the workspace's.
        version: From 1; each new value is the next one. A value that was replaced is kept nowhere.
        created_at: Of this version, as is `created_by`.
    """

    org_id: str
    workspace_id: str
    name: str
    ring_id: str
    version: int
    created_at: datetime
    created_by: str


@dataclass(frozen=True)
class SealedSecret:
    """A secret as it is stored."""

    info: SecretInfo
    sealed: bytes = field(repr=False)


@dataclass(frozen=True)
class DataKey:
    """The key of one workspace's values, encrypted by a master key."""

    org_id: str
    workspace_id: str
    master_key_id: str
    wrapped: bytes = field(repr=False)
    created_at: datetime


def value_context(info: SecretInfo) -> bytes:
    """What an encrypted value is bound to: moved to another name, ring, version or tenant it cannot be decrypted."""
    bound = ["flow secret", info.org_id, info.workspace_id, info.ring_id, info.name, info.version]
    return json.dumps(bound, separators=(",", ":")).encode()


def key_context(org_id: str, workspace_id: str) -> str:
    """What a data key is bound to. Also the encryption context for a key management service, so printable."""
    return f"flow/data-key/1/{org_id}/{workspace_id}"


def check_value(value: Any) -> str:
    """Returns a value that can be kept and redacted.

    Raises:
        InvalidInput: It is none. The message never shows it.
    """
    if not isinstance(value, str):
        raise _refused(f"expected text, got {type(value).__name__}")
    if "\0" in value or (not value.isascii() and not _is_encodable(value)):
        raise _refused("expected text without NUL characters and lone surrogates: it becomes an environment variable")
    size = len(value.encode())
    if size > MAX_VALUE_BYTES:
        raise _refused(f"it has {size} bytes, expected at most {MAX_VALUE_BYTES}")
    if len("".join(value.split())) < MIN_VALUE_CHARACTERS:
        raise _refused(
            f"expected at least {MIN_VALUE_CHARACTERS} characters that are not white space: a shorter value could not"
            " be redacted from logs and results without destroying them"
        )
    return value


def in_force(found: Iterable[SealedSecret], ring_id: str | None) -> dict[str, SealedSecret]:
    """By name: the ring's own value where there is one, else the workspace's."""
    chosen: dict[str, SealedSecret] = {}
    for secret in found:
        name, ring = secret.info.name, secret.info.ring_id
        if ring not in (WORKSPACE_WIDE, ring_id):
            continue
        if name not in chosen or ring != WORKSPACE_WIDE:
            chosen[name] = secret
    return chosen


def _refused(reason: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"the value of the secret is not valid: {reason}", details=[{"field": "value", "message": reason}]
    )


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

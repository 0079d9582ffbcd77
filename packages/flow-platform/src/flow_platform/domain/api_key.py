"""API keys: long-lived credentials of programs, for one role in one workspace, or in a whole organization.

The name of a key is the service account that it acts as: whoever replaces one makes a second of the same name first.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from flow_platform.domain.principal import Role

PREFIX: Final = "fl_"
SHOWN_CHARACTERS: Final = len(PREFIX) + 6  # Enough to tell keys apart; 220 bits stay unknown.
MAX_KEYS: Final = 200  # Of one workspace, and of an organization itself.
DEFAULT_LIFE: Final = timedelta(days=90)
MAX_LIFE: Final = timedelta(days=366)
_KEY: Final = re.compile(r"fl_[A-Za-z0-9_-]{43}")  # 32 random bytes in base64.


@dataclass(frozen=True)
class ApiKey:
    """What is kept of a key: not the key.

    Attributes:
        workspace_id: None: for all workspaces of the organization.
        shown: Its first characters.
        digest: SHA-256 of the key, hexadecimal. Enough, without salt and without a slow hash: these are against
            guessing what people choose, and a key is 256 random bits.
        last_used_at: Give or take a minute.
        custom_role: When `role` is custom: its name.
    """

    id: str
    org_id: str
    workspace_id: str | None
    name: str
    role: Role
    shown: str
    digest: str = field(repr=False)
    created_at: datetime
    created_by: str
    expires_at: datetime
    last_used_at: datetime | None = None
    custom_role: str | None = None

    @property
    def role_name(self) -> str:
        return self.custom_role or self.role.value


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def is_key(text: str) -> bool:
    """Whether it has the form of a key: what has not is not looked for."""
    return _KEY.fullmatch(text) is not None

"""Custom roles, and what is not believed any more before its time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from flow_platform.domain.principal import Action, Role

MAX_ROLES: Final = 100  # Of one workspace.
MAX_REVOCATIONS: Final = 10_000  # Of one organization at a time: every server holds them all in memory.
MAX_TOKEN_LIFE: Final = timedelta(days=30)  # So long a revocation is kept, and an old key believed.
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
_RESERVED: Final = frozenset(role.value for role in Role)


@dataclass(frozen=True)
class CustomRole:
    """A named set of actions in one workspace. Whoever has the role may from the next request what it says then."""

    org_id: str
    workspace_id: str
    name: str
    actions: frozenset[Action]
    description: str
    updated_at: datetime
    updated_by: str


@dataclass(frozen=True)
class Revocation:
    """What is revoked of one organization.

    Attributes:
        kind: `token`: the one of this id. `subject`: all that were issued to it until then.
        name: The token's id, or the subject.
        expires_at: From when on nothing is left that it could be about.
    """

    org_id: str
    kind: Literal["token", "subject"]
    name: str
    revoked_at: datetime
    revoked_by: str
    expires_at: datetime


def is_role_name(name: str) -> bool:
    """Whether a custom role may have that name: those of the built-in ones are taken."""
    return _NAME.fullmatch(name) is not None and name not in _RESERVED

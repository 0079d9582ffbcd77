"""The port of what decides about credentials besides API keys, a part of the store's."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from flow_platform.domain.roles import CustomRole, Revocation


class CredentialTable(Protocol):
    def retire_key(self, kid: str, at: datetime) -> bool:
        """Lets a signing key verify until then, unless it is retired before; False when there is none to change."""
        ...

    def delete_keys(self, retired_before: datetime) -> int:
        """Forgets keys that nobody needs; returns how many."""
        ...

    def revoke(self, revocation: Revocation) -> None:
        """Inserts it, or replaces the one of the same token or subject."""
        ...

    def revocations(self, now: datetime) -> list[Revocation]:
        """All that still matter, of all organizations."""
        ...

    def forget_revocations(self, now: datetime) -> int:
        """Deletes those of tokens that have expired."""
        ...

    def count_revocations(self, org_id: str, now: datetime) -> int: ...

    def save_role(self, role: CustomRole) -> None:
        """Inserts it, or replaces the one of the same name."""
        ...

    def find_role(self, org_id: str, workspace_id: str, name: str) -> CustomRole | None: ...

    def roles(self, org_id: str, workspace_id: str) -> list[CustomRole]:
        """By name."""
        ...

    def delete_role(self, org_id: str, workspace_id: str, name: str) -> bool: ...

"""The port of secrets, a part of the store's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from flow_platform.domain.secrets import DataKey, SealedSecret, SecretInfo


class SecretTable(Protocol):
    """Everything is encrypted before it comes here."""

    def save(self, secret: SealedSecret) -> None:
        """Inserts it, or replaces the value of the same name and ring."""
        ...

    def find(self, org_id: str, workspace_id: str, names: Sequence[str]) -> list[SealedSecret]:
        """Those of the names, of all rings."""
        ...

    def of_workspace(self, org_id: str, workspace_id: str) -> list[SecretInfo]:
        """By name, each name's workspace-wide value first."""
        ...

    def count(self, org_id: str, workspace_id: str) -> int: ...

    def delete(self, org_id: str, workspace_id: str, name: str, ring_id: str) -> bool: ...

    def insert_key(self, key: DataKey) -> None:
        """Raises Conflict when the workspace has one; after a race the store runs the operation again first."""
        ...

    def find_key(self, org_id: str, workspace_id: str) -> DataKey | None: ...

    def keys(self) -> list[DataKey]:
        """Of all workspaces."""
        ...

    def rewrap(self, key: DataKey, before: str) -> bool:
        """Replaces how the workspace's key is encrypted, if it still is by the master key `before`."""
        ...

    def forget(self, org_id: str, workspace_id: str) -> None:
        """Deletes the workspace's key and all of its secrets."""
        ...

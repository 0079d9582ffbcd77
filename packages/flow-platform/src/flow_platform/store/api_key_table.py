"""The port of API keys, a part of the store's. A workspace of None: keys for the whole organization."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from flow_platform.domain.api_key import ApiKey


class ApiKeyTable(Protocol):
    def insert(self, key: ApiKey) -> None: ...

    def find_by_digest(self, digest: str) -> ApiKey | None:
        """Of whatever tenant: the key says whose it is."""
        ...

    def of_workspace(self, org_id: str, workspace_id: str | None) -> list[ApiKey]:
        """Newest first."""
        ...

    def exists(self, org_id: str, workspace_id: str | None, key_id: str) -> bool: ...

    def count(self, org_id: str, workspace_id: str | None) -> int: ...

    def delete(self, org_id: str, workspace_id: str | None, key_id: str) -> bool: ...

    def note_use(self, key_id: str, at: datetime) -> None: ...

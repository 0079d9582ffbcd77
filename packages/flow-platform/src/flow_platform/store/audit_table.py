"""The port of the audit log, a part of the store's. Nothing changes an entry, and only age removes any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from flow_platform.domain.audit import AuditEntry


@dataclass(frozen=True)
class AuditFilter:
    """None: whatever it is."""

    kind: str | None = None
    action: str | None = None
    subject: str | None = None
    workspace_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class AuditTable(Protocol):
    def append(self, org_id: str, content: Mapping[str, Any], at: datetime) -> AuditEntry:
        """Adds an entry behind the newest of the organization, in this transaction.

        Args:
            org_id: Whose log it is.
            content: `kind`, `action`, `subject` and `workspace_id` are what it is found by.
            at: When it happened.
        """
        ...

    def page(self, org_id: str, where: AuditFilter, before: int | None, limit: int) -> list[AuditEntry]:
        """Newest first, those before a sequence number."""
        ...

    def after(self, org_id: str, sequence: int, limit: int) -> list[AuditEntry]:
        """All in their order, those after a sequence number."""
        ...

    def head(self, org_id: str) -> tuple[int, str]:
        """Sequence and hash of the newest, as the log itself knows it."""
        ...

    def organizations(self) -> list[str]:
        """All that have entries."""
        ...

    def removable(self, org_id: str, before: datetime, limit: int) -> tuple[int, AuditEntry | None]:
        """How many are removed already, and the last that may be now: older than that, and of the first `limit`.

        Locks the log: nobody else appends to it or removes from it before the transaction ends.
        """
        ...

    def remove_to(self, org_id: str, sequence: int) -> None:
        """Removes the entries up to that one. The database lets nobody remove others."""
        ...

"""The port of policies, a part of the store's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from flow_platform.domain.policy import Policies, Policy
from flow_platform.domain.rate_limit import Bucket


@dataclass(frozen=True)
class StoredPolicy:
    policy: Policy
    updated_at: datetime
    updated_by: str


class PolicyTable(Protocol):
    def of_workspace(self, org_id: str, workspace_id: str) -> list[StoredPolicy]:
        """By component and ring; that of the whole workspace first."""
        ...

    def save(self, org_id: str, workspace_id: str, stored: StoredPolicy) -> None:
        """Inserts it, or replaces that of the same scope."""
        ...

    def delete(self, org_id: str, workspace_id: str, component_id: str | None, ring_id: str | None) -> bool: ...

    def revise(self, workspace_id: str, at: datetime, *, limit_starts: bool) -> None:
        """Tells all engines that the workspace's policies changed. Waits for whoever holds its lock."""
        ...

    def last_seen(self, workspace_id: str) -> Policies:
        """For new executions, and for people: nothing is read. A change elsewhere shows after the next `refresh`."""
        ...

    def at(self, workspace_id: str, revision: int) -> Policies:
        """Those of a revision that was read in the same transaction: read only when it is new."""
        ...

    def refresh(self) -> None:
        """Reads again what changed, of all workspaces."""
        ...

    def lock(self, workspace_ids: Iterable[str]) -> dict[str, int]:
        """Locks the workspaces until the end of the transaction: what starts in them is decided by one engine at a
        time. Those that another engine holds are left out, not waited for. Returns their revisions.
        """
        ...

    def buckets(self, keys: Sequence[str]) -> dict[str, Bucket]:
        """What is left of rates; a key that is missing was never used."""
        ...

    def save_buckets(self, workspace_id: str, buckets: Mapping[str, Bucket]) -> None: ...

"""The port of parts of agents, a part of the store's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from flow_platform.domain.part import Part, PartKind, PartVersion


@dataclass(frozen=True)
class PartPage:
    """Newest first. `next_cursor` is opaque, None on the last page."""

    items: Sequence[Part]
    next_cursor: str | None


class PartTable(Protocol):
    def find(self, org_id: str, workspace_id: str, kind: PartKind, id_or_slug: str) -> Part | None: ...

    def insert(self, part: Part) -> None: ...

    def update(self, part: Part) -> None:
        """Name, description and latest version."""
        ...

    def list(self, org_id: str, workspace_id: str, kind: PartKind, cursor: str | None, limit: int) -> PartPage: ...

    def insert_version(self, version: PartVersion) -> None: ...

    def find_version(self, part_id: str, number: int | None = None) -> PartVersion | None:
        """That one, or the newest."""
        ...

    def find_version_by_digest(self, part_id: str, digest: str) -> PartVersion | None: ...

    def versions(self, part_id: str, limit: int) -> Sequence[PartVersion]:
        """Newest first."""
        ...

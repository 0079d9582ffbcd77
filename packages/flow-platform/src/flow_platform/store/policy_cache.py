"""Policies as this process last saw them: parsed once per change, by whoever notices it first."""

from __future__ import annotations

from typing import Final

from flow_platform.domain.policy import Policies

_NONE: Final = Policies()


class PolicyCache:
    """Per workspace, with the revision that says whether they are today's.

    Used by all threads of a store: an entry is replaced whole, and two that read the same change write the same.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, Policies]] = {}

    def last_seen(self, workspace_id: str) -> Policies:
        entry = self._entries.get(workspace_id)
        return entry[1] if entry else _NONE

    def find(self, workspace_id: str, revision: int) -> Policies | None:
        entry = self._entries.get(workspace_id)
        return entry[1] if entry and entry[0] == revision else None

    def keep(self, workspace_id: str, revision: int, policies: Policies) -> Policies:
        """A reader on an older snapshot changes nothing."""
        entry = self._entries.get(workspace_id)
        if entry is None or entry[0] < revision:
            self._entries[workspace_id] = (revision, policies)
        return policies

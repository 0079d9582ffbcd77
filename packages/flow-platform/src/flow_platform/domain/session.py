"""Conversations with an agent that the platform keeps, and the order of their turns."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

MAX_QUEUED_TURNS: Final = 100
"""That wait for the turn before them, of one conversation; more is a program that does not listen."""


@dataclass(frozen=True)
class SessionKey:
    """Which conversation of an agent in a ring.

    Attributes:
        owner: Whose long-term state it is about; empty for sessions that stand for themselves.
        session_id: Empty for the long-term state of the owner itself.
    """

    component_id: str
    ring_id: str
    owner: str
    session_id: str

    @property
    def line(self) -> SessionKey:
        """What its turns queue up for: all conversations of an owner share a state, so they share a line."""
        return SessionKey(self.component_id, self.ring_id, self.owner, "") if self.owner else self


@dataclass(frozen=True)
class Session:
    """What is kept.

    Attributes:
        turns: Completed ones.
        holder_id: The execution whose turn it is; it may have ended.
        queued: Executions whose turn comes, in their order; some may have ended.
    """

    key: SessionKey
    org_id: str
    workspace_id: str
    created_at: datetime
    updated_at: datetime
    messages: list[Any] = field(default_factory=list[Any])
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    turns: int = 0
    holder_id: str | None = None
    queued: tuple[str, ...] = ()

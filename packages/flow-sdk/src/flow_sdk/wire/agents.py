"""What a client sees of parts of agents and of sessions: documents of the management API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flow_sdk.wire.execution import Document


class PartVersionDocument(Document):
    """An immutable version of a part."""

    version: int
    digest: str
    content: dict[str, Any]
    created_at: datetime


class PartDocument(Document):
    """A named part of agents. `newest` is absent in lists."""

    id: str
    kind: str
    slug: str
    name: str
    description: str
    latest_version: int
    created_at: datetime
    newest: PartVersionDocument | None = None


class PublishedPartDocument(Document):
    """The answer to a publish: 201 for a new version, 200 for the one that has the content already."""

    id: str
    kind: str
    slug: str
    name: str
    version: int
    digest: str


class SessionDocument(Document):
    """A conversation that the platform keeps.

    Attributes:
        session_id: Empty: the long-term state of the owner.
        owner: Whose long-term state it is; empty for sessions that stand for themselves.
        running_execution_id: The turn that goes on now.
        queued: Turns that wait.
    """

    session_id: str
    owner: str
    ring_id: str
    turns: int
    created_at: datetime
    updated_at: datetime
    running_execution_id: str | None = None
    queued: int = 0
    messages: list[Any] | None = None
    state: dict[str, Any] | None = None

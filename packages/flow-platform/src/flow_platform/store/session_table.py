"""The port of sessions, a part of the store's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from flow_platform.domain.session import Session, SessionKey


class SessionTable(Protocol):
    def find(self, key: SessionKey, *, for_update: bool = False) -> Session | None: ...

    def ensure(self, session: Session) -> Session:
        """The session of that key, locked; the given one is written if there is none."""
        ...

    def update(self, session: Session) -> None:
        """Everything but the key and when it was made."""
        ...

    def list(self, org_id: str, workspace_id: str, component_id: str, limit: int) -> Sequence[Session]:
        """Of an agent in all rings, without messages and state; the one that changed last first."""
        ...

    def delete(self, key: SessionKey) -> bool: ...

    def keep_turn(self, execution_id: str, key: SessionKey) -> None:
        """Notes which conversation an execution is a turn of."""
        ...

    def key_of(self, execution_id: str) -> SessionKey | None: ...

"""What the engine asks of the store for checkpoints, and for the events that are sent to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from flow_platform.domain.checkpoint import Checkpoint, SentEvent
from flow_sdk.wire.durable import CheckpointStatus


class CheckpointTable(Protocol):
    def insert(self, checkpoint: Checkpoint) -> None: ...

    def find(self, checkpoint_id: str) -> Checkpoint | None: ...

    def finish(self, checkpoint: Checkpoint) -> bool:
        """Writes status, value and error, once; False when it was finished before."""
        ...

    def list(self, execution_id: str, limit: int) -> list[Checkpoint]:
        """Oldest first."""
        ...

    def count(self, execution_id: str) -> int: ...

    def open(self, execution_id: str, name: str) -> list[Checkpoint]:
        """Those of that name which are not finished, oldest first; some may be due."""
        ...

    def all_open(self, execution_id: str, limit: int) -> list[Checkpoint]:
        """The same, of any name."""
        ...

    def open_of_each(self, execution_ids: Sequence[str], limit: int) -> dict[str, list[Checkpoint]]:
        """`all_open` of several executions; those that have none are left out."""
        ...

    def insert_sent(self, event: SentEvent) -> None: ...

    def find_sent(self, execution_id: str, key: str) -> SentEvent | None: ...

    def oldest_unread(self, execution_id: str, name: str) -> SentEvent | None: ...

    def count_sent(self, execution_id: str) -> int: ...

    def count_unread(self, execution_id: str) -> int: ...

    def mark_read(self, event_id: str, checkpoint_id: str) -> None: ...

    def change(self, checkpoint: Checkpoint, before: CheckpointStatus) -> bool:
        """Writes what `finish` writes over a status that was recorded; False when that is another by now."""
        ...

    def give_back(self, execution_id: str, checkpoint_id: str) -> None:
        """Makes what a wait had read unread again, in its place among the others."""
        ...

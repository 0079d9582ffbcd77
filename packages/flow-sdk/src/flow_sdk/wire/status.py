"""The words of an execution: its statuses and the kinds of component. No imports beyond the standard library."""

from __future__ import annotations

import enum
from typing import Final


class Status(enum.StrEnum):
    """Where an execution is in its life. The five terminal ones are final."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"  # A workflow that holds no container.
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    DEAD_LETTER = "dead_letter"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL_STATUSES


TERMINAL_STATUSES: Final = frozenset(
    {Status.COMPLETED, Status.FAILED, Status.TIMEOUT, Status.DEAD_LETTER, Status.CANCELLED}
)


class Kind(enum.StrEnum):
    """What can be executed. The value is the word in JSON; the path segment of the API is `path`."""

    CODE_BLOCK = "code_block"
    TRANSFORM = "transform"
    AGENT = "agent"
    WORKFLOW = "workflow"

    @property
    def path(self) -> str:
        return self.value.replace("_", "-") + "s"

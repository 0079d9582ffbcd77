"""The port to the records of calls of language models."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from flow_platform.domain.model_call import ModelCall

if TYPE_CHECKING:
    from flow_platform.store.base import Page


@dataclass(frozen=True)
class ModelCallFilter:
    execution_id: str | None = None


@dataclass(frozen=True)
class ModelAnswer:
    """A completed answer that its execution may ask for again.

    Attributes:
        key: The execution's own `Idempotency-Key`.
        fingerprint: Digest of the request.
        call_id: Of the record of the call that was paid for.
        answer: JSON text.
    """

    execution_id: str
    key: str
    fingerprint: str
    call_id: str
    answer: str


class ModelTable(Protocol):
    def insert_call(self, call: ModelCall) -> None: ...

    def list_calls(
        self, org_id: str, workspace_id: str, where: ModelCallFilter, cursor: str | None, limit: int
    ) -> Page:
        """Calls, newest first.

        Raises:
            InvalidInput: The cursor is not one of ours.
        """
        ...

    def find_answer(self, execution_id: str, key: str) -> ModelAnswer | None: ...

    def save_answer(self, answer: ModelAnswer, at: datetime) -> None:
        """Keeps the first answer of a key; a second one changes nothing."""
        ...

    def delete_answers_before(self, at: datetime, limit: int) -> int:
        """Deletes up to that many that were saved before the instant, oldest first; returns how many."""
        ...

    def find_settings(self, org_id: str, workspace_id: str) -> str | None:
        """The workspace's configuration of the model gateway, as JSON text."""
        ...

    def save_settings(self, org_id: str, workspace_id: str, document: str, by: str, at: datetime) -> None: ...

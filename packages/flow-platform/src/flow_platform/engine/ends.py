"""Changes of an execution that may end it, and what follows for the parent that waits for it.

A parent that holds a container hears of its children by the reads that it keeps open. One that gave its container back
is `waiting`, and is woken here, in the transaction that ended the child: a workflow of code is queued again, for its
code to be replayed; a graph goes one step on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from flow_platform.domain import execution as domain
from flow_platform.domain.execution import Execution
from flow_platform.engine import repetition
from flow_platform.engine.turns_of_sessions import end_turn
from flow_platform.store.base import Transaction
from flow_sdk.wire.status import Status

Advance = Callable[[Transaction, Execution, datetime], list[Execution]]
"""Takes a graph workflow on after one of its children ended. Returns what it changed: itself, children it started."""


@dataclass
class Changes:
    """What a transaction changed, for those to be told who wait for it. The first is what it was about."""

    executions: list[Execution] = field(default_factory=list[Execution])

    @property
    def has_queued(self) -> bool:
        return any(execution.status is Status.QUEUED for execution in self.executions)


class Ends:
    """Writes changes.

    Args:
        advance: For graphs.
    """

    def __init__(self, advance: Advance) -> None:
        self._advance = advance

    def change(self, tx: Transaction, before: Execution, after: Execution, now: datetime) -> Changes:
        """Writes the change; if it ends the execution, its waiting parent goes on.

        Raises:
            Conflict: See `ExecutionTable.update`.
        """
        tx.executions.update(before, after)
        changes = Changes([after])
        if after.status.is_terminal:
            changes.executions += end_turn(tx, after, now)
            self._wake_parent(tx, after, now, changes)
        return changes

    def wake(self, tx: Transaction, waiting: Execution, now: datetime) -> Changes:
        """Queues a workflow that waits, because what it waits for may be there; begins a graph whose start has come.

        Any other is left as it is.
        """
        if waiting.is_graph and waiting.available_at is not None and waiting.available_at <= now:
            changes = Changes()
            self._go_on(tx, waiting, now, changes)
            return changes
        if waiting.status is not Status.WAITING or waiting.is_graph:
            return Changes()
        resumed = domain.apply(waiting, domain.Resumed(now))
        tx.executions.update(waiting, resumed)
        return Changes([resumed])

    def _wake_parent(self, tx: Transaction, ended: Execution, now: datetime, changes: Changes) -> None:
        parent = tx.executions.find(ended.parent_id, for_update=True) if ended.parent_id else None
        if parent is None:
            return
        self._go_on(tx, parent, now, changes)
        if parent.retried_as_id is not None:
            self._wake_those_who_joined(tx, ended, parent, now, changes)

    def _wake_those_who_joined(
        self, tx: Transaction, ended: Execution, parent: Execution, now: datetime, changes: Changes
    ) -> None:
        """The parent has ended, too, and was retried: its repetition may wait for the child that it left."""
        for later_id in list(repetition.later_ids(tx, parent)):
            if not tx.executions.joined(later_id, ended.id):
                continue
            tx.executions.release_child(later_id)
            later = tx.executions.find(later_id, for_update=True)
            if later is not None:
                self._go_on(tx, later, now, changes)

    def _go_on(self, tx: Transaction, waiting: Execution, now: datetime, changes: Changes) -> None:
        if waiting.status is not Status.WAITING:
            return
        if not waiting.is_graph:
            changes.executions += self.wake(tx, waiting, now).executions
            return
        advanced = self._advance(tx, waiting, now)
        changes.executions += advanced
        for execution in advanced:
            if execution.id == waiting.id and execution.status.is_terminal:
                self._wake_parent(tx, execution, now, changes)

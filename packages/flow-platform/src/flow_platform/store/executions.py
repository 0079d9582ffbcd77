"""Executions: made, found, changed. The table's other sides are in the files of its base classes."""

from __future__ import annotations

import functools

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.domain import errors
from flow_platform.domain.execution import Execution
from flow_platform.store.base import Payload
from flow_platform.store.calls import Calls
from flow_platform.store.connection import Connection
from flow_platform.store.execution_history import ExecutionHistory
from flow_platform.store.execution_lists import ExecutionLists
from flow_platform.store.execution_payloads import ExecutionPayloads
from flow_platform.store.execution_queue import ExecutionQueue
from flow_platform.store.execution_rows import COLUMNS, changed_columns, from_row, to_row
from flow_platform.store.failures import RowConflict
from flow_platform.store.idempotency import IdempotencyKeys
from flow_platform.store.query import Query
from flow_platform.store.tables import executions

_e = executions.c
_INSERT = Query("insert execution", sa.insert(executions).inline())
_FIND = Query("find execution", sa.select(*COLUMNS).where(_e.id == bindparam("id")))
_FIND_FOR_UPDATE = Query(
    "find execution for update", sa.select(*COLUMNS).where(_e.id == bindparam("id")).with_for_update()
)
_ADOPT = Query(
    "adopt child",
    sa.update(executions)
    .where(_e.id == bindparam("parent_id_"))
    .values(live_children=_e.live_children + sa.literal_column("1")),
)
_RELEASE = Query(
    "release child",
    sa.update(executions)
    .where(_e.id == bindparam("parent_id_"), _e.live_children > sa.literal_column("0"))
    .values(live_children=_e.live_children - sa.literal_column("1")),
)


@functools.cache
def _update(columns: frozenset[str]) -> Query:
    """One statement per set of changed columns; there are about as many as events. Unchanged indexes stay untouched.

    `status` and `lease_epoch` fence it: every decision about an execution changes one of the two.
    """
    statement = (
        sa.update(executions)
        .where(
            _e.id == bindparam("id_"),
            _e.status == bindparam("status_before"),
            _e.lease_epoch == bindparam("lease_epoch_before"),
        )
        .values({name: bindparam(name) for name in sorted(columns)})
    )
    return Query(f"update execution {sorted(columns)}", statement)


class ExecutionRows(ExecutionQueue, ExecutionLists, ExecutionPayloads, ExecutionHistory, IdempotencyKeys, Calls):
    """Implements `base.ExecutionTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, execution: Execution, payload: Payload) -> None:
        self._connection.run(_INSERT, to_row(execution))
        self._save_payload(execution.id, payload)

    def find(self, execution_id: str, *, for_update: bool = False) -> Execution | None:
        row = self._connection.row(_FIND_FOR_UPDATE if for_update else _FIND, {"id": execution_id})
        return from_row(row) if row else None

    def find_in_workspace(self, org_id: str, workspace_id: str, execution_id: str) -> Execution | None:
        # Compared here, so that no planner is ever tempted to find one row by its workspace.
        found = self.find(execution_id)
        return found if found and (found.org_id, found.workspace_id) == (org_id, workspace_id) else None

    def update(self, before: Execution, after: Execution) -> None:
        changes = changed_columns(before, after)
        if not changes:
            return
        parameters = {
            **changes,
            "id_": before.id,
            "status_before": before.status.value,
            "lease_epoch_before": before.lease_epoch,
        }
        if self._connection.run(_update(frozenset(changes)), parameters) != 1:
            if self.find(before.id) is None:
                raise errors.NotFound(f"execution {before.id!r} does not exist")
            raise RowConflict(
                f"execution {before.id!r} is no longer {before.status.value!r} at epoch {before.lease_epoch!r}"
            )
        if before.parent_id is not None and after.status.is_terminal and not before.status.is_terminal:
            self._connection.run(_RELEASE, {"parent_id_": before.parent_id})

    def adopt_child(self, parent_id: str) -> None:
        self._connection.run(_ADOPT, {"parent_id_": parent_id})

    def release_child(self, parent_id: str) -> None:
        self._connection.run(_RELEASE, {"parent_id_": parent_id})

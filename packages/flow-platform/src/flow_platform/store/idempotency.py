"""Answered requests by their key: a repeated one gets the first answer."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.store.base import IdempotencyRecord
from flow_platform.store.connection import Connection
from flow_platform.store.instants import to_micros
from flow_platform.store.query import Query
from flow_platform.store.tables import executions, idempotency_keys

_k = idempotency_keys.c
_e = executions.c
_SAVE = Query("save idempotency key", sa.insert(idempotency_keys).inline())
_FIND = Query(
    "find idempotency key",
    sa.select(_k.key, _k.fingerprint, _k.execution_id).where(
        _k.workspace_id == bindparam("workspace_id"), _k.org_id == bindparam("org_id"), _k.key == bindparam("key")
    ),
)
_FINISHED_BEFORE = Query(
    "finished idempotency keys",
    sa.select(_k.workspace_id, _k.org_id, _k.key)
    .where(
        _k.saved_at < bindparam("before"),
        sa.exists(sa.select(_e.id).where(_e.id == _k.execution_id, _e.finished_at.is_not(None))),
    )
    .order_by(_k.saved_at)
    .limit(bindparam("limit")),
)
_DELETE = Query(
    "delete idempotency key",
    sa.delete(idempotency_keys)
    .where(_k.workspace_id == bindparam("workspace_id"), _k.org_id == bindparam("org_id"), _k.key == bindparam("key"))
    .returning(_k.key),
)


class IdempotencyKeys:
    _connection: Connection

    def find_idempotent(self, org_id: str, workspace_id: str, key: str) -> IdempotencyRecord | None:
        row = self._connection.row(_FIND, {"org_id": org_id, "workspace_id": workspace_id, "key": key})
        return IdempotencyRecord(*row) if row else None

    def save_idempotent(self, org_id: str, workspace_id: str, record: IdempotencyRecord, at: datetime) -> None:
        self._connection.run(
            _SAVE,
            {
                "org_id": org_id,
                "workspace_id": workspace_id,
                "key": record.key,
                "fingerprint": record.fingerprint,
                "execution_id": record.execution_id,
                "saved_at": to_micros(at),
            },
        )

    def delete_idempotent_before(self, at: datetime, limit: int) -> int:
        rows = self._connection.rows(_FINISHED_BEFORE, {"before": to_micros(at), "limit": limit})
        keys = [{"workspace_id": workspace_id, "org_id": org_id, "key": key} for workspace_id, org_id, key in rows]
        return len(self._connection.rows_of_each(_DELETE, keys))

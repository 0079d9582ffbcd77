"""Executions in numbers: pages of a workspace, children, trees."""

from __future__ import annotations

import builtins
import functools
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam

from flow_platform.domain.execution import Execution
from flow_platform.store import cursors
from flow_platform.store.base import ExecutionFilter, Page
from flow_platform.store.connection import Connection
from flow_platform.store.execution_rows import COLUMNS, from_row
from flow_platform.store.instants import to_micros
from flow_platform.store.query import Query
from flow_platform.store.tables import Instant, Word, executions
from flow_sdk.wire.status import Status

_e = executions.c
_LIST: Final = "executions"
_FILTERS: Final = ("status", "component_id", "ring_id", "parent_id", "kind")
UNSUCCESSFUL: Final = (Status.FAILED, Status.DEAD_LETTER, Status.TIMEOUT, Status.CANCELLED)
"""In the order of the index's text: a planner matches a partial index to a query by it."""


@functools.cache
def _page(
    filters: frozenset[str], *, has_cursor: bool, retried: bool | None = None, is_unsuccessful: bool = False
) -> Query:
    """One statement per combination of filters: at most 256.

    Args:
        is_unsuccessful: The status is one of those, so that the index of them can serve.
    """
    # A parent's children are few, its workspace's executions are not. A planner without statistics would go by the
    # workspace all the same; as an expression the column has no index to offer.
    workspace_id = _e.workspace_id.concat(sa.literal_column("''")) if "parent_id" in filters else _e.workspace_id
    statement = sa.select(*COLUMNS).where(
        workspace_id == bindparam("workspace_id"),
        _e.org_id == bindparam("org_id"),
        *(_e[name] == bindparam(name) for name in sorted(filters)),
    )
    if retried is not None:
        statement = statement.where(_e.retried_as_id.is_not(None) if retried else _e.retried_as_id.is_(None))
    if is_unsuccessful:
        literals = [sa.literal_column(f"'{status.value}'", Word) for status in UNSUCCESSFUL]
        statement = statement.where(_e.status.in_(literals))
    if has_cursor:
        statement = statement.where(
            sa.tuple_(_e.created_at, _e.id)
            < sa.tuple_(bindparam("created_at", type_=Instant), bindparam("id", type_=Word))
        )
    statement = statement.order_by(_e.created_at.desc(), _e.id.desc()).limit(bindparam("limit"))
    return Query(f"list executions {sorted(filters)} {has_cursor=} {retried=} {is_unsuccessful=}", statement)


_LIVE_CHILDREN = Query(
    "live children",
    sa.select(*COLUMNS)
    .where(_e.parent_id == bindparam("parent_id"), _e.due_at.is_not(None))
    .order_by(_e.created_at, _e.id),
)
_ROOT = Query("root", sa.select(*COLUMNS).where(_e.id == bindparam("id")))
_COUNT_DESCENDANTS = Query(
    "count descendants",
    sa.select(sa.func.count()).select_from(
        sa.select(_e.id)
        .where(_e.root_id == bindparam("root_id"), _e.parent_id.is_not(None))
        .limit(bindparam("limit"))
        .subquery()
    ),
)
_DESCENDANTS = Query(
    "descendants of a root",
    sa.select(*COLUMNS)
    .where(_e.root_id == bindparam("root_id"), _e.parent_id.is_not(None))
    .order_by(_e.created_at, _e.id)
    .limit(bindparam("limit")),
)
_PARENT = Query("parent", sa.select(_e.parent_id).where(_e.id == bindparam("id")))


class ExecutionLists:
    _connection: Connection

    def list(self, org_id: str, workspace_id: str, where: ExecutionFilter, cursor: str | None, limit: int) -> Page:
        filters = {name: value for name in _FILTERS if (value := getattr(where, name)) is not None}
        parameters: dict[str, Any] = {"org_id": org_id, "workspace_id": workspace_id, "limit": limit + 1}
        parameters.update((name, str(value)) for name, value in filters.items())
        if cursor is not None:
            parameters["created_at"], parameters["id"] = cursors.decode(_LIST, cursor)
        is_unsuccessful = where.retried is False and where.status in UNSUCCESSFUL
        query = _page(
            frozenset(filters),
            has_cursor=cursor is not None,
            retried=where.retried,
            is_unsuccessful=is_unsuccessful,
        )
        items = [from_row(row) for row in self._connection.rows(query, parameters)]
        if len(items) <= limit:
            return Page(items, None)
        last = items[limit - 1]
        return Page(items[:limit], cursors.encode(_LIST, to_micros(last.created_at), last.id))

    def live_children(self, parent_id: str) -> builtins.list[Execution]:
        return [from_row(row) for row in self._connection.rows(_LIVE_CHILDREN, {"parent_id": parent_id})]

    def tree(self, root_id: str, limit: int) -> builtins.list[Execution]:
        rows = [
            *self._connection.rows(_ROOT, {"id": root_id}),
            *self._connection.rows(_DESCENDANTS, {"root_id": root_id, "limit": limit}),
        ]
        return [from_row(row) for row in rows[:limit]]

    def count_descendants(self, root_id: str, limit: int) -> int:
        row = self._connection.row(_COUNT_DESCENDANTS, {"root_id": root_id, "limit": limit})
        return row[0] if row else 0

    def is_descendant(self, execution_id: str, ancestor_id: str) -> bool:
        # Step by step: nearly always one or two; each is a read by primary key. Depth is bounded where executions
        # are submitted, and a row never changes its parent.
        row = self._connection.row(_PARENT, {"id": execution_id})
        while row is not None and row[0] is not None:
            if row[0] == ancestor_id:
                return True
            row = self._connection.row(_PARENT, {"id": row[0]})
        return False

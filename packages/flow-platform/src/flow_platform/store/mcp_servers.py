"""Registered MCP servers."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Table, UniqueConstraint, bindparam

from flow_platform.domain.mcp_server import McpServer, McpTool
from flow_platform.store.connection import Connection, Row
from flow_platform.store.documents import document_from, document_or_null, document_to_json, from_json, to_json
from flow_platform.store.instants import from_micros, to_micros
from flow_platform.store.query import Query, UpsertQuery
from flow_platform.store.tables import Instant, Json, Word, metadata
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.mcp import McpSettings

mcp_servers = Table(
    "mcp_servers",
    metadata,
    Column("id", Word, primary_key=True),
    Column("org_id", Word, nullable=False),
    Column("workspace_id", Word, nullable=False),
    Column("name", Word, nullable=False),
    Column("settings", Json, nullable=False),
    Column("component_id", Word, ForeignKey("components.id"), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", sa.Text, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("server", Json, nullable=False),
    Column("protocol", sa.Text, nullable=False),
    Column("tools", Json, nullable=False),
    Column("tool_count", sa.BigInteger, nullable=False),
    Column("refreshed_at", Instant, nullable=True),
    Column("error", Json, nullable=True),
    UniqueConstraint("workspace_id", "org_id", "name"),
)
_m = mcp_servers.c
_FIXED: Final = frozenset({"id", "org_id", "workspace_id", "name", "created_at", "created_by"})
_LISTED: Final = [column for column in _m if column.name != "tools"]
_IN_WORKSPACE: Final = (_m.workspace_id == bindparam("workspace_id"), _m.org_id == bindparam("org_id"))
_SAVE = UpsertQuery(
    "save mcp server",
    mcp_servers,
    lambda insert: insert.values({column.name: bindparam(column.name) for column in _m}).on_conflict_do_update(
        index_elements=["id"],
        set_={column.name: insert.excluded[column.name] for column in _m if column.name not in _FIXED},
    ),
)
_BY_NAME = Query("mcp server by name", sa.select(*_m).where(*_IN_WORKSPACE, _m.name == bindparam("named")))
_BY_ID = Query("mcp server by id", sa.select(*_m).where(*_IN_WORKSPACE, _m.id == bindparam("named")))
_LIST = Query("list mcp servers", sa.select(*_LISTED).where(*_IN_WORKSPACE).order_by(_m.name))
_COUNT = Query("count mcp servers", sa.select(sa.func.count()).where(*_IN_WORKSPACE))
_DELETE = Query("delete mcp server", sa.delete(mcp_servers).where(_m.id == bindparam("id")))


class McpServerRows:
    """Implements `mcp_server_table.McpServerTable`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(self, server: McpServer) -> None:
        self._connection.run(_SAVE, _row_of(server))

    def find(self, org_id: str, workspace_id: str, id_or_name: str) -> McpServer | None:
        # The name first: agents mean names, and an id is never given to a server as its name.
        for query in (_BY_NAME, _BY_ID):
            row = self._connection.row(query, {"org_id": org_id, "workspace_id": workspace_id, "named": id_or_name})
            if row is not None:
                return _server(row, [column.name for column in _m])
        return None

    def list(self, org_id: str, workspace_id: str) -> list[McpServer]:
        rows = self._connection.rows(_LIST, {"org_id": org_id, "workspace_id": workspace_id})
        return [_server(row, [column.name for column in _LISTED]) for row in rows]

    def count(self, org_id: str, workspace_id: str) -> int:
        row = self._connection.row(_COUNT, {"org_id": org_id, "workspace_id": workspace_id})
        return row[0] if row else 0

    def delete(self, server_id: str) -> bool:
        return self._connection.run(_DELETE, {"id": server_id}) == 1


def _row_of(server: McpServer) -> dict[str, Any]:
    return {
        **vars(server),
        "settings": document_to_json(server.settings),
        "created_at": to_micros(server.created_at),
        "updated_at": to_micros(server.updated_at),
        "server": to_json(server.server),
        "tools": to_json([vars(tool) for tool in server.tools]),
        "refreshed_at": None if server.refreshed_at is None else to_micros(server.refreshed_at),
        "error": document_or_null(server.error),
    }


def _server(row: Row, names: list[str]) -> McpServer:
    found: dict[str, Any] = dict(zip(names, row, strict=True))
    found |= {name: from_micros(found[name]) for name in ("created_at", "updated_at")}
    found["settings"] = document_from(McpSettings, found["settings"])
    found["server"] = from_json(found["server"])
    found["tools"] = tuple(McpTool(**tool) for tool in from_json(found.get("tools", "[]")))
    found["refreshed_at"] = None if found["refreshed_at"] is None else from_micros(found["refreshed_at"])
    found["error"] = None if found["error"] is None else document_from(ErrorDocument, found["error"])
    return McpServer(**found)

"""The port of registered MCP servers: a part of the store's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from flow_platform.domain.mcp_server import McpServer


class McpServerTable(Protocol):
    def save(self, server: McpServer) -> None:
        """Inserts it, or replaces the one with its id.

        Raises:
            Conflict: The name is taken; after a race the store runs the operation again first.
        """
        ...

    def find(self, org_id: str, workspace_id: str, id_or_name: str) -> McpServer | None: ...

    def list(self, org_id: str, workspace_id: str) -> Sequence[McpServer]:
        """In the order of their names, without their tools."""
        ...

    def count(self, org_id: str, workspace_id: str) -> int: ...

    def delete(self, server_id: str) -> bool:
        """Its component and executions stay."""
        ...

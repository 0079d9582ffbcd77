"""The workspace as an MCP server. What speaks the protocol is imported when somebody first asks for it."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.context import principal_of, workspace_of
from flow_platform.api.routing import WORKSPACE, Parameter, Route
from flow_platform.domain.principal import Action
from flow_platform.engine.releases import require_not_execution

if TYPE_CHECKING:
    from flow_platform.api.mcp_server import McpServer
    from flow_platform.engine.service import Engine

_RING: Final = Parameter("ring", "Id or name; the ring of lowest order when absent.", {"type": "string"})
_RING_HEADER: Final = Parameter("X-Flow-Ring", "The same; the query wins.", {"type": "string"}, "header")


class McpRoutes:
    """The endpoint of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._server: McpServer | None = None

    def routes(self) -> list[Route]:
        return [
            Route(
                method,
                f"{WORKSPACE}/mcp",
                self.serve,
                summary,
                tag="MCP",
                answers={200: "Messages of MCP, streamable HTTP"},
                parameters=[_RING, _RING_HEADER],
            )
            for method, summary in (
                ("POST", "A message of an MCP client."),
                ("GET", "Messages of the server, for clients of older versions."),
                ("DELETE", "Ends a session of a client of an older version."),
            )
        ]

    async def serve(self, request: Request) -> Response:
        require_not_execution(principal_of(request), Action.SUBMIT, *workspace_of(request))
        server = self._server or await self._made()
        return await server.answer(request)

    async def _made(self) -> McpServer:
        """Beside other requests: there is a second of imports, and few need them."""
        module = await asyncio.to_thread(importlib.import_module, "flow_platform.api.mcp_server")
        made = self._server or module.McpServer(self._engine)  # Two may have asked at the same time.
        self._server = made
        return made

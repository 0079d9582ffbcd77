"""Registered MCP servers: the workspace's own is `mcp.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer, page_answer
from flow_platform.api.body import parse_json, read_body, read_model, read_object
from flow_platform.api.context import principal_of, reference, workspace_of
from flow_platform.api.executions import handle_of
from flow_platform.api.routing import WORKSPACE, Parameter, Route
from flow_platform.api.submission import check_input, read_key, transaction_of
from flow_platform.domain.mcp_server import MAX_TOOL_NAME, McpServer, agent_names
from flow_platform.domain.principal import Action
from flow_platform.engine.mcp_request import McpServerRequest
from flow_platform.engine.mcp_servers import McpCall, McpServerView
from flow_platform.engine.releases import require_not_execution
from flow_platform.engine.validation import parse_model
from flow_platform.store.base import Page
from flow_sdk.wire.execution import Handle, ReplayedHandle
from flow_sdk.wire.management import PageDocument
from flow_sdk.wire.mcp import McpServerDocument, McpToolDocument

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

_TAG: Final = "MCP servers"
_KEY: Final = Parameter(
    "Idempotency-Key", "The same key and request answer the first execution.", {"type": "string"}, "header"
)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class McpRefreshBody(_Body):
    """Where the tools are asked for; may be empty."""

    ring_id: str | None = Field(None, max_length=63, description="Id or name; the ring of lowest order when absent.")


class McpCallBody(_Body):
    """One call of a tool."""

    tool: str = Field(min_length=1, max_length=MAX_TOOL_NAME, description="As the server calls it.")
    arguments: dict[str, Any] = Field(default_factory=dict[str, Any])
    ring_id: str | None = Field(None, max_length=63, description="The caller's, or the ring of lowest order.")


class McpServerRoutes:
    """The endpoints of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        every = f"{WORKSPACE}/mcp-servers"
        one = f"{every}/{{server_id}}"
        doc = {200: McpServerDocument}
        return [
            Route("GET", every, self.list, "All MCP servers, without their tools.", _TAG, {200: PageDocument}),
            Route(
                "POST",
                every,
                self.register,
                "Registers a server, and asks for its tools.",
                tag=_TAG,
                answers={201: McpServerDocument},
                body=McpServerRequest,
            ),
            Route("GET", one, self.get, "One server, with its tools.", _TAG, doc),
            Route("PUT", one, self.replace, "Gives a server other settings.", _TAG, doc, McpServerRequest),
            Route("DELETE", one, self.delete, "Its tools are called no more.", _TAG, {204: "Removed"}),
            Route("POST", f"{one}/refresh", self.refresh, "Asks for its tools again.", _TAG, doc, McpRefreshBody),
            Route(
                "POST",
                f"{one}/calls",
                self.call,
                "Calls a tool, without waiting for it.",
                tag=_TAG,
                answers={202: Handle},
                body=McpCallBody,
                parameters=[_KEY],
            ),
        ]

    async def list(self, request: Request) -> Response:
        found = await self._engine.mcp_servers.list(principal_of(request), *workspace_of(request))
        return page_answer(Page([], None), [server_document(server) for server in found])

    async def register(self, request: Request) -> Response:
        return json_answer(_asked(await self._register(request, None)), 201)

    async def get(self, request: Request) -> Response:
        server = await self._engine.mcp_servers.get(principal_of(request), *workspace_of(request), _id(request))
        return json_answer(_whole(server))

    async def replace(self, request: Request) -> Response:
        return json_answer(_asked(await self._register(request, _id(request))))

    async def delete(self, request: Request) -> Response:
        await self._engine.mcp_servers.delete(principal_of(request), *workspace_of(request), _id(request))
        return Response(status_code=204)

    async def refresh(self, request: Request) -> Response:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)  # Before the body is read.
        raw = await read_body(request)
        body = parse_model(McpRefreshBody, parse_json(raw) if raw else {})
        servers = self._engine.mcp_servers
        return json_answer(_asked(await servers.refresh(principal, org_id, workspace_id, _id(request), body.ring_id)))

    async def call(self, request: Request) -> Response:
        raw, document = await read_object(request)
        body = parse_model(McpCallBody, document)
        await check_input(raw, "arguments", body.arguments)
        call = McpCall(
            server=_id(request),
            tool=body.tool,
            arguments=body.arguments,
            ring_id=body.ring_id,
            parent_billing_transaction_id=transaction_of(request),
        )
        key = await read_key(request, raw, document)
        execution = await self._engine.mcp_servers.call(principal_of(request), *workspace_of(request), call, key)
        handle = handle_of(execution)
        if execution.status.is_terminal:  # A call that is replayed; its caller would read this next.
            ended = await self._engine.executions.ended(execution)
            handle = ReplayedHandle(**handle.model_dump(), execution=ended)
        return json_answer(handle, 202)

    async def _register(self, request: Request, replaces: str | None) -> McpServerView:
        principal = principal_of(request)
        org_id, workspace_id = workspace_of(request)
        require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)
        body = await read_model(request, McpServerRequest)
        return await self._engine.mcp_servers.register(principal, org_id, workspace_id, body, replaces=replaces)


def _id(request: Request) -> str:
    return reference(request, "server_id", "MCP server")


def server_document(server: McpServer) -> McpServerDocument:
    """As a list shows it."""
    return McpServerDocument(
        **server.settings.model_dump(),
        id=server.id,
        name=server.name,
        component=server.component,
        server=server.server,
        protocol=server.protocol,
        tool_count=server.tool_count,
        refreshed_at=server.refreshed_at,
        error=server.error,
        created_at=server.created_at,
        created_by=server.created_by,
        updated_at=server.updated_at,
    )


def _whole(server: McpServer) -> McpServerDocument:
    names = agent_names(server.name, [tool.name for tool in server.tools])
    tools = [McpToolDocument(agent_name=names[tool.name], **vars(tool)) for tool in server.tools]
    return server_document(server).model_copy(update={"tools": tools})


def _asked(view: McpServerView) -> McpServerDocument:
    return _whole(view.server).model_copy(update={"changes": view.changes})

"""Speaks MCP with the official SDK: the tools of a ring, each call an execution, and skills as resources.

Every message is answered for the credential that it came with. A call whose client cancels it, or goes away where the
protocol says that this means the same, cancels its execution.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import mcp_types as types
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from flow_platform.api.context import context_of, principal_of, workspace_of
from flow_platform.api.errors import answer_of
from flow_platform.api.mcp_calls import McpCalls
from flow_platform.domain import errors
from flow_platform.domain.principal import Principal
from flow_platform.engine.mcp_tools import McpTool, McpTools
from flow_platform.engine.skill_files import FILE, skill_files

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

MAX_SESSIONS: Final = 1000  # Of clients of older versions; each is a task here.
SESSION_IDLE_SECONDS: Final = 30 * 60.0
MAX_BODY_BYTES: Final = 32 << 20  # The input of an execution.
INSTRUCTIONS: Final = (
    "Each tool runs a component of a Flow workspace in an isolated container. Skills, as resources, say more of the"
    " endpoints of its services."
)
_RESOURCE: Final = "skill://"

Context = ServerRequestContext[Any, Any]


@dataclass(frozen=True)
class Asked:
    """Who asks, of which workspace and ring."""

    principal: Principal
    org_id: str
    workspace_id: str
    ring: str | None
    request_id: str


class McpServer:
    """The MCP server of one engine, for all workspaces."""

    def __init__(self, engine: Engine) -> None:
        self._tools = McpTools(engine.store)
        self._calls = McpCalls(engine)
        server: Server[Any] = Server(
            "flow",
            title="Flow",
            instructions=INSTRUCTIONS,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_read_resource=self._read_resource,
        )
        self._manager = StreamableHTTPSessionManager(
            server,
            session_idle_timeout=SESSION_IDLE_SECONDS,
            max_request_body_size=MAX_BODY_BYTES,
            max_sessions=MAX_SESSIONS,
        )
        self._running: asyncio.Task[None] | None = None
        self._is_up = asyncio.Event()

    async def answer(self, request: Request) -> Response:
        """An answer that speaks for itself when it is sent."""
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="mcp")
        await self._is_up.wait()
        return _Spoken(self._manager, request)

    async def _run(self) -> None:
        """Sessions live in here. Ends with the event loop: what a client was told is in the store."""
        async with self._manager.run():
            self._is_up.set()
            await asyncio.get_running_loop().create_future()

    async def _list_tools(self, context: Context, _: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        asked = _asked(context)
        with _translated():
            tools = await self._tools.list(asked.principal, asked.org_id, asked.workspace_id, asked.ring)
        return types.ListToolsResult(tools=[_described(tool) for tool in tools])

    async def _call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        asked = _asked(context)
        with _translated():
            tool, ring = await self._tools.find(
                asked.principal, asked.org_id, asked.workspace_id, asked.ring, params.name
            )
        return await self._calls.call(context.session, asked.principal, tool, ring, params.arguments or {})

    async def _list_resources(
        self, context: Context, _: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        resources: list[types.Resource] = []
        for slug, version, files in await self._skills(_asked(context)):
            resources += [
                types.Resource(
                    uri=f"{_RESOURCE}{slug}/{folder}/{FILE}",
                    name=folder,
                    description=f"Skill of service {slug}, version {version}",
                    mime_type="text/markdown",
                )
                for folder in files
            ]
        return types.ListResourcesResult(resources=resources)

    async def _read_resource(
        self, context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        uri = str(params.uri)
        for slug, _, files in await self._skills(_asked(context)):
            for folder, text in files.items():
                if uri == f"{_RESOURCE}{slug}/{folder}/{FILE}":
                    content = types.TextResourceContents(uri=uri, mime_type="text/markdown", text=text)
                    return types.ReadResourceResult(contents=[content])
        raise MCPError(types.INVALID_PARAMS, f"resource {uri[:200]!r} not found")

    async def _skills(self, asked: Asked) -> list[tuple[str, int, dict[str, str]]]:
        with _translated():
            found = await self._tools.services(asked.principal, asked.org_id, asked.workspace_id, asked.ring)
        return [(service.slug, version.number, skill_files(version)) for service, version in found]


class _Spoken(Response):
    """Hands the connection to the SDK, with the headers that every answer of ours has."""

    def __init__(self, manager: StreamableHTTPSessionManager, request: Request) -> None:
        self.status_code = 200  # For the metrics; what is sent says itself.
        self.background = None
        self._manager = manager
        self._request = request
        self.raw_headers: list[tuple[bytes, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def sending(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                self.status_code = message["status"]
                own = {name.lower() for name, _ in message["headers"]}
                ours = [header for header in self.raw_headers if header[0] not in own]
                message = {**message, "headers": [*message["headers"], *ours]}
            await send(message)

        principal = principal_of(self._request)
        # A session is only for the credential that opened it.
        owner = "\n".join((principal.org_id, principal.workspace_id or "", principal.role.value, principal.subject))
        user = AuthenticatedUser(AccessToken(token="-", client_id=owner, scopes=[]))  # noqa: S106 - not a token.
        try:
            await self._manager.handle_request({**scope, "user": user}, self._request.receive, sending)
        except errors.FlowError as error:
            if has_begun:
                raise
            refusal = answer_of(error, context_of(scope).request_id)
            await refusal(scope, receive, sending)


def _asked(context: Context) -> Asked:
    request: Request | None = context.request
    if request is None:
        raise MCPError(types.INTERNAL_ERROR, "the message came with no request")
    org_id, workspace_id = workspace_of(request)
    ring = request.query_params.get("ring") or request.headers.get("x-flow-ring") or None
    return Asked(principal_of(request), org_id, workspace_id, ring, context_of(request.scope).request_id)


def _described(tool: McpTool) -> types.Tool:
    reads = tool.service is not None and tool.service.endpoint.method == "GET"
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.input_schema,
        annotations=types.ToolAnnotations(title=tool.title, read_only_hint=True) if reads else None,
    )


@contextlib.contextmanager
def _translated() -> Any:
    """Errors of ours as errors of the protocol."""
    try:
        yield
    except errors.FlowError as error:
        raise MCPError(types.INVALID_PARAMS, error.message, {"code": error.error_code}) from error

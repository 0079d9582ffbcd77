"""Registered MCP servers: made known to a workspace, asked for their tools, and called.

A server is reached by a code block of its own (`mcp_component`): its tools are asked for by an execution of it, and
each call is one.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock, Entropy, new_id, system_entropy
from flow_platform.domain.execution import Execution
from flow_platform.domain.mcp_server import COMPONENT_PREFIX, MAX_SERVERS, McpServer, changes
from flow_platform.domain.principal import Action, Principal
from flow_platform.engine.catalog import Catalog, Published
from flow_platform.engine.executions import Executions, check_token_is_live
from flow_platform.engine.json_schema import check_value
from flow_platform.engine.mcp_component import call_input, component_of, is_ours
from flow_platform.engine.mcp_discovery import frozen_tools
from flow_platform.engine.mcp_references import PREFIX
from flow_platform.engine.mcp_request import McpServerRequest
from flow_platform.engine.releases import check_workspace, require_not_execution
from flow_platform.engine.submission import Submission
from flow_platform.engine.submit import IdempotencyKey, Submitter
from flow_platform.store.base import Store, Transaction
from flow_sdk.wire.execution import ErrorDocument, StatusDocument
from flow_sdk.wire.mcp import McpChanges
from flow_sdk.wire.status import Kind, Status

logger = logging.getLogger(__name__)

LIFECYCLE_EVENT: Final = "mcp_session"
HOLD_SECONDS: Final = 60.0


@dataclass(frozen=True)
class McpServerView:
    """A server, after its tools were asked for. `changes`: of its tools, by that."""

    server: McpServer
    changes: McpChanges


@dataclass(frozen=True)
class McpCall:
    """One call of a tool.

    Attributes:
        ring_id: None: the caller's, else the ring of lowest order.
    """

    server: str
    tool: str
    arguments: dict[str, Any]
    ring_id: str | None = None
    parent_billing_transaction_id: str | None = None


class McpServers:
    """The servers of all workspaces."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        catalog: Catalog,
        submitter: Submitter,
        executions: Executions,
        entropy: Entropy = system_entropy,
    ) -> None:
        self._store = store
        self._clock = clock
        self._catalog = catalog
        self._submitter = submitter
        self._executions = executions
        self._entropy = entropy

    async def register(
        self, principal: Principal, org_id: str, workspace_id: str, request: McpServerRequest, *, replaces: str | None
    ) -> McpServerView:
        """Publishes its component, keeps it, and asks for its tools. A server that does not answer is kept, too.

        Args:
            principal: Who registers it.
            org_id: Of the workspace.
            workspace_id: Which one.
            request: The server.
            replaces: The server whose settings these are from now on; None: there is none of the name yet.

        Raises:
            Conflict: The name is taken.
            NotFound: There is none to replace.
            BuildFailed: Its packages cannot be installed.
        """
        require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)
        await self._store.read(lambda tx: _check_place(tx, org_id, workspace_id, request.name, replaces))
        wanted = component_of(request.name, request.settings())
        published = await self._catalog.publish(principal, org_id, workspace_id, Kind.CODE_BLOCK, wanted)

        def operation(tx: Transaction) -> McpServer:
            earlier = _check_place(tx, org_id, workspace_id, request.name, replaces)
            server = self._server(principal, org_id, workspace_id, request, published, earlier)
            tx.mcp_servers.save(server)
            return server

        server = await self._store.write(operation)
        logger.info("registered an MCP server", extra={"workspace_id": workspace_id, "server": server.name})
        return await self._asked(principal, server, request.ring_id)

    async def refresh(
        self, principal: Principal, org_id: str, workspace_id: str, server_id: str, ring_id: str | None
    ) -> McpServerView:
        """Asks for its tools again. When it does not answer, those that are known stay.

        Raises:
            NotFound: There is no such server.
        """
        require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)
        server = await self._store.read(lambda tx: _found(tx, org_id, workspace_id, server_id))
        return await self._asked(principal, server, ring_id)

    async def get(self, principal: Principal, org_id: str, workspace_id: str, server_id: str) -> McpServer:
        """Raises NotFound when there is none."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)
        return await self._store.read(lambda tx: _found(tx, org_id, workspace_id, server_id))

    async def list(self, principal: Principal, org_id: str, workspace_id: str) -> Sequence[McpServer]:
        """By name, without their tools."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> Sequence[McpServer]:
            check_workspace(tx, org_id, workspace_id)
            return tx.mcp_servers.list(org_id, workspace_id)

        return await self._store.read(operation)

    async def delete(self, principal: Principal, org_id: str, workspace_id: str, server_id: str) -> None:
        """Its tools are called no more, by whatever agent has them. Its component stays, as all do.

        Raises:
            NotFound: There is none.
        """
        require_not_execution(principal, Action.PUBLISH, org_id, workspace_id)
        await self._store.write(lambda tx: tx.mcp_servers.delete(_found(tx, org_id, workspace_id, server_id).id))

    async def call(
        self, principal: Principal, org_id: str, workspace_id: str, call: McpCall, key: IdempotencyKey | None
    ) -> Execution:
        """Accepts a call of a tool.

        Raises:
            NotFound: There is no such server or tool.
            InvalidInput: The arguments do not fit the tool's schema; details name the fields.
            FlowError: As for a submit.
        """
        principal.require(Action.SUBMIT, org_id, workspace_id)

        def operation(tx: Transaction) -> McpServer:
            if principal.execution_id is not None:
                check_token_is_live(tx, principal)
            return _found(tx, org_id, workspace_id, call.server)

        server = await self._store.read(operation)
        tool = next((tool for tool in server.tools if tool.name == call.tool and not tool.problem), None)
        if tool is None:
            raise errors.NotFound(f"MCP server {server.name!r} has no tool {call.tool!r}", hint=_REFRESH)
        check_value("arguments", tool.input_schema, call.arguments)
        submission = Submission(
            kind=Kind.CODE_BLOCK,
            component=server.component_id,
            input_data=call_input("tools/call", tool.name, call.arguments),
            config={PREFIX: {"server": server.name, "tool": tool.name}},
            lifecycle_event=LIFECYCLE_EVENT,
            ring_id=call.ring_id,
            parent_billing_transaction_id=call.parent_billing_transaction_id,
        )
        return await self._submitter.submit(principal, org_id, workspace_id, submission, key)

    def _server(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        request: McpServerRequest,
        published: Published,
        earlier: McpServer | None,
    ) -> McpServer:
        now = self._clock.now()
        settings, component_id = request.settings(), published.component.id
        if earlier is not None:
            return dataclasses.replace(earlier, settings=settings, component_id=component_id, updated_at=now)
        return McpServer(
            id=new_id(now, self._entropy),
            org_id=org_id,
            workspace_id=workspace_id,
            name=request.name,
            settings=settings,
            component_id=component_id,
            created_at=now,
            created_by=principal.subject,
            updated_at=now,
        )

    async def _asked(self, principal: Principal, server: McpServer, ring_id: str | None) -> McpServerView:
        """What its tools are now, kept. Why they are not known is kept, too."""
        try:
            told = await self._told(principal, server, ring_id)
            tools = frozen_tools(told.get("tools"))
            answer: dict[str, Any] = {
                "tools": tools,
                "tool_count": len(tools),
                "server": told.get("server") or {},
                "protocol": str(told.get("protocol", "")),
                "refreshed_at": self._clock.now(),
                "error": None,
            }
        except errors.FlowError as error:
            document = ErrorDocument(code=error.error_code, message=error.message, retryable=False)
            answer = {"error": document}

        def operation(tx: Transaction) -> McpServerView:
            found = _found(tx, server.org_id, server.workspace_id, server.id)
            if found.settings.model_dump() != server.settings.model_dump():
                raise errors.Conflict(f"MCP server {server.name!r} was changed while its tools were asked for")
            asked = dataclasses.replace(found, **answer)
            tx.mcp_servers.save(asked)
            return McpServerView(asked, changes(found.tools, asked.tools))

        return await self._store.write(operation)

    async def _told(self, principal: Principal, server: McpServer, ring_id: str | None) -> dict[str, Any]:
        """What the server says, from an execution of its component.

        Raises:
            FlowError: It did not come to an answer.
        """
        submission = Submission(
            kind=Kind.CODE_BLOCK,
            component=server.component_id,
            input_data=call_input("tools/list"),
            config={PREFIX: {"server": server.name}},
            lifecycle_event=LIFECYCLE_EVENT,
            ring_id=ring_id,
        )
        place = (server.org_id, server.workspace_id)
        execution = await self._submitter.submit(principal, *place, submission, None)
        document = await self._end(principal, *place, execution.id)
        output: Any = document.output
        if document.status is Status.COMPLETED and isinstance(output, dict):
            return cast("dict[str, Any]", output)
        error = document.error or ErrorDocument(code=document.status.value, message="")
        said = f"execution {execution.id} ended as {document.status.value!r}: {error.message}"
        raise errors.FlowError(said, code=error.code)

    async def _end(self, principal: Principal, org_id: str, workspace_id: str, execution_id: str) -> StatusDocument:
        """Comes: every execution has a deadline, and the sweeper keeps it."""
        while True:
            document = await self._executions.wait(principal, org_id, workspace_id, execution_id, HOLD_SECONDS)
            if document.status.is_terminal:
                return document


_REFRESH: Final = "flow mcp show SERVER lists its tools; flow mcp refresh SERVER asks for them again"


def _found(tx: Transaction, org_id: str, workspace_id: str, id_or_name: str) -> McpServer:
    server = tx.mcp_servers.find(org_id, workspace_id, id_or_name)
    if server is None:
        raise errors.NotFound(f"MCP server {id_or_name!r} not found")
    return server


def _check_place(tx: Transaction, org_id: str, workspace_id: str, name: str, replaces: str | None) -> McpServer | None:
    """The server that is replaced.

    Raises:
        Conflict: The name is another server's, or its component's is that of somebody's own.
        NotFound, InvalidInput: There is nothing to replace, or it has another name.
    """
    check_workspace(tx, org_id, workspace_id)
    known = tx.mcp_servers.find(org_id, workspace_id, name)
    if replaces is not None:
        found = _found(tx, org_id, workspace_id, replaces)
        if found.name != name:
            message = f"expected {found.name!r}: a server keeps its name, which agents call it by"
            raise errors.InvalidInput(f"name {name!r}: {message}", details=[{"field": "name", "message": message}])
        return found
    if known is not None:
        raise errors.Conflict(f"an MCP server {name!r} is registered already")
    if tx.mcp_servers.count(org_id, workspace_id) >= MAX_SERVERS:
        raise errors.InvalidInput(f"the workspace has {MAX_SERVERS} MCP servers, which is the most")
    slug = COMPONENT_PREFIX + name
    component = tx.catalog.find_component(org_id, workspace_id, Kind.CODE_BLOCK, slug)
    version = tx.catalog.find_version(component.id) if component is not None and component.slug == slug else None
    if version is not None and not is_ours(version.definition.code):
        raise errors.Conflict(f"code block {slug!r} exists: an MCP server {name!r} would be called by one of that name")
    return None

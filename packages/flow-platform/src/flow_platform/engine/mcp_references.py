"""Tools of registered MCP servers as tools of agents: `mcp:SERVER/TOOL`, and `mcp:SERVER/*` for all of a server.

An agent freezes what the server said when it was asked last: a server that changes what a tool is, or says of it, does
not change the agent.
"""

from __future__ import annotations

from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.mcp_server import McpServer, McpTool, agent_names
from flow_platform.engine.tool_references import RESOLVERS
from flow_platform.engine.validation import shown
from flow_platform.store.base import Transaction
from flow_sdk.wire.agent import AgentTool, ToolTarget

PREFIX: Final = "mcp"
ALL: Final = "*"
_SHOWN_TOOLS: Final = 10


def resolve(tx: Transaction, org_id: str, workspace_id: str, reference: str) -> list[AgentTool]:
    """Implements `tool_references.ToolResolver`."""
    name, slash, wanted = reference.partition("/")
    if not slash or not wanted:
        raise _invalid(f"{f'mcp:{reference}'!r} is no reference: expected 'mcp:SERVER/TOOL' or 'mcp:SERVER/*'")
    server = tx.mcp_servers.find(org_id, workspace_id, name)
    if server is None:
        raise _invalid(f"MCP server {name!r} is not registered in this workspace")
    if server.refreshed_at is None:
        why = f": {server.error.message}" if server.error else ""
        raise _invalid(f"the tools of MCP server {server.name!r} are not known{why}")
    usable = {tool.name: tool for tool in server.tools if not tool.problem}
    found = list(usable.values()) if wanted == ALL else [usable[wanted]] if wanted in usable else []
    if not found:
        raise _invalid(_absent(server, wanted, list(usable)))
    names = agent_names(server.name, [tool.name for tool in server.tools])
    return [_agent_tool(server, tool, names[tool.name]) for tool in found]


def _agent_tool(server: McpServer, tool: McpTool, name: str) -> AgentTool:
    return AgentTool(
        name=name,
        description=tool.description or tool.title,
        target=ToolTarget.MCP,
        ref=f"{server.name}/{tool.name}",
        parameters=tool.input_schema,
    )


def _absent(server: McpServer, wanted: str, usable: list[str]) -> str:
    broken = next((tool for tool in server.tools if tool.name == wanted), None)
    if broken is not None:
        return f"tool {wanted!r} of MCP server {server.name!r} cannot be used: {broken.problem}"
    if not usable:
        return f"MCP server {server.name!r} has no tools"
    more = ", ..." if len(usable) > _SHOWN_TOOLS else ""
    return f"MCP server {server.name!r} has no tool {shown(wanted)}: it has {', '.join(usable[:_SHOWN_TOOLS])}{more}"


def _invalid(message: str) -> errors.InvalidInput:
    return errors.InvalidInput(message, code="invalid_tool", details=[{"field": "tools", "message": message}])


RESOLVERS[PREFIX] = resolve

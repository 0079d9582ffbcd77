"""Registered MCP servers: how one is reached, and the tools that it told of when it was last asked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.mcp import McpChanges, McpSettings

MAX_SERVERS: Final = 100  # Of one workspace.
MAX_TOOLS_BYTES: Final = 2 << 20  # Of all tools of a server together, as JSON.
MAX_SCHEMA_BYTES: Final = 64 << 10  # Of one tool's schema, as JSON; models read it with every question.
MAX_TOOL_NAME: Final = 128  # The protocol's own bound.
MAX_AGENT_NAME: Final = 64  # Characters that models' providers take.
MAX_DESCRIPTION: Final = 10_000
COMPONENT_PREFIX: Final = "mcp-"
MCP_TAG: Final = "mcp"  # Of the code blocks that speak to servers.
SEPARATOR: Final = "__"
_DIGEST: Final = 8
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_NOT_FOR_MODELS: Final = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True)
class McpTool:
    """A tool of a server, frozen.

    Attributes:
        name: The server's own.
        problem: Why it cannot be used; empty: it can.
    """

    name: str
    title: str = ""
    description: str = ""
    input_schema: dict[str, Any] = field(default_factory=dict[str, Any])
    annotations: dict[str, Any] = field(default_factory=dict[str, Any])
    problem: str = ""


@dataclass(frozen=True)
class McpServer:
    """A registered server.

    Attributes:
        name: Unique in the workspace.
        component_id: The code block that speaks to it.
        server: What it says that it is.
        error: Why asking for its tools failed the last time.
        refreshed_at: When it last succeeded.
    """

    id: str
    org_id: str
    workspace_id: str
    name: str
    settings: McpSettings
    component_id: str
    created_at: datetime
    created_by: str
    updated_at: datetime
    server: dict[str, Any] = field(default_factory=dict[str, Any])
    protocol: str = ""
    tools: tuple[McpTool, ...] = ()
    tool_count: int = 0
    refreshed_at: datetime | None = None
    error: ErrorDocument | None = None

    @property
    def component(self) -> str:
        """The slug of the code block."""
        return COMPONENT_PREFIX + self.name


def check_name(name: str) -> str:
    """Returns the name of a server.

    Raises:
        ValueError: It is none.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("expected 1 to 40 of a-z, 0-9 and '-', beginning and ending with a letter or digit")
    return name


def agent_names(server: str, tools: Sequence[str]) -> dict[str, str]:
    """What models call the tools: names that all providers take, each another one, always the same."""
    plain = {tool: f"{server}{SEPARATOR}{_NOT_FOR_MODELS.sub('_', tool)}" for tool in tools}
    taken = list(plain.values())
    return {
        tool: name if len(name) <= MAX_AGENT_NAME and taken.count(name) == 1 else _shortened(name, tool)
        for tool, name in plain.items()
    }


def changes(before: Iterable[McpTool], after: Iterable[McpTool]) -> McpChanges:
    """What is new, gone, or other than it was."""
    earlier, later = {tool.name: tool for tool in before}, {tool.name: tool for tool in after}
    return McpChanges(
        added=sorted(later.keys() - earlier.keys()),
        removed=sorted(earlier.keys() - later.keys()),
        changed=sorted(name for name in earlier.keys() & later.keys() if earlier[name] != later[name]),
    )


def _shortened(name: str, tool: str) -> str:
    digest = hashlib.sha256(tool.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    return f"{name[: MAX_AGENT_NAME - _DIGEST - 1]}_{digest}"

"""Registered MCP servers: what a container is told of one, and what a client sees."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

from pydantic import Field

from flow_sdk.wire.execution import Document, ErrorDocument
from flow_sdk.wire.isolation import Isolation


class McpTransport(enum.StrEnum):
    """How a server is spoken to: over the network, or as a program in the call's own container."""

    HTTP = "http"
    STDIO = "stdio"


class McpSettings(Document):
    """How a server is reached. In `url`, `headers` and `env`, `${NAME}` stands for the secret of that name.

    Attributes:
        command: Program and arguments; `python` is the container's own.
        packages: Requirements of packages that the program needs.
        env: Variables of the program.
        secrets: Names of secrets that are variables of the program as they are.
        network: Where the program may connect to. With `url` it is that host, and nothing else.
        timeout_seconds: For the server's answer to one request.
        memory_bytes: Of a call's container; None: the platform's default.
        isolation: What stands at least between a call and the machine; None: the default.
    """

    transport: McpTransport
    url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    command: list[str] = Field(default_factory=list[str])
    packages: list[str] = Field(default_factory=list[str])
    env: dict[str, str] = Field(default_factory=dict[str, str])
    secrets: list[str] = Field(default_factory=list[str])
    network: list[str] = Field(default_factory=list[str])
    timeout_seconds: float = 60.0
    memory_bytes: int | None = None
    isolation: Isolation | None = None


class McpToolDocument(Document):
    """A tool as the server told of it when it was last asked.

    Attributes:
        name: The server's own.
        agent_name: What models call it.
        annotations: What the server says of it, e.g. `readOnlyHint`. Not to be relied on.
        problem: Why agents cannot have it; empty: they can.
    """

    name: str
    agent_name: str
    title: str = ""
    description: str = ""
    input_schema: dict[str, Any] = Field(default_factory=dict[str, Any])
    annotations: dict[str, Any] = Field(default_factory=dict[str, Any])
    problem: str = ""


class McpChanges(Document):
    """Names of tools that differ from what was known before."""

    added: list[str] = Field(default_factory=list[str])
    removed: list[str] = Field(default_factory=list[str])
    changed: list[str] = Field(default_factory=list[str])


class McpServerDocument(McpSettings):
    """A registered server. `tools` is null in lists.

    Attributes:
        component: Slug of the code block that its calls run.
        server: Name and version, as the server says.
        protocol: The version of the protocol that it speaks.
        refreshed_at: When its tools were last asked for with success; None: never.
        error: Why the last asking failed; None: it did not.
        changes: Of the tools, in the answer to what asked for them.
    """

    id: str
    name: str
    component: str
    server: dict[str, Any] = Field(default_factory=dict[str, Any])
    protocol: str = ""
    tool_count: int = 0
    tools: list[McpToolDocument] | None = None
    refreshed_at: datetime | None = None
    error: ErrorDocument | None = None
    changes: McpChanges | None = None
    created_at: datetime
    created_by: str
    updated_at: datetime

"""What the component of a registered server does: lists the server's tools, or calls one."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator, Mapping
from typing import Any, Final, Literal, cast

from flow_sdk.harness.failure import Refused
from flow_sdk.mcp.messages import Transport
from flow_sdk.mcp.session import Session
from flow_sdk.wire.mcp import McpSettings, McpTransport

Method = Literal["tools/list", "tools/call"]
SECRET: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""A secret within text."""


def answer(settings: Mapping[str, Any], method: Method, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Speaks to the server once, from its start to its end.

    Returns:
        Of `tools/call` the protocol's own result; of `tools/list` the tools, and what the server says of itself.

    Raises:
        Refused: `mcp_tool_error` when the tool failed; others when there was no way to know.
    """
    with _session(McpSettings.model_validate(settings)) as session:
        if method == "tools/list":
            return {"tools": session.tools(), "server": session.server, "protocol": session.protocol}
        result = session.call(name, arguments)
    if result.get("isError"):
        raise Refused("mcp_tool_error", _text(result) or f"the MCP tool {name!r} failed and did not say why")
    kept = {key: result[key] for key in ("content", "structuredContent") if result.get(key) is not None}
    return {"content": [], **kept}


@contextlib.contextmanager
def _session(settings: McpSettings) -> Generator[Session]:
    transport = _transport(settings)
    try:
        session = Session(transport, settings.timeout_seconds)
        session.open()
        yield session
    finally:
        transport.close()


def _transport(settings: McpSettings) -> Transport:
    if settings.transport is McpTransport.STDIO:
        from flow_sdk.mcp.stdio import StdioTransport

        named = {name: os.environ[name] for name in settings.secrets}
        given = {name: _filled(value) for name, value in settings.env.items()}
        return StdioTransport([_filled(word) for word in settings.command], named | given)
    from flow_sdk.mcp.streamable_http import HttpTransport

    headers = {name: _filled(value) for name, value in settings.headers.items()}
    return HttpTransport(_filled(settings.url or ""), headers)


def _filled(text: str) -> str:
    return SECRET.sub(lambda found: os.environ[found[1]], text)


def _text(result: Mapping[str, Any]) -> str:
    blocks = result.get("content")
    if not isinstance(blocks, list):
        return ""
    found = [cast("dict[str, Any]", block) for block in cast("list[Any]", blocks) if isinstance(block, dict)]
    return "\n".join(block["text"] for block in found if isinstance(block.get("text"), str))

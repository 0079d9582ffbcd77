"""What a server said of its tools, made into what agents are given: bounded, checked, frozen.

All of it is a stranger's: names and descriptions are shown to models, schemas are what arguments are held against.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, cast

from flow_platform.domain import errors
from flow_platform.domain.mcp_server import (
    MAX_DESCRIPTION,
    MAX_SCHEMA_BYTES,
    MAX_TOOL_NAME,
    MAX_TOOLS_BYTES,
    McpTool,
)
from flow_platform.engine.json_schema import check_schema
from flow_platform.store.documents import to_json

MAX_TITLE: Final = 200
_HINTS: Final = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")


def frozen_tools(told: Any) -> tuple[McpTool, ...]:
    """The tools, by name.

    Raises:
        InvalidInput: `mcp_protocol_error`: together they are too large.
    """
    found: dict[str, McpTool] = {}
    for raw in cast("list[Any]", told) if isinstance(told, list) else []:
        if isinstance(raw, dict):
            tool = _frozen(cast("dict[str, Any]", raw))
            if tool.name not in found:
                found[tool.name] = tool
    tools = tuple(found[name] for name in sorted(found))
    size = len(to_json([vars(tool) for tool in tools]))
    if size > MAX_TOOLS_BYTES:
        raise errors.InvalidInput(
            f"the MCP server's tools have {size} bytes: expected at most {MAX_TOOLS_BYTES}", code="mcp_protocol_error"
        )
    return tools


def _frozen(raw: Mapping[str, Any]) -> McpTool:
    name = _text(raw.get("name"), 2 * MAX_TOOL_NAME)
    annotations = raw.get("annotations")
    hints = cast("dict[str, Any]", annotations) if isinstance(annotations, dict) else {}
    tool = McpTool(
        name=name,
        title=_text(raw.get("title") or hints.get("title"), MAX_TITLE),
        description=_text(raw.get("description"), MAX_DESCRIPTION),
        annotations={hint: hints[hint] for hint in _HINTS if isinstance(hints.get(hint), bool)},
    )
    schema = raw.get("inputSchema")
    problem = _problem(name, schema)
    if problem:
        return dataclasses.replace(tool, problem=problem)
    return dataclasses.replace(tool, input_schema={"type": "object", **cast("dict[str, Any]", schema)})


def _problem(name: str, schema: Any) -> str:
    """Why it cannot be a tool."""
    if not name or len(name) > MAX_TOOL_NAME or not name.isprintable():
        return f"its name is none of 1 to {MAX_TOOL_NAME} printable characters"
    if not isinstance(schema, dict):
        return "it has no inputSchema"
    known = cast("dict[str, Any]", schema)
    if known.get("type", "object") != "object":
        return f"its inputSchema is of type {known['type']!r:.50}: expected 'object'"
    size = len(to_json(known))
    if size > MAX_SCHEMA_BYTES:
        return f"its inputSchema has {size} bytes: expected at most {MAX_SCHEMA_BYTES}"
    try:
        check_schema("inputSchema", known)
    except errors.InvalidInput as error:
        return error.details[0]["message"] if error.details else error.message
    return ""


def _text(value: Any, most: int) -> str:
    return value[:most] if isinstance(value, str) else ""

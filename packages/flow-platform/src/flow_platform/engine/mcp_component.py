"""The code block that speaks to a registered MCP server.

So a call has what every execution has: a container of its own, just the network and the secrets that it declares,
limits, a record, a cost, and a version that is promoted from ring to ring.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from flow_platform.domain.mcp_server import COMPONENT_PREFIX, MCP_TAG
from flow_platform.engine.mcp_request import destinations, secret_names
from flow_platform.engine.publish_request import PublishRequest
from flow_platform.engine.validation import parse_model
from flow_platform.store.documents import to_json
from flow_sdk.mcp.session import START_SECONDS
from flow_sdk.wire.mcp import McpSettings

_MARK: Final = '"""Speaks to a registered MCP server.'
_MARGIN_SECONDS: Final = 10.0
_CODE: Final = (
    _MARK
    + ''' Made by `flow mcp add`, and by nobody's hand."""

import json

from flow_sdk.mcp.calls import Method, answer

SETTINGS = json.loads({settings!r})


def main(method: Method, name: str = "", arguments: dict | None = None) -> dict:
    return answer(SETTINGS, method, name, arguments or {{}})
'''
)


def component_of(name: str, settings: McpSettings) -> PublishRequest:
    """What is published for the server."""
    document: dict[str, Any] = settings.model_dump(mode="json", exclude_defaults=True)
    return parse_model(
        PublishRequest,
        {
            "slug": COMPONENT_PREFIX + name,
            "name": f"MCP server {name}",
            "description": f"Lists and calls the tools of the MCP server {name!r}.",
            "tags": [MCP_TAG],
            "code": _CODE.format(settings=to_json(document)),
            "dependencies": settings.packages,
            # The server's start, and two answers: to be listed, some give several pages.
            "timeout_seconds": START_SECONDS + 2 * settings.timeout_seconds + _MARGIN_SECONDS,
            "network": destinations(settings),
            "secrets": secret_names(settings),
            "isolation": settings.isolation,
            "limits": {"memory_bytes": settings.memory_bytes} if settings.memory_bytes else None,
        },
    )


def is_ours(code: str) -> bool:
    """Whether the code block is one of these, and not somebody's own of the same name."""
    return code.startswith(_MARK)


def call_input(
    method: Literal["tools/list", "tools/call"], name: str = "", arguments: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The code block's input."""
    if method == "tools/list":
        return {"method": method}
    return {"method": method, "name": name, "arguments": arguments or {}}

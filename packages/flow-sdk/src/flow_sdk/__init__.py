"""The client of the Flow platform, and how components are declared.

`PlatformClient` and `emit_event` are loaded at their first use: a program that only declares components pays for no
HTTP library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flow_sdk.declare import Declaration, Declared, Retry, code_block, transform, workflow
from flow_sdk.declare_agents import AgentDeclaration, ToolDeclaration, agent, tool
from flow_sdk.declare_services import EndpointDeclaration, ServiceDeclaration, endpoint, service
from flow_sdk.errors import (
    PlatformAuthError,
    PlatformClientError,
    PlatformConflictError,
    PlatformConnectionError,
    PlatformExecutionError,
    PlatformNotFoundError,
    PlatformPermissionError,
    PlatformRateLimitError,
    PlatformServerError,
    PlatformStepError,
    PlatformValidationError,
)

if TYPE_CHECKING:
    from flow_sdk.durable import Approval, Item, approval, map, sleep, step, wait_for_event  # noqa: A004
    from flow_sdk.harness.channel import emit_event
    from flow_sdk.platform_client import PlatformClient

__all__ = [
    "AgentDeclaration",
    "Approval",
    "Declaration",
    "Declared",
    "EndpointDeclaration",
    "Item",
    "PlatformAuthError",
    "PlatformClient",
    "PlatformClientError",
    "PlatformConflictError",
    "PlatformConnectionError",
    "PlatformExecutionError",
    "PlatformNotFoundError",
    "PlatformPermissionError",
    "PlatformRateLimitError",
    "PlatformServerError",
    "PlatformStepError",
    "PlatformValidationError",
    "Retry",
    "ServiceDeclaration",
    "ToolDeclaration",
    "agent",
    "approval",
    "code_block",
    "emit_event",
    "endpoint",
    "map",
    "service",
    "sleep",
    "step",
    "tool",
    "transform",
    "wait_for_event",
    "workflow",
]


_LAZY = {
    "PlatformClient": "flow_sdk.platform_client",
    "emit_event": "flow_sdk.harness.channel",
    **dict.fromkeys(("Approval", "Item", "approval", "map", "sleep", "step", "wait_for_event"), "flow_sdk.durable"),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        globals()[name] = getattr(importlib.import_module(_LAZY[name]), name)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

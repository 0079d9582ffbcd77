"""The client of the Flow platform, and how components are declared.

`PlatformClient` and `emit_event` are loaded at their first use: a program that only declares components pays for no
HTTP library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flow_sdk.declare import AgentDeclaration, Declaration, Declared, Retry, agent, code_block, transform, workflow
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
    PlatformValidationError,
)

if TYPE_CHECKING:
    from flow_sdk.harness.channel import emit_event
    from flow_sdk.platform_client import PlatformClient

__all__ = [
    "AgentDeclaration",
    "Declaration",
    "Declared",
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
    "PlatformValidationError",
    "Retry",
    "agent",
    "code_block",
    "emit_event",
    "transform",
    "workflow",
]


_LAZY = {"PlatformClient": "flow_sdk.platform_client", "emit_event": "flow_sdk.harness.channel"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        globals()[name] = getattr(importlib.import_module(_LAZY[name]), name)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

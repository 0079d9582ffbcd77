"""The client of the Flow platform, and how components are declared.

`PlatformClient` is loaded at its first use: a program that only declares components pays for no HTTP library.
"""

from __future__ import annotations

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
    "transform",
    "workflow",
]


def __getattr__(name: str) -> Any:
    if name == "PlatformClient":
        from flow_sdk.platform_client import PlatformClient

        globals()[name] = PlatformClient
        return PlatformClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

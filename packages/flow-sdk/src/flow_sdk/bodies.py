"""The JSON bodies of submits. Each starts with exactly the contract's fields, in its order.

Arguments that the contract's bodies do not carry follow as fields of their own, and only when they differ from their
default: a plain call sends the contract's body to the byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flow_sdk.errors import PlatformClientError

Id = str | UUID
Json = Mapping[str, Any]


def code_block(
    input_parameters: Json,
    config: Json | None,
    lifecycle_event: str,
    ring_id: Id | None,
    timeout_seconds: float,
    *,
    scope: str = "workspace",
    caller_deployment_id: Id | None = None,
) -> dict[str, Any]:
    """Raises PlatformClientError without a ring and without a caller to inherit one from, as the others below."""
    _require_ring(ring_id, caller_deployment_id, "code block")
    body = {"input_parameters": input_parameters} | _common(config, lifecycle_event, ring_id, timeout_seconds)
    if scope != "workspace":
        body["scope"] = scope
    return body | _caller(caller_deployment_id)


def workflow(
    input_data: Any,
    config: Json | None,
    lifecycle_event: str,
    ring_id: Id | None,
    timeout_seconds: float,
    *,
    context: Json | None = None,
    auto_deploy: bool = True,
    caller_deployment_id: Id | None = None,
) -> dict[str, Any]:
    _require_ring(ring_id, caller_deployment_id, "workflow")
    body = {"input_data": input_data} | _common(config or context, lifecycle_event, ring_id, timeout_seconds)
    if config and context:  # Otherwise the context is the config.
        body["context"] = context
    if not auto_deploy:
        body["auto_deploy"] = False
    return body | _caller(caller_deployment_id)


def agent(
    input_data: Any,
    config: Json | None,
    lifecycle_event: str,
    ring_id: Id | None,
    timeout_seconds: float,
    *,
    caller_deployment_id: Id | None = None,
) -> dict[str, Any]:
    _require_ring(ring_id, caller_deployment_id, "agent")
    body = {"input_data": input_data} | _common(config, lifecycle_event, ring_id, timeout_seconds)
    return body | _caller(caller_deployment_id)


def inline_agent(
    input_data: Any,
    execution_mode: str,
    caller_deployment_id: Id | None,
    *,
    context: Json | None,
    ring_id: Id | None,
    timeout_seconds: float,
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "input_data": input_data,
        "execution_mode": execution_mode,
        "caller_deployment_id": _text(caller_deployment_id),
    }
    if context:
        body["context"] = context
    if ring_id:
        body["ring_id"] = str(ring_id)
    if timeout_seconds != 300:
        body["timeout_seconds"] = timeout_seconds
    return body


def inline_transform(input_data: Any, caller_deployment_id: Id | None, *, context: Json | None) -> dict[str, Any]:
    body: dict[str, Any] = {"input_data": input_data, "caller_deployment_id": _text(caller_deployment_id)}
    if context:
        body["context"] = context
    return body


def _common(config: Json | None, lifecycle_event: str, ring_id: Id | None, timeout_seconds: float) -> dict[str, Any]:
    return {
        "config": config or {},
        "lifecycle_event": lifecycle_event,
        "ring_id": _text(ring_id),
        "timeout_seconds": timeout_seconds,
    }


def _require_ring(ring_id: Id | None, caller_deployment_id: Id | None, kind: str) -> None:
    if not ring_id and not caller_deployment_id:
        raise PlatformClientError(f"ring_id is required for {kind} execution")


def _caller(caller_deployment_id: Id | None) -> dict[str, Any]:
    return {"caller_deployment_id": str(caller_deployment_id)} if caller_deployment_id else {}


def _text(value: Id | None) -> str | None:
    return str(value) if value else None

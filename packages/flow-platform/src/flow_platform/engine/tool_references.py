"""What an agent's tools refer to, looked up once, when the agent is published: schemas and descriptions are frozen."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.domain.component import Component, Version
from flow_platform.engine.agent_request import MAX_TOOLS, ApprovalContent, ToolContent
from flow_platform.store.base import Transaction
from flow_sdk.wire.agent import AgentTool, ToolApproval, ToolTarget
from flow_sdk.wire.status import Kind

RESERVED_NAMES: Final = frozenset({"final_result", "save_state"})
"""The agent's own tools."""

WRAPPER: Final = "input"
_FOREIGN: Final = re.compile(r"([a-z]+):(.+)")
_KINDS: Final = {**{kind.value: kind for kind in Kind}, **{kind.path: kind for kind in Kind}}

ToolResolver = Callable[[Transaction, str, str, str], list[AgentTool]]
"""Looks up a reference of another kind: transaction, organization, workspace, what stands behind the prefix.

One reference may mean several tools, e.g. all of a service. Raises InvalidInput when there is nothing.
"""

RESOLVERS: Final[dict[str, ToolResolver]] = {}
"""By the prefix of the reference: `service`, `mcp`. Those who have such tools add themselves."""


def resolve_tools(tx: Transaction, org_id: str, workspace_id: str, wanted: list[ToolContent]) -> list[AgentTool]:
    """The tools, each with a name of its own.

    Raises:
        InvalidInput: `unknown_tool`, or two have one name.
    """
    tools: list[AgentTool] = []
    for index, content in enumerate(wanted):
        found = _resolve(tx, org_id, workspace_id, index, content)
        tools += [_with_wishes(tool, content, is_only=len(found) == 1) for tool in found]
    if len(tools) > MAX_TOOLS:
        raise _invalid("tools", f"{len(tools)} tools, counted one by one: expected at most {MAX_TOOLS}")
    seen: set[str] = set()
    for tool in tools:
        if tool.name in seen or tool.name in RESERVED_NAMES:
            raise _invalid("tools", f"two tools are called {tool.name!r}, or it is the agent's own: give one a name")
        seen.add(tool.name)
    return tools


def _resolve(tx: Transaction, org_id: str, workspace_id: str, index: int, content: ToolContent) -> list[AgentTool]:
    foreign = _FOREIGN.fullmatch(content.ref)
    if foreign is None:
        return [_component_tool(*_component(tx, org_id, workspace_id, index, content.ref))]
    resolver = RESOLVERS.get(foreign[1])
    if resolver is None:
        expected = ", ".join(f"'{prefix}:'" for prefix in sorted(RESOLVERS)) or "a component"
        raise _invalid(f"tools.{index}", f"tool {content.ref!r} is of no known kind: expected {expected}")
    return resolver(tx, org_id, workspace_id, foreign[2])


def _component(tx: Transaction, org_id: str, workspace_id: str, index: int, ref: str) -> tuple[Component, Version]:
    before, slash, behind = ref.rpartition("/")
    if slash and before not in _KINDS:
        raise _invalid(f"tools.{index}", f"tool {ref!r} is of no known kind: expected one of {', '.join(_KINDS)}")
    kinds = [_KINDS[before]] if slash else list(Kind)
    found = [
        component
        for kind in kinds
        if (component := tx.catalog.find_component(org_id, workspace_id, kind, behind)) is not None
    ]
    if len(found) > 1:
        named = " or ".join(repr(f"{component.kind.value}/{behind}") for component in found)
        raise _invalid(f"tools.{index}", f"tool {ref!r} may be several components: expected {named}")
    version = tx.catalog.find_version(found[0].id) if found else None
    if version is None:
        raise _invalid(f"tools.{index}", f"tool {ref!r} is not published in this workspace")
    return found[0], version


def _component_tool(component: Component, version: Version) -> AgentTool:
    schema = version.input_schema
    is_object = schema.get("type") == "object"
    is_open = not schema  # Nothing is known of it: then an object is the best guess.
    return AgentTool(
        name=component.slug.replace("-", "_"),  # As its function is called.
        description=component.description or component.name,
        target=ToolTarget(component.kind.value),
        ref=component.slug,
        parameters=schema if is_object else {"type": "object"} if is_open else _wrapped(schema),
        wrapped=not is_object and not is_open,
    )


def _wrapped(schema: dict[str, Any]) -> dict[str, Any]:
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    made = {"type": "object", "properties": {WRAPPER: inner}, "required": [WRAPPER]}
    return {**made, "$defs": schema["$defs"]} if "$defs" in schema else made


def _with_wishes(tool: AgentTool, content: ToolContent, *, is_only: bool) -> AgentTool:
    if content.name and not is_only:
        raise _invalid("tools", f"name {content.name!r} is for one tool, and {content.ref!r} means several")
    return tool.model_copy(
        update={
            "name": content.name or tool.name,
            "description": content.description or tool.description,
            "approval": _approval(content.approval) or tool.approval,
            "timeout_seconds": content.timeout_seconds,
        }
    )


def _approval(asked: ApprovalContent | bool) -> ToolApproval | None:
    if isinstance(asked, bool):
        return ToolApproval() if asked else None
    return ToolApproval(approvers=list(asked.approvers), message=asked.message, timeout_seconds=asked.timeout_seconds)


def _invalid(field: str, message: str) -> errors.InvalidInput:
    return errors.InvalidInput(message, code="invalid_tool", details=[{"field": field, "message": message}])

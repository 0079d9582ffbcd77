"""Tools of an agent: each call is a child execution, with its own container, record and cost."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from pydantic_ai import RunContext, Tool

from flow_sdk import calling, durable
from flow_sdk.agents.json_schema import problem_with
from flow_sdk.agents.limits import Spent
from flow_sdk.agents.mcp_results import readable
from flow_sdk.agents.stream import Stream
from flow_sdk.errors import PlatformExecutionError, PlatformNotFoundError, PlatformValidationError
from flow_sdk.wire.agent import AgentTool, ToolTarget
from flow_sdk.wire.status import Status

MAX_RESULT_CHARACTERS: Final = 100_000
"""Of what a tool answered that the model reads. Its execution has all of it."""

COMPLETED: Final = "completed"
FAILED: Final = "failed"
REFUSED: Final = "refused"


@dataclass(frozen=True)
class ToolEnd:
    """How a call ended.

    Attributes:
        status: `completed`, `failed` or `refused` (by a person, or for its arguments).
        result: What the model is told.
    """

    status: str
    result: Any
    execution_id: str | None = None


Caller = Callable[[AgentTool, dict[str, Any]], Awaitable[ToolEnd]]
"""Makes the call of a tool. Errors of the platform are raised, errors of the tool are an end like any other."""


async def call_component(tool: AgentTool, arguments: dict[str, Any]) -> ToolEnd:
    """A code block, transform, agent or workflow."""
    client = await calling.shared_client()
    ring_id, caller = os.environ.get("RING_ID") or None, os.environ.get("DEPLOYMENT_ID") or None
    given = arguments.get("input") if tool.wrapped else arguments
    place: dict[str, Any] = {"caller_deployment_id": caller, "ring_id": ring_id}
    seconds = tool.timeout_seconds
    match tool.target:
        case ToolTarget.CODE_BLOCK:
            document = await client.execute_code_block(tool.ref, arguments, {}, timeout_seconds=seconds, **place)
        case ToolTarget.WORKFLOW:
            document = await client.execute_workflow(tool.ref, given, timeout_seconds=seconds, **place)
        case ToolTarget.AGENT:
            document = await client.execute_agent(
                tool.ref, given, {}, execution_mode="isolated", timeout_seconds=seconds, **place
            )
        case _:
            document = await client.execute_transform(tool.ref, given, None, caller)
    return _end_of(document)


async def call_service(tool: AgentTool, arguments: dict[str, Any]) -> ToolEnd:
    """An endpoint of a service, in the version that the agent froze."""
    client = await calling.shared_client()
    organization, seconds = client.org_id or "", tool.timeout_seconds
    return _end_of(await client.executions.execute_service_tool(organization, tool.ref, arguments, seconds))


async def call_mcp(tool: AgentTool, arguments: dict[str, Any]) -> ToolEnd:
    """A tool of a registered MCP server."""
    client = await calling.shared_client()
    ended = _end_of(await client.executions.execute_mcp_tool(tool.ref, arguments, tool.timeout_seconds))
    if ended.status != COMPLETED:
        return ended
    return dataclasses.replace(ended, result=readable(ended.result, ended.execution_id))


CALLERS: Final[dict[ToolTarget, Caller]] = {
    ToolTarget.CODE_BLOCK: call_component,
    ToolTarget.TRANSFORM: call_component,
    ToolTarget.AGENT: call_component,
    ToolTarget.WORKFLOW: call_component,
    ToolTarget.SERVICE: call_service,
    ToolTarget.MCP: call_mcp,
}
"""By what the tool is. Other kinds of tools add themselves."""


class Tools:
    """The tools of one run."""

    def __init__(self, tools: list[AgentTool], spent: Spent, stream: Stream) -> None:
        self._tools = tools
        self._spent = spent
        self._stream = stream

    def made(self) -> list[Tool[None]]:
        """As pydantic-ai takes them."""
        return [
            Tool.from_schema(self._function(tool), tool.name, tool.description, tool.parameters, takes_ctx=True)
            for tool in self._tools
        ]

    def _function(self, tool: AgentTool) -> Callable[..., Awaitable[str]]:
        async def call(context: RunContext[None], **arguments: Any) -> str:
            self._spent.begin_tool_call()
            call_id = context.tool_call_id or ""
            self._stream.tool_called(call_id, tool.name, arguments)
            ended = await self._ended(tool, arguments)
            self._stream.tool_ended(call_id, tool.name, ended.status, ended.execution_id, ended.result)
            return _told(ended.result)

        return call

    async def _ended(self, tool: AgentTool, arguments: dict[str, Any]) -> ToolEnd:
        problem = problem_with(tool.parameters, arguments, "arguments")
        if problem is not None:
            return ToolEnd(REFUSED, f"The arguments do not fit: {problem}")
        if tool.approval is not None:
            refusal = await _refusal(tool, arguments)
            if refusal is not None:
                return ToolEnd(REFUSED, refusal)
        try:
            return await CALLERS[tool.target](tool, arguments)
        except (PlatformExecutionError, PlatformValidationError, PlatformNotFoundError) as error:
            # The model can do something about these, or at least say so. Anything else ends the run.
            return ToolEnd(FAILED, f"The tool failed: {error}")


async def _refusal(tool: AgentTool, arguments: Mapping[str, Any]) -> str | None:
    """What the model is told when a person did not allow the call."""
    asked = tool.approval
    if asked is None:
        return None
    shown = json.dumps(arguments, ensure_ascii=False, default=str)[:2_000]
    message = f"{asked.message or 'The agent wants to call a tool'}: {tool.name} {shown}"
    try:
        answer = await durable.approval(tool.name, message, approvers=asked.approvers, timeout=asked.timeout_seconds)
    except TimeoutError:
        return f"Nobody allowed this call within {asked.timeout_seconds:g} s. It was not made."
    if answer.approved:
        return None
    return "A person did not allow this call. It was not made." + (
        f" They said: {answer.comment}" if answer.comment else ""
    )


def _end_of(document: Mapping[str, Any]) -> ToolEnd:
    execution_id = cast("str | None", document.get("execution_id"))
    status = str(document.get("status", "")).lower()
    if status == Status.COMPLETED:
        output = document.get("output")
        return ToolEnd(COMPLETED, document.get("outputs") if output is None else output, execution_id)
    error = document.get("error")
    reason = f"{error.get('code')}: {error.get('message')}" if isinstance(error, dict) else ""  # pyright: ignore[reportUnknownMemberType]
    return ToolEnd(FAILED, f"The tool ended {status!r}" + (f": {reason}" if reason else ""), execution_id)


def _told(result: Any) -> str:
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
    if len(text) <= MAX_RESULT_CHARACTERS:
        return text
    return f"{text[:MAX_RESULT_CHARACTERS]}\n... {len(text) - MAX_RESULT_CHARACTERS} characters left out"

"""One call of a tool over MCP: an execution, its events on the way, and its end as the result."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import warnings
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import mcp_types as types
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPDeprecationWarning

from flow_platform.domain import errors
from flow_platform.domain.execution import Execution
from flow_platform.domain.principal import Principal
from flow_platform.domain.release import Ring
from flow_platform.engine.audited import submitter_of
from flow_platform.engine.mcp_tools import INPUT, McpTool
from flow_platform.engine.service_calls import Call, Caller, check_may_call
from flow_platform.engine.service_input import tool_input
from flow_platform.engine.submission import Submission
from flow_platform.engine.validation import missing
from flow_platform.telemetry import EXECUTION_ID
from flow_sdk.wire.execution import EventDocument, StatusDocument
from flow_sdk.wire.status import Status

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

logger = logging.getLogger(__name__)

LIFECYCLE_EVENT: Final = "mcp_session"
MAX_TEXT: Final = 4 << 20  # Characters of a result; the execution has all of it.
META: Final = "flow/execution_id"
PROGRESS: Final = "progress"
_LEVELS: Final[dict[str, types.LoggingLevel]] = {"stderr": "error", "error": "error", "warning": "warning"}


class McpCalls:
    """The calls of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def call(
        self, session: ServerSession, principal: Principal, tool: McpTool, ring: Ring, arguments: dict[str, Any]
    ) -> types.CallToolResult:
        """Runs the tool to its end. What is wrong with it is a result, which a model can do something about."""
        try:
            execution = await self._start(principal, tool, ring, arguments)
        except errors.FlowError as error:
            return _refused(error)
        try:
            await self._forward(session, principal, execution)
            document = await self._engine.executions.get(
                principal, execution.org_id, execution.workspace_id, execution.id
            )
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await self._cancel(principal, execution)
            raise
        except errors.FlowError as error:
            return _refused(error, execution.id)
        return _ended(document)

    async def _start(self, principal: Principal, tool: McpTool, ring: Ring, arguments: dict[str, Any]) -> Execution:
        if tool.component is None:
            opened, endpoint = tool.opened, tool.opened.version.endpoints
            called = next(each for each in endpoint if tool.service and each.name == tool.service.endpoint.name)
            check_may_call(Caller(principal), opened.service, called)
            given = tool_input(called, arguments)
            call = Call(opened, called, Caller(principal), given, lifecycle_event=LIFECYCLE_EVENT)
            return await self._engine.service_calls.start(call, "mcp")
        if tool.is_wrapped and INPUT not in arguments:
            raise missing(INPUT, f"the input of the {tool.component.kind.value}")
        submission = Submission(
            kind=tool.component.kind,
            component=tool.component.id,
            input_data=arguments[INPUT] if tool.is_wrapped else arguments,
            lifecycle_event=LIFECYCLE_EVENT,
            ring_id=ring.id,
            submitted_by=submitter_of(principal),
        )
        org_id, workspace_id = tool.component.org_id, tool.component.workspace_id
        return await self._engine.submitter.submit(principal, org_id, workspace_id, submission, None)

    async def _forward(self, session: ServerSession, principal: Principal, execution: Execution) -> None:
        """Tells the client of each event, until the execution ends."""
        count = 0
        events = self._engine.executions.events(principal, execution.org_id, execution.workspace_id, execution.id, 0)
        async with contextlib.aclosing(cast("Any", events)) as stream:
            async for event in stream:
                if event is None:
                    continue
                count += 1
                await _tell(session, event, count)

    async def _cancel(self, principal: Principal, execution: Execution) -> None:
        try:
            await self._engine.executions.cancel(principal, execution.org_id, execution.workspace_id, execution.id)
        except errors.FlowError as error:
            logger.warning("a call over MCP was not cancelled: %s", error, extra={EXECUTION_ID: execution.id})


async def _tell(session: ServerSession, event: EventDocument, count: int) -> None:
    given: Any = event.event_data
    data = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    if event.event_type == PROGRESS:
        message = data.get("message")
        await session.report_progress(
            _number(data.get("progress")) or float(count),
            _number(data.get("total")),
            message if isinstance(message, str) else None,
        )
        return
    level = _LEVELS.get(str(data.get("level") or data.get("stream") or ""), "info")
    with warnings.catch_warnings():  # Older clients have no other way to hear of it.
        warnings.simplefilter("ignore", MCPDeprecationWarning)
        telling = session.send_log_message(level, given, event.event_type, related_request_id=0)  # pyright: ignore[reportDeprecated]
    await telling


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _ended(document: StatusDocument) -> types.CallToolResult:
    if document.status is Status.COMPLETED:
        output = document.output
        structured = cast("dict[str, Any]", output) if isinstance(output, dict) else None
        return _result(_text(output), document.execution_id, structured=structured)
    error = document.error
    said = f": {error.code}: {error.message}" if error else ""
    return _result(
        f"Execution {document.execution_id} ended as {document.status.value!r}{said}",
        document.execution_id,
        is_error=True,
    )


def _refused(error: errors.FlowError, execution_id: str | None = None) -> types.CallToolResult:
    fields = "".join(f"\n- {detail.get('field')}: {detail.get('message')}" for detail in error.details)
    return _result(f"{error.error_code}: {error.message}{fields}", execution_id, is_error=True)


def _result(
    text: str, execution_id: str | None, *, structured: dict[str, Any] | None = None, is_error: bool = False
) -> types.CallToolResult:
    meta = {META: execution_id} if execution_id else None
    content: list[types.ContentBlock] = [types.TextContent(text=text)]
    return types.CallToolResult(content=content, structured_content=structured, is_error=is_error, _meta=meta)


def _text(output: Any) -> str:
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, default=str)
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}\n... {len(text) - MAX_TEXT} characters left out"

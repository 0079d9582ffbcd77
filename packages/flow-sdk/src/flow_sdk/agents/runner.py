"""Runs an agent once: from its frozen document and an input to output, usage, messages and state."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_ai import Agent, RunContext, Tool
from pydantic_ai.messages import AgentStreamEvent, PartDeltaEvent, PartEndEvent, PartStartEvent, TextPart, TextPartDelta

from flow_sdk.agents import history
from flow_sdk.agents.failure import refusal_for
from flow_sdk.agents.limits import Spent
from flow_sdk.agents.model import GatewayModel
from flow_sdk.agents.output import Answer
from flow_sdk.agents.prompt import question_of, render
from flow_sdk.agents.stream import Emit, Stream
from flow_sdk.agents.tools import Tools
from flow_sdk.wire.agent import AgentDocument

SAVE_STATE: Final = "save_state"
"""The tool by which an agent with a state changes it."""

_STATE_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"values": {"type": "object", "description": "Fields to set; null removes one."}},
    "required": ["values"],
}
_UNKNOWN_TOOL_RETRIES: Final = 5  # A model that calls what does not exist is told so, so often.


@dataclass(frozen=True)
class AgentEnd:
    """What the run gave."""

    output: Any
    usage: dict[str, Any]
    messages: list[Any]
    state: dict[str, Any]


class _Run:
    def __init__(self, document: AgentDocument, given: Mapping[str, Any], emit: Emit) -> None:
        self._document = document
        self._given = given
        self._stream = Stream(emit)
        self._spent = Spent(document.limits)
        self._answer = Answer(document.output_schema)
        self._state: dict[str, Any] = {**document.state.initial, **(given.get("state") or {})}
        self._texts: dict[int, str] = {}

    async def end(self) -> AgentEnd:
        try:
            return await self._end()
        except Exception as error:
            refusal = refusal_for(error, self._answer)
            if refusal is None:
                self._stream.error("component_error", f"{type(error).__name__}: {error}")
                raise
            self._stream.error(refusal.document.code, refusal.document.message)
            raise refusal from error

    async def _end(self) -> AgentEnd:
        document, given = self._document, self._given
        question = question_of(given.get("input_data"))
        instructions = render(document.prompt, question.fields, self._state)
        earlier = history.load(given.get("messages") or [], document.limits.history_messages)
        model = GatewayModel(document, self._spent, self._stream)
        output_type = self._answer.type()
        model.answer_schema = self._answer.shown_schema
        agent: Agent[None, Any] = Agent(
            model,
            output_type=output_type,
            instructions=instructions or None,
            tools=[*Tools(document.tools, self._spent, self._stream).made(), *self._own_tools()],
            retries={"tools": _UNKNOWN_TOOL_RETRIES, "output": document.limits.output_retries},
            deps_type=type(None),
        )
        agent.output_validator(self._answer.check)
        if os.environ.get("ATTEMPT", "1") == "1":
            self._stream.user_message(question.text)
        try:
            result = await agent.run(
                question.text,
                message_history=earlier,
                event_stream_handler=self._follow,
                usage_limits=None,
                deps=None,
            )
        finally:
            await model.close()
        output = self._answer.unwrapped(result.output)
        usage = self._spent.document()
        self._stream.done(output, usage)
        return AgentEnd(output, usage, history.dump(result.all_messages()), self._state)

    def _own_tools(self) -> list[Tool[None]]:
        if not self._document.keeps_state:
            return []
        about = "Keeps facts for later: sets fields of the state, which you are shown the next time."
        return [Tool.from_schema(self._save_state, SAVE_STATE, about, _STATE_SCHEMA)]

    async def _save_state(self, values: dict[str, Any]) -> str:
        for name, value in values.items():
            if value is None:
                self._state.pop(name, None)
            else:
                self._state[name] = value
        return "saved"

    async def _follow(self, _: RunContext[None], events: AsyncIterable[AgentStreamEvent]) -> None:
        """Tells the reader what the model writes. Tool calls tell of themselves, as they know their executions."""
        async for event in events:
            match event:
                case PartStartEvent(part=TextPart(content=text)):
                    self._stream.text(text)
                case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                    self._stream.text(text)
                case PartEndEvent(part=TextPart(content=text)):
                    self._stream.message(text)
                case _:
                    continue


async def run_agent(document: AgentDocument, given: Mapping[str, Any], emit: Emit) -> AgentEnd:
    """Runs an agent.

    Args:
        given: `input_data`, `messages`, `state`, as `exec.input` carries them.
        emit: Publishes events.

    Raises:
        Refused: It ended without an answer; the document says why.
    """
    return await _Run(document, given, emit).end()

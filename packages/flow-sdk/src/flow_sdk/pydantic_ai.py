"""Durable agents of your own: pydantic-ai agents inside a workflow, with each call of a model or a tool kept as a step.

    @workflow(dependencies=["pydantic-ai-slim[openai]"])
    async def answer(question: str) -> str:
        result = await durable(Agent("openai:gpt-5-mini", name="answerer")).run(question)
        return result.output

When the workflow's code runs again, after its container was lost or given back, each call gives what it gave: no model
is paid twice, no tool acts twice. Outside of the platform the agent runs as it always did.

A step keeps JSON, so a tool's result comes back as JSON makes it, in the first run as well. `ModelRetry` works as ever;
any other error of a tool fails its step, and the run with it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import pydantic
import pydantic_core
from pydantic_ai import ModelRetry, RunContext
from pydantic_ai.agent import AbstractAgent, AgentRun, WrapperAgent
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import (
    CompletedStreamedResponse,
    KnownModelName,
    Model,
    ModelRequestParameters,
    StreamedResponse,
    infer_model,
)
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset

from flow_sdk.durable import step

Deps = TypeVar("Deps")
Output = TypeVar("Output")

_RETRY: Final = "retry"
_VALUE: Final = "value"
_RESPONSE: Final[pydantic.TypeAdapter[ModelResponse]] = pydantic.TypeAdapter(ModelResponse)


def durable(agent: AbstractAgent[Deps, Output]) -> DurableAgent[Deps, Output]:
    """The agent with each call of its model and its tools kept as a step of the workflow that runs it.

    Steps are named by the agent's `name`; agents of one workflow should have different ones.
    """
    return DurableAgent(agent)


class DurableAgent(WrapperAgent[Deps, Output]):
    """See `durable`."""

    @asynccontextmanager
    async def iter(self, *args: Any, **kwargs: Any) -> AsyncGenerator[AgentRun[Deps, Any]]:  # pyright: ignore[reportIncompatibleMethodOverride] - passed on as they are.
        prefix = self.name or "agent"
        chosen = kwargs.pop("model", None) or self.model
        if chosen is None:
            raise ValueError(f"agent {prefix!r} has no model: expected one of its own, or one for the run")
        given = cast("list[AbstractToolset[Deps]]", list(kwargs.pop("toolsets", None) or ()))
        toolsets = [DurableToolset(toolset, prefix) for toolset in (*self.wrapped.toolsets, *given)]
        model = DurableModel(chosen, prefix)
        with self.wrapped.override(model=model, toolsets=toolsets, tools=[]):
            async with self.wrapped.iter(*args, **kwargs) as run:
                yield run


class DurableModel(WrapperModel):
    """A model whose answers are kept."""

    def __init__(self, wrapped: Model | KnownModelName | str, prefix: str) -> None:
        super().__init__(infer_model(wrapped))
        self._flow_prefix = prefix

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        async def ask() -> Any:
            response = await self.wrapped.request(messages, model_settings, model_request_parameters)
            return _RESPONSE.dump_python(response, mode="json")

        return _RESPONSE.validate_python(await step(f"{self._flow_prefix}: model", ask))

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """The answer as a stream, once it is there as a whole: half of one could not be kept."""
        del run_context
        response = await self.request(messages, model_settings, model_request_parameters)
        yield CompletedStreamedResponse(response, model_request_parameters=model_request_parameters, replay_events=True)


@dataclass
class DurableToolset(WrapperToolset[Deps]):
    """Tools whose results are kept."""

    prefix: str = "agent"

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Deps], tool: ToolsetTool[Deps]
    ) -> Any:
        async def call() -> Any:
            try:
                value = await self.wrapped.call_tool(name, tool_args, ctx, tool)
            except ModelRetry as retry:
                return {_RETRY: retry.message}
            return {_VALUE: pydantic_core.to_jsonable_python(value)}

        kept = await step(f"{self.prefix}: {name}", call)
        if _RETRY in kept:
            raise ModelRetry(kept[_RETRY])
        return kept[_VALUE]

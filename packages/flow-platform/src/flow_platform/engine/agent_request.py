"""What a client publishes of an agent: its fields, validated to the last one, and the contents of its parts."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from flow_platform.domain.part import PartKind, part_ref
from flow_platform.engine.closed import Closed
from flow_platform.engine.publish_request import (
    MAX_DESCRIPTION,
    MAX_NAME,
    Code,
    IsolationWord,
    LimitsRequest,
    Requirements,
    RetryRequest,
    Tags,
    Text,
)
from flow_sdk.wire.agent import AgentLimits, Persistence

MAX_PROMPT: Final = 64 << 10  # Characters; longer things are input.
MAX_TOOLS: Final = 128  # Of one agent: what providers take at most.
MAX_FALLBACKS: Final = 4
MAX_REFERENCE: Final = 200
MAX_OUTPUT_TYPE: Final = 500
_MODEL: Final = re.compile(r"[A-Za-z0-9_-]{1,64}/[\x21-\x7e]{1,200}")
_TOOL_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_KEPT_FIELDS: Final = frozenset(
    {"model", "models", "messages", "tools", "tool_choice", "stream", "stream_options", "response_format", "n"}
)
"""Of a request to a model: the agent's own business."""


def _model(value: str) -> str:
    if not _MODEL.fullmatch(value):
        raise ValueError("expected 'provider/model', such as 'openai/gpt-5-mini', or 'alias/name'")
    return value


def _settings(value: dict[str, Any]) -> dict[str, Any]:
    kept = sorted(_KEPT_FIELDS & value.keys())
    if kept:
        raise ValueError(f"expected no {kept[0]!r}: the agent sets it")
    return value


def _tool_name(value: str) -> str:
    if not _TOOL_NAME.fullmatch(value):
        raise ValueError("expected 1 to 64 letters, digits, '_' and '-', beginning with a letter or '_'")
    return value


def _part_ref(value: str) -> str:
    return str(part_ref(value))


_Model = Annotated[str, AfterValidator(_model)]
_PartRef = Annotated[str, Field(max_length=MAX_REFERENCE), AfterValidator(_part_ref)]


class ModelContent(Closed):
    """A model as agents call it. `settings`: further fields of each request, e.g. `temperature`."""

    model: _Model
    fallbacks: Annotated[tuple[_Model, ...], Field(max_length=MAX_FALLBACKS, strict=False)] = ()
    settings: Annotated[dict[str, Any], AfterValidator(_settings)] = {}


class PromptContent(Closed):
    prompt: Annotated[Text, Field(max_length=MAX_PROMPT)]


class ApprovalContent(Closed):
    """That a person allows each call. Without approvers every admin and builder may."""

    approvers: Annotated[tuple[Annotated[Text, Field(min_length=1, max_length=200)], ...], Field(strict=False)] = ()
    message: Annotated[Text, Field(max_length=1_000)] = ""
    timeout_seconds: float | None = Field(None, gt=0, le=30 * 24 * 3600.0)


class ToolContent(Closed):
    """A tool. `ref`: slug of a component, `kind/slug`, `service:ID/ENDPOINT`, or `mcp:SERVER/TOOL`."""

    ref: Annotated[Text, Field(min_length=1, max_length=MAX_REFERENCE)]
    name: Annotated[str, AfterValidator(_tool_name)] | None = None
    description: Annotated[Text, Field(max_length=MAX_DESCRIPTION)] | None = None
    approval: ApprovalContent | bool = False
    timeout_seconds: float = Field(300.0, gt=0, le=30 * 24 * 3600.0)


class SchemaContent(Closed):
    """A JSON Schema."""

    model_config = ConfigDict(populate_by_name=True)

    json_schema: dict[str, Any] = Field(alias="schema")


class StateContent(Closed):
    """What is kept between runs. `key`: the field of the input that says whose long-term state it is."""

    persistence: Annotated[Persistence, Field(strict=False)] = Persistence.NONE
    key: Annotated[Text, Field(min_length=1, max_length=100)] = "user_id"
    initial: dict[str, Any] = {}


CONTENTS: Final[dict[PartKind, type[BaseModel]]] = {
    PartKind.MODEL: ModelContent,
    PartKind.PROMPT: PromptContent,
    PartKind.TOOL: ToolContent,
    PartKind.SCHEMA: SchemaContent,
    PartKind.STATE: StateContent,
}


class AgentLimitsRequest(LimitsRequest):
    """What ends a run, beside what its container may use."""

    turns: int = Field(AgentLimits().turns, ge=1, le=1_000)
    tool_calls: int = Field(AgentLimits().tool_calls, ge=0, le=10_000)
    tokens: int = Field(AgentLimits().tokens, ge=1, le=10**9)
    cost_micro_credits: int | None = Field(None, ge=1, le=10**15)
    output_retries: int = Field(AgentLimits().output_retries, ge=0, le=10)
    history_messages: int = Field(AgentLimits().history_messages, ge=0, le=10_000)


class SchemaRefs(Closed):
    output: _PartRef | None = None


class AgentRequest(Closed):
    """One version of an agent. What has a `..._ref` may be given by itself or as a published part."""

    slug: str = Field(max_length=63)
    name: Annotated[Text | None, Field(max_length=MAX_NAME)] = None
    description: Annotated[Text | None, Field(max_length=MAX_DESCRIPTION)] = None
    tags: Tags = Field((), max_length=50, strict=False)
    framework: Literal["pydantic_ai"] = "pydantic_ai"
    model: _Model | None = None
    fallbacks: Annotated[tuple[_Model, ...], Field(max_length=MAX_FALLBACKS, strict=False)] = ()
    settings: Annotated[dict[str, Any], AfterValidator(_settings)] = {}
    model_ref: _PartRef | None = None
    prompt: Annotated[Text, Field(max_length=MAX_PROMPT)] | None = None
    prompt_ref: _PartRef | None = None
    tools: Annotated[tuple[str | ToolContent, ...], Field(max_length=MAX_TOOLS, strict=False)] = ()
    tool_refs: Annotated[tuple[_PartRef, ...], Field(max_length=MAX_TOOLS, strict=False)] = ()
    output: dict[str, Any] | None = Field(None, description="JSON Schema of the answer; without one it is text.")
    output_ref: _PartRef | None = None
    schema_refs: SchemaRefs = SchemaRefs()
    code: Code | None = Field(None, description="Python source that has the type of the answer.")
    output_type: Annotated[Text, Field(min_length=1, max_length=MAX_OUTPUT_TYPE)] | None = None
    dependencies: Requirements = Field((), strict=False, description="Of `code`; the agent runs without them.")
    state: StateContent | None = None
    state_ref: _PartRef | None = None
    enable_conversations: bool = False
    timeout_seconds: float | None = Field(None, gt=0)
    retry: RetryRequest | None = None
    limits: AgentLimitsRequest | None = None
    isolation: IsolationWord | None = None
    smoke_input: Any = None

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        """A field that is null is a field that is not given; only a smoke input is removed by it."""
        if isinstance(value, dict):
            return {name: item for name, item in value.items() if item is not None or name == "smoke_input"}  # pyright: ignore[reportUnknownVariableType] - JSON.
        return value

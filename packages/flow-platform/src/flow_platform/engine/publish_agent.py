"""Publishing an agent: its parts and tools are looked up and frozen, its environment is built like any other.

What is resolved here is the content of the version. A prompt, a tool or a schema that changes later changes nothing
of it; publishing the agent again does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from flow_platform.domain import errors
from flow_platform.domain.component import Definition, check_slug
from flow_platform.domain.execution import RetryPolicy
from flow_platform.domain.part import PartKind, part_ref
from flow_platform.engine.agent_request import (
    AgentLimitsRequest,
    AgentRequest,
    ModelContent,
    PromptContent,
    SchemaContent,
    StateContent,
    ToolContent,
)
from flow_platform.engine.json_schema import check_schema
from flow_platform.engine.publish_request import check_timeout
from flow_platform.engine.schema_references import check_references
from flow_platform.engine.tool_references import resolve_tools
from flow_platform.engine.validation import parse_model
from flow_platform.store.base import Store, Transaction
from flow_sdk.agents.prompt import variables_of
from flow_sdk.wire.agent import PACKAGES, AgentDocument, AgentLimits, Persistence, StateRule
from flow_sdk.wire.isolation import DEFAULT
from flow_sdk.wire.runner import BuildReply, BuildRequest, Limits
from flow_sdk.wire.status import Kind

TEXT: Final[dict[str, Any]] = {"type": "string"}
_OF_AGENTS: Final = frozenset(AgentLimits.model_fields)

Built = Callable[[BuildRequest], Awaitable[BuildReply]]
"""Builds, or raises why it cannot be built."""

Content = TypeVar("Content", bound=BaseModel)


async def agent_definition(store: Store, org_id: str, workspace_id: str, request: AgentRequest) -> Definition:
    """The content of the version, with nothing left to look up.

    Raises:
        InvalidInput: Something is missing, said twice, or refers to what is not there; details name the field.
    """
    check_slug(request.slug)
    check_timeout(Kind.AGENT, request.timeout_seconds)
    document = await store.read(lambda tx: _Resolution(tx, org_id, workspace_id, request).document())
    limits = request.limits or parse_model(AgentLimitsRequest, {})
    return Definition(
        kind=Kind.AGENT,
        code=request.code or "",
        entry_point=request.output_type or "",
        dependencies=request.dependencies,
        timeout_seconds=request.timeout_seconds,
        retry=RetryPolicy(**dict(request.retry)) if request.retry else RetryPolicy(),
        limits=Limits(**{name: value for name, value in limits if name not in _OF_AGENTS}),
        agent=document.model_dump(mode="json", exclude_defaults=True),
        isolation=request.isolation,
    )


async def build_agent(build: Built, slug: str, definition: Definition, seconds: float) -> BuildReply:
    """What the version runs with, and its schemas.

    The type of its output is looked at in a container that has the file's own dependencies; the agent itself runs
    without these, and without the file.
    """
    document = AgentDocument.model_validate(definition.agent)
    output_schema = document.output_schema or TEXT
    if definition.entry_point:
        request = BuildRequest(
            kind=Kind.AGENT,
            slug=slug,
            code=definition.code,
            entry_point=definition.entry_point,
            dependencies=list(definition.dependencies),
            timeout_seconds=seconds,
            isolation=definition.isolation or DEFAULT,
        )
        output_schema = (await build(request)).output_schema
    ours = BuildRequest(
        kind=Kind.AGENT,
        slug=slug,
        code="",
        entry_point="",
        dependencies=list(PACKAGES),
        timeout_seconds=seconds,
        isolation=definition.isolation or DEFAULT,
    )
    reply = await build(ours)
    return reply.model_copy(update={"input_schema": _input_schema(document), "output_schema": output_schema})


class _Resolution:
    """One agent's references, inside a read of the store."""

    def __init__(self, tx: Transaction, org_id: str, workspace_id: str, request: AgentRequest) -> None:
        self._tx = tx
        self._org_id = org_id
        self._workspace_id = workspace_id
        self._request = request

    def document(self) -> AgentDocument:
        request = self._request
        model = self._model()
        limits = request.limits
        state = self._state()
        return AgentDocument(
            models=[model.model, *model.fallbacks],
            settings=model.settings,
            prompt=self._prompt(),
            tools=resolve_tools(self._tx, self._org_id, self._workspace_id, self._tools()),
            output_schema=self._output_schema(),
            state=StateRule(persistence=state.persistence, key=state.key, initial=state.initial),
            conversations=request.enable_conversations,
            limits=AgentLimits(**{name: value for name, value in limits if name in _OF_AGENTS})
            if limits
            else AgentLimits(),
        )

    def _model(self) -> ModelContent:
        request = self._request
        self._only_one("model", "model_ref")
        if request.model_ref is None:
            if request.model is None:
                raise _invalid("model", "model: is required, or a model_ref")
            return ModelContent(model=request.model, fallbacks=request.fallbacks, settings=request.settings)
        for name in ("fallbacks", "settings"):
            if name in request.model_fields_set:
                raise _invalid(name, f"{name}: belongs to the model, which model_ref names")
        return self._part(PartKind.MODEL, "model_ref", request.model_ref, ModelContent)

    def _prompt(self) -> str:
        request = self._request
        self._only_one("prompt", "prompt_ref")
        if request.prompt_ref is None:
            return request.prompt or ""
        return self._part(PartKind.PROMPT, "prompt_ref", request.prompt_ref, PromptContent).prompt

    def _tools(self) -> list[ToolContent]:
        request = self._request
        given = [ToolContent.model_validate({"ref": tool}) if isinstance(tool, str) else tool for tool in request.tools]
        return given + [
            self._part(PartKind.TOOL, f"tool_refs.{index}", ref, ToolContent)
            for index, ref in enumerate(request.tool_refs)
        ]

    def _output_schema(self) -> dict[str, Any] | None:
        request = self._request
        reference = request.output_ref or request.schema_refs.output
        given = [name for name in ("output", "output_ref", "output_type") if getattr(request, name) is not None]
        given += ["schema_refs.output"] if request.schema_refs.output else []
        if len(given) > 1:
            raise _invalid(given[1], f"{given[1]}: the output is said by {given[0]} already")
        if (request.code is None) != (request.output_type is None):
            absent = "output_type" if request.output_type is None else "code"
            raise _invalid(absent, f"{absent}: code and output_type go together: the file, and the type of the output")
        if reference is not None:
            schema = self._part(PartKind.SCHEMA, "output_ref", reference, SchemaContent).json_schema
            _check_answer("output_ref", schema)
            return schema
        if request.output is not None:
            check_schema("output", request.output)
            _check_answer("output", request.output)
        return request.output

    def _state(self) -> StateContent:
        request = self._request
        self._only_one("state", "state_ref")
        state = request.state or StateContent()
        if request.state_ref is not None:
            state = self._part(PartKind.STATE, "state_ref", request.state_ref, StateContent)
        return state

    def _part(self, kind: PartKind, field: str, text: str, model: type[Content]) -> Content:
        ref = part_ref(text)
        part = self._tx.parts.find(self._org_id, self._workspace_id, kind, ref.slug)
        version = self._tx.parts.find_version(part.id, ref.version) if part else None
        if version is None:
            raise _invalid(field, f"{field}: {kind.value} {text!r} is not published in this workspace")
        return model.model_validate(version.content)

    def _only_one(self, name: str, other: str) -> None:
        if getattr(self._request, name) is not None and getattr(self._request, other) is not None:
            raise _invalid(other, f"{other}: expected {name} or {other}, not both")


def _check_answer(field: str, schema: dict[str, Any]) -> None:
    check_references(field, schema, to_definitions_only=schema.get("type") != "object")


def _input_schema(document: AgentDocument) -> dict[str, Any]:
    """What a caller passes; `message` in the place of `prompt` is taken, too."""
    names = [name for name in variables_of(document.prompt) if name not in ("prompt", "message")]
    if document.state.persistence is Persistence.LONG_TERM:
        names.append(document.state.key)
    properties: dict[str, Any] = {"prompt": {"type": "string", "description": "What it is asked."}}
    properties |= {name: {} for name in names}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _invalid(field: str, message: str) -> errors.InvalidInput:
    return errors.InvalidInput(message, details=[{"field": field, "message": message}])

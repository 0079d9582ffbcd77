"""Calling models: chat completions, embeddings and the list of models, in the shape of OpenAI's API.

The paths name no workspace, as clients of that API know only a base URL: it is the token's, or the header
`X-Flow-Workspace` for a token of a whole organization.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from flow_platform.api.answers import json_answer
from flow_platform.api.body import read_object
from flow_platform.api.context import principal_of
from flow_platform.api.gateway_stream import ChunkStream, until_disconnected
from flow_platform.api.routing import Parameter, Route
from flow_platform.domain import errors
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.engine.executions import check_token_is_live
from flow_platform.engine.releases import check_workspace
from flow_platform.engine.validation import invalid, missing, parse_model
from flow_platform.gateway.model_gateway import ModelGateway, Reply
from flow_platform.gateway.ports import Caller
from flow_platform.gateway.providers import MAX_CHAIN

if TYPE_CHECKING:
    from flow_platform.engine.service import Engine

GATEWAY: Final = "/api/v1/gateway"
MAX_CALL_BYTES: Final = 16 << 20  # Of one request: a long conversation with pictures in it.
_TAG: Final = "Models"
_KEY: Final = re.compile(r"[\x20-\x7e]{1,255}")
_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,255}")
_HEADERS: Final = (
    Parameter("Idempotency-Key", "Executions: the same key and request answer again.", {"type": "string"}, "header"),
    Parameter("X-Flow-Workspace", "For a token of a whole organization.", {"type": "string"}, "header"),
    Parameter("X-Parent-Billing-Txn-Id", "The transaction it is billed to.", {"type": "string"}, "header"),
)


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatBody(BaseModel):
    """A chat completions request. Fields that are not named here are the provider's, and are passed on."""

    model_config = ConfigDict(extra="allow")

    model: str | None = Field(None, description="`provider/model`, or `alias/name`.")
    models: Annotated[list[str], Field(max_length=MAX_CHAIN)] = Field([], description="To try in this order.")
    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=10_000)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=1_000)] | None = None
    metadata: dict[str, Any] | None = None


class EmbeddingsBody(BaseModel):
    model_config = ConfigDict(extra="allow")

    model: str
    input: str | Annotated[list[str | int | list[int]], Field(min_length=1, max_length=10_000)]


class ModelDocument(BaseModel):
    id: str
    object: str = "model"
    created: int = 0
    owned_by: str


class ModelListDocument(BaseModel):
    object: str = "list"
    data: list[ModelDocument]


class GatewayRoutes:
    """The endpoints of one model gateway."""

    def __init__(self, engine: Engine, models: ModelGateway) -> None:
        self._engine = engine
        self._models = models

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                f"{GATEWAY}/chat/completions",
                self.chat,
                "Calls a model.",
                tag=_TAG,
                answers={200: "A `chat.completion`, or with `stream` the chunks of one as `text/event-stream`"},
                body=ChatBody,
                parameters=_HEADERS,
            ),
            Route(
                "POST",
                f"{GATEWAY}/embeddings",
                self.embeddings,
                "Makes vectors of texts.",
                tag=_TAG,
                answers={200: "A list of embeddings"},
                body=EmbeddingsBody,
                parameters=_HEADERS,
            ),
            Route(
                "GET",
                f"{GATEWAY}/models",
                self.models,
                "The models that can be called.",
                tag=_TAG,
                answers={200: ModelListDocument},
                parameters=_HEADERS[1:2],
            ),
        ]

    async def chat(self, request: Request) -> Response:
        caller = self._caller(request)
        body = await _read(request)
        chat = parse_model(ChatBody, body)
        models = [chat.model, *chat.models] if chat.model else chat.models
        if not models:
            raise missing("model", "'provider/model' or 'alias/name'")
        reply = await self._models.chat(caller, models, body)
        if not chat.stream:
            return await _whole(request, reply)
        await _or_release(request, reply, reply.flight.begun())
        include_usage = bool(chat.stream_options and chat.stream_options.include_usage)
        return ChunkStream(reply, _headers(reply), include_usage=include_usage)

    async def embeddings(self, request: Request) -> Response:
        caller = self._caller(request)
        body = await _read(request)
        wanted = parse_model(EmbeddingsBody, body)
        return await _whole(request, await self._models.embed(caller, wanted.model, body))

    async def models(self, request: Request) -> Response:
        names = await self._models.models(self._caller(request))
        data = [ModelDocument(id=name, owned_by=name.partition("/")[0]) for name in names]
        return json_answer(ModelListDocument(data=data))

    def _caller(self, request: Request) -> Caller:
        """Who calls; checked before the body is read."""
        principal = principal_of(request)
        workspace_id = self._workspace(request, principal)
        principal.require(Action.CALL_MODEL, principal.org_id, workspace_id)
        is_execution = principal.role is Role.EXECUTION
        return Caller(
            principal.org_id,
            workspace_id,
            principal.execution_id if is_execution else None,
            _header(request, "X-Parent-Billing-Txn-Id", _ID, "the id of a transaction"),
            _header(request, "Idempotency-Key", _KEY, "1 to 255 printable ASCII characters"),
            (lambda tx: check_token_is_live(tx, principal))
            if is_execution
            else (lambda tx: check_workspace(tx, principal.org_id, workspace_id)),
        )

    def _workspace(self, request: Request, principal: Principal) -> str:
        named = _header(request, "X-Flow-Workspace", _ID, "the id of a workspace")
        first = self._engine.workspace
        found = named or principal.workspace_id or (first.workspace_id if principal.org_id == first.org_id else None)
        if found is None:
            raise errors.InvalidInput("the token names no workspace: expected the header X-Flow-Workspace")
        return found


async def _read(request: Request) -> dict[str, Any]:
    content, body = await read_object(request)
    if len(content) > MAX_CALL_BYTES:
        raise errors.PayloadTooLarge(
            f"the request has {len(content)} bytes: expected at most {MAX_CALL_BYTES}",
            details=[{"field": "body", "message": f"{len(content)} bytes, at most {MAX_CALL_BYTES}"}],
        )
    return body


async def _whole(request: Request, reply: Reply) -> Response:
    await _or_release(request, reply, reply.flight.ended())
    reply.release()
    return json_answer(reply.flight.answer.result(), headers=_headers(reply))


async def _or_release(request: Request, reply: Reply, work: Coroutine[Any, Any, bool]) -> None:
    """Waits for the model; who goes away meanwhile is not waited for, and pays for no more than was used.

    Raises:
        FlowError: What the call ended with.
    """
    try:
        is_there = await until_disconnected(work, request.receive)
    except BaseException:
        reply.release()
        raise
    if is_there is None:
        reply.release()
        raise ClientDisconnect


def _headers(reply: Reply) -> dict[str, str]:
    headers = {"X-Flow-Model-Call": reply.call_id}
    return {**headers, "Idempotent-Replayed": "true"} if reply.is_replayed else headers


def _header(request: Request, name: str, pattern: re.Pattern[str], expected: str) -> str | None:
    value = request.headers.get(name)
    if not value:
        return None
    if not pattern.fullmatch(value):
        raise invalid(name, value, expected)
    return value

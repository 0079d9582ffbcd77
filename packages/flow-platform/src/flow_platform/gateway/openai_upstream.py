"""Providers that speak OpenAI's own protocol: most of them. Requests and answers pass as they are.

Source: OpenAI's API reference, "Chat" and "Embeddings".
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, cast

from flow_platform.domain import errors
from flow_platform.gateway.adapter import Json, UpstreamCall, failure_of_status, shown
from flow_platform.gateway.offline import SCRIPT
from flow_platform.gateway.outbound import Outbound, json_object

_OURS: Final = frozenset({"models", "stream", "stream_options", "model"})
_DONE: Final = "[DONE]"


class OpenAiUpstream:
    """Implements `Adapter`."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[Json]:
        body = {**_passed_on(call), "stream": True}
        if call.target.provider.stream_usage:
            body["stream_options"] = {**(call.body.get("stream_options") or {}), "include_usage": True}
        is_finished = False
        events = self._outbound.post_stream(call, "/chat/completions", body, _headers(call))
        async with aclosing(events) as stream:
            async for event in stream:
                if event.data.strip() == _DONE:
                    return
                chunk = json_object(call, event.data)
                if chunk.get("error"):
                    raise _error_in_stream(call, chunk["error"])
                is_finished = is_finished or _says_finish(chunk)
                yield chunk
        if not is_finished:  # Some end without [DONE]; what has said why it ended is whole.
            raise errors.UpstreamFailed(f"provider {call.target.provider.name!r} ended its stream in the middle")

    async def complete(self, call: UpstreamCall) -> Json:
        answer = await self._outbound.post_json(call, "/chat/completions", _passed_on(call), _headers(call))
        if not isinstance(answer.get("choices"), list):
            raise errors.UpstreamFailed(
                f"provider {call.target.provider.name!r} answered without choices", is_transient=False
            )
        return answer

    async def embed(self, call: UpstreamCall) -> Json:
        return await self._outbound.post_json(call, "/embeddings", _passed_on(call), _headers(call))

    async def list_models(self, call: UpstreamCall) -> list[str]:
        answer = await self._outbound.get_json(call, "/models", _headers(call))
        return ids_of(answer)


def ids_of(answer: Json) -> list[str]:
    """The ids of a provider's list of models; Google's have a prefix that its calls do not need."""
    data = answer.get("data")
    items = cast("list[Any]", data) if isinstance(data, list) else []
    ids = [cast("Json", item).get("id") for item in items if isinstance(item, dict)]
    return [name.removeprefix("models/") for name in ids if isinstance(name, str)]


def _passed_on(call: UpstreamCall) -> Json:
    """The request without what is ours."""
    body = {name: value for name, value in call.body.items() if name not in _OURS}
    metadata = body.pop("metadata", None)
    if isinstance(metadata, dict):
        rest = {name: value for name, value in cast("Json", metadata).items() if name != SCRIPT}
        if rest:
            body["metadata"] = rest
    return {"model": call.target.model, **body}


def _headers(call: UpstreamCall) -> dict[str, str]:
    return {"Authorization": f"Bearer {call.key}"} if call.key else {}


def _says_finish(chunk: Json) -> bool:
    choices = chunk.get("choices")
    return any(
        isinstance(choice, dict) and cast("Json", choice).get("finish_reason")
        for choice in (cast("list[Any]", choices) if isinstance(choices, list) else [])
    )


def _error_in_stream(call: UpstreamCall, error: Any) -> errors.FlowError:
    """OpenRouter and vLLM put a status into it; without one it counts as a failure that may pass."""
    told = cast("Json", error) if isinstance(error, dict) else {"message": str(error)}
    code = told.get("code")
    message = str(told.get("message") or "an error in the stream")
    if isinstance(code, int) and 400 <= code < 600:
        return failure_of_status(call.target, code, message, None, call.key)
    return errors.UpstreamFailed(f"provider {call.target.provider.name!r} sent an error: {shown(message, call.key)}")

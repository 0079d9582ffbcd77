"""Anthropic's Messages API, behind the words of chat completions. It makes no embeddings."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, cast

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock
from flow_platform.gateway.adapter import Json, UpstreamCall, failure_of_status
from flow_platform.gateway.anthropic_answer import Translation, completion_of
from flow_platform.gateway.anthropic_request import messages_request
from flow_platform.gateway.openai_upstream import ids_of
from flow_platform.gateway.outbound import Outbound, json_object

API_VERSION: Final = "2023-06-01"
_STATUS_OF: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class AnthropicUpstream:
    """Implements `Adapter`."""

    def __init__(self, outbound: Outbound, clock: Clock) -> None:
        self._outbound = outbound
        self._clock = clock

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[Json]:
        translation = Translation(self._created())
        body = {**messages_request(call), "stream": True}
        async with aclosing(self._outbound.post_stream(call, "/messages", body, _headers(call))) as events:
            async for event in events:
                told = json_object(call, event.data)
                if told.get("type") == "error":
                    raise _error_in_stream(call, told.get("error"))
                for chunk in translation.chunks(told):
                    yield chunk
                if translation.is_finished:
                    return
        raise errors.UpstreamFailed(f"provider {call.target.provider.name!r} ended its stream in the middle")

    async def complete(self, call: UpstreamCall) -> Json:
        answer = await self._outbound.post_json(call, "/messages", messages_request(call), _headers(call))
        if not isinstance(answer.get("content"), list):
            raise errors.UpstreamFailed(
                f"provider {call.target.provider.name!r} answered without content", is_transient=False
            )
        return completion_of(answer, self._created())

    async def embed(self, call: UpstreamCall) -> Json:
        raise errors.UpstreamRefused(f"model {call.target.name!r} makes no embeddings", code="model_unsuited")

    async def list_models(self, call: UpstreamCall) -> list[str]:
        return ids_of(await self._outbound.get_json(call, "/models?limit=1000", _headers(call)))

    def _created(self) -> int:
        return int(self._clock.now().timestamp())


def _headers(call: UpstreamCall) -> dict[str, str]:
    headers = {"anthropic-version": API_VERSION}
    return {**headers, "x-api-key": call.key} if call.key else headers


def _error_in_stream(call: UpstreamCall, error: Any) -> errors.FlowError:
    told = cast("Json", error) if isinstance(error, dict) else {}
    status = _STATUS_OF.get(str(told.get("type")), 500)
    return failure_of_status(call.target, status, str(told.get("message") or ""), None, call.key)

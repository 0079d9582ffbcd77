"""The model of an agent: OpenAI's protocol to the platform's gateway, counted, limited and given again after a loss.

Each call has a key: how many the attempt made before, and what is asked. A new attempt that asks the same gets the
kept answer; one that comes to ask something else (a tool answered otherwise after a retry by hand) is not given the
answer to another question.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import httpx2
from openai import AsyncOpenAI
from pydantic_ai import RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import ModelRequestParameters, StreamedResponse
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from flow_sdk import activity, calling
from flow_sdk.agents.limits import Spent
from flow_sdk.agents.output import ANSWER_TOOL
from flow_sdk.agents.stream import Stream
from flow_sdk.http import TOKEN_HEADER
from flow_sdk.wire.agent import AgentDocument

CALL_SECONDS: Final = 900.0
"""Of one call of the model. The gateway gives up first and says why."""

TRIES_OF_A_CALL: Final = 4
"""When the gateway cannot be reached: it is the same call, by its key. The gateway itself tries its providers again."""

COST: Final = "cost_micro_credits"
_CHAT: Final = "/chat/completions"


class GatewayModel(WrapperModel):
    """See the module.

    Attributes:
        answer_schema: Of a structured answer, in the place of the one that pydantic-ai would show; see `output.Answer`.
    """

    def __init__(self, document: AgentDocument, spent: Spent, stream: Stream) -> None:
        self.answer_schema: dict[str, Any] | None = None
        base_url = os.environ["PLATFORM_API_URL"] + "/api/v1/gateway"
        self._flow_client = httpx2.AsyncClient(
            timeout=CALL_SECONDS,
            trust_env=False,
            verify=_trusted(base_url),
            event_hooks={"request": [self._name_call], "response": [self._look_at_answer]},
        )
        client = AsyncOpenAI(
            base_url=base_url,
            api_key=os.environ["AUTH_TOKEN"],
            http_client=self._flow_client,
            max_retries=TRIES_OF_A_CALL - 1,
        )
        first, *others = document.models
        provider, _, bare = first.partition("/")
        profile = OpenAIProvider.model_profile(bare) if provider == "openai" else None
        super().__init__(OpenAIChatModel(first, provider=OpenAIProvider(openai_client=client), profile=profile))
        self._flow_body = {**document.settings, **({"models": others} if others else {})}
        self._flow_spent = spent
        self._flow_stream = stream

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        self._flow_stream.begin_turn(self._flow_spent.begin_turn())
        parameters = self._with_schema(model_request_parameters)
        with activity.CURRENT.busy():
            response = await super().request(messages, self._with_body(model_settings), parameters)
        self._flow_count(response)
        return response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        self._flow_stream.begin_turn(self._flow_spent.begin_turn())
        settings, parameters = self._with_body(model_settings), self._with_schema(model_request_parameters)
        with activity.CURRENT.busy():
            async with super().request_stream(messages, settings, parameters, run_context) as streamed:
                yield streamed
                self._flow_count(streamed.get())

    async def close(self) -> None:
        await self._flow_client.aclose()

    def _with_body(self, given: ModelSettings | None) -> ModelSettings:
        return cast("ModelSettings", {**(given or {}), "extra_body": self._flow_body})

    def _with_schema(self, given: ModelRequestParameters) -> ModelRequestParameters:
        if self.answer_schema is None:
            return given
        shown = [
            dataclasses.replace(tool, parameters_json_schema=self.answer_schema) if tool.name == ANSWER_TOOL else tool
            for tool in given.output_tools
        ]
        return dataclasses.replace(given, output_tools=shown)

    def _flow_count(self, response: ModelResponse) -> None:
        usage = response.usage
        self._flow_spent.input_tokens += usage.input_tokens
        self._flow_spent.output_tokens += usage.output_tokens
        self._flow_spent.cached_tokens += usage.cache_read_tokens
        self._flow_spent.cost_micro_credits += usage.details.get(COST, 0)

    async def _name_call(self, request: httpx2.Request) -> None:
        if request.url.path.endswith(_CHAT):
            digest = hashlib.sha256(_canonical(request.content)).hexdigest()[:24]
            request.headers["Idempotency-Key"] = f"model-{self._flow_spent.turns}-{digest}"
            # The token of the moment: the platform renews it while the execution lives.
            request.headers["Authorization"] = f"Bearer {(await calling.shared_client()).auth_token}"

    async def _look_at_answer(self, response: httpx2.Response) -> None:
        if response.headers.get("Idempotent-Replayed") == "true":
            self._flow_stream.mark_replayed()
        if (newer := response.headers.get(TOKEN_HEADER)) is not None:
            (await calling.shared_client()).auth_token = newer


def _trusted(url: str) -> ssl.SSLContext:
    """Without TLS, as to the loopback of a container, nobody: loading certificates takes longer than all the rest."""
    if url.startswith("https:"):
        return httpx2.create_ssl_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _canonical(content: bytes) -> bytes:
    return json.dumps(json.loads(content), sort_keys=True).encode()

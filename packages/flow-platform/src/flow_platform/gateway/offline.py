"""The `test` provider: models that answer without any network, always the same, for tests, demos and work offline.

A token is what stands between white space. The prompt has the tokens of all contents, and of names and arguments of
tool calls; the answer has those of its text, and of the names and arguments it calls tools with. Each chunk of a
stream carries one token.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import re
import struct
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, cast

from flow_platform.domain import errors
from flow_platform.gateway.adapter import UpstreamCall, failure_of_status
from flow_platform.gateway.assembly import Assembly
from flow_platform.gateway.conversation import Json, functions_of, last_text, objects, text_of
from flow_platform.gateway.echo import echo_turn
from flow_platform.gateway.script import Script, Turn, script_of

DIMENSIONS: Final = 64
MAX_DIMENSIONS: Final = 4096
CREATED: Final = 0  # Not the time: the same request gets the same answer.
SCRIPT: Final = "script"
EMBEDDING: Final = "embedding"
_WORD: Final = re.compile(r"\S+\s*|\s+")


class OfflineModels:
    """Implements `Adapter`."""

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[Json]:
        turn = self._turn(call)
        identity = f"chatcmpl-{_digest(call.body)[:24]}"
        head: Json = {"id": identity, "object": "chat.completion.chunk", "created": CREATED, "model": call.target.model}
        fails = turn.error is not None and call.trial <= turn.error.times
        for number, delta in enumerate(_deltas(turn, identity)):
            if fails and turn.error and number >= turn.error.after_chunks:
                break
            if pause := turn.first_chunk_ms if number == 0 else turn.chunk_ms:
                await asyncio.sleep(pause / 1000)
            yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        if fails and turn.error:
            raise failure_of_status(call.target, turn.error.status, turn.error.message, turn.error.retry_after)
        reason = turn.finish_reason or ("tool_calls" if turn.tool_calls else "stop")
        yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
        yield {**head, "choices": [], "usage": _usage(call.body, turn)}

    async def complete(self, call: UpstreamCall) -> Json:
        assembly = Assembly()
        async for chunk in self.stream(call):
            assembly.add(chunk)
        return assembly.completion()

    async def embed(self, call: UpstreamCall) -> Json:
        if call.target.model != EMBEDDING:
            raise _wrong_model(call, "embeddings")
        given = call.body.get("input")
        inputs = cast("list[Any]", given) if isinstance(given, list) else [given]
        if inputs and all(isinstance(item, int) for item in inputs):
            inputs = [inputs]
        texts = [item if isinstance(item, str) else " ".join(map(str, cast("list[Any]", item))) for item in inputs]
        size = call.body.get("dimensions") or DIMENSIONS
        if not isinstance(size, int) or not 1 <= size <= MAX_DIMENSIONS:
            raise errors.InvalidInput(
                f"dimensions {size!r} is not valid: expected a whole number from 1 to {MAX_DIMENSIONS}"
            )
        is_base64 = call.body.get("encoding_format") == "base64"
        tokens = sum(_tokens(text) for text in texts)
        return {
            "object": "list",
            "model": call.target.model,
            "data": [
                {"object": "embedding", "index": number, "embedding": _encoded(_vector(text, size), is_base64)}
                for number, text in enumerate(texts)
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    async def list_models(self, call: UpstreamCall) -> list[str]:
        return sorted({*call.target.provider.models, *call.scripts})

    def _turn(self, call: UpstreamCall) -> Turn:
        if call.target.model == EMBEDDING:
            raise _wrong_model(call, "chat completions")
        script = _script(call)
        messages = objects(call.body.get("messages"))
        number = sum(message.get("role") == "assistant" for message in messages)
        turn = script.turn(number) if script else None
        if turn is None:
            return echo_turn(call.body)
        if turn.text is None:
            return turn
        text = turn.text.replace("{{last_user}}", last_text(messages, "user"))
        return turn.model_copy(update={"text": text.replace("{{last_tool}}", last_text(messages, "tool"))})


def _script(call: UpstreamCall) -> Script | None:
    """The script of the request, else that which is called like the model; the echo has none."""
    metadata = call.body.get("metadata")
    given = cast("Json", metadata).get(SCRIPT) if isinstance(metadata, dict) else None
    if isinstance(given, str) and given in call.scripts:
        given = call.scripts[given]
    elif given is None and call.target.model == "echo":
        return None
    elif given is None:
        given = call.scripts.get(call.target.model)
    if given is None:
        raise errors.UpstreamRefused(
            "test/script needs a script: expected one in metadata.script, or one of this name in the configuration",
            code="invalid_script",
        )
    return given if isinstance(given, Script) else script_of(given)


def _deltas(turn: Turn, identity: str) -> list[Json]:
    """What each chunk says: the role with the first word, one word each, then the calls in two pieces each."""
    deltas: list[Json] = [{"content": word} for word in _WORD.findall(turn.text or "")]
    for index, call in enumerate(turn.tool_calls):
        call_id = call.id or f"call_{hashlib.sha256(f'{identity}/{index}'.encode()).hexdigest()[:20]}"
        function = {"name": call.name, "arguments": ""}
        deltas.append({"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]})
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": json.dumps(call.arguments)}}]})
    first = deltas[0] if deltas else {"content": ""}
    return [{"role": "assistant", **first}, *deltas[1:]]


def _usage(body: Json, turn: Turn) -> Json:
    if turn.usage is not None:
        prompt, completion = turn.usage.prompt_tokens, turn.usage.completion_tokens
        cached = turn.usage.cached_tokens
    else:
        prompt, cached = sum(_tokens_of_message(message) for message in objects(body.get("messages"))), 0
        called = sum(_tokens(c.name) + _tokens(json.dumps(c.arguments)) for c in turn.tool_calls)
        completion = _tokens(turn.text or "") + called
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _tokens(text: str) -> int:
    return len(text.split())


def _tokens_of_message(message: Mapping[str, Any]) -> int:
    functions = functions_of(message.get("tool_calls"))
    calls = sum(_tokens(str(f.get("name") or "")) + _tokens(str(f.get("arguments") or "")) for f in functions)
    return _tokens(text_of(message.get("content"))) + calls


def _digest(body: Json) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()


def _vector(text: str, size: int) -> list[float]:
    """Each word adds or takes one at places of its own, so that texts with words in common are near one another."""
    values = [0.0] * size
    for word in re.findall(r"\w+", text.lower()) or [text]:
        digest = hashlib.sha256(word.encode()).digest()
        for start in range(0, 32, 8):
            place = int.from_bytes(digest[start : start + 4], "big") % size
            values[place] += 1.0 if digest[start + 4] & 1 else -1.0
    length = math.sqrt(sum(value * value for value in values))
    return [value / length for value in values] if length else [1.0, *values[1:]]


def _encoded(vector: list[float], is_base64: bool) -> Any:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if is_base64 else vector


def _wrong_model(call: UpstreamCall, what: str) -> errors.UpstreamRefused:
    return errors.UpstreamRefused(f"model {call.target.name!r} makes no {what}", code="model_unsuited")

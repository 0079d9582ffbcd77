"""From an answer of Anthropic's Messages API to chat completions, whole or event by event."""

from __future__ import annotations

import json
from typing import Any, Final, cast

from flow_platform.gateway.adapter import Json
from flow_platform.gateway.conversation import objects

_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def completion_of(answer: Json, created: int) -> Json:
    blocks = objects(answer.get("content"))
    text = "".join(str(block.get("text", "")) for block in blocks if block.get("type") == "text")
    calls = [
        {
            "id": block.get("id"),
            "type": "function",
            "function": {"name": block.get("name"), "arguments": json.dumps(block.get("input") or {})},
        }
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    message: Json = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "finish_reason": _reason(answer.get("stop_reason"))}
    return {
        "id": answer.get("id"),
        "object": "chat.completion",
        "created": created,
        "model": answer.get("model"),
        "choices": [choice],
        "usage": usage_of(answer.get("usage")),
    }


def usage_of(usage: Any) -> Json:
    """The API counts what was cached, and what is cached from now on, apart from the rest of the prompt."""
    told = cast("Json", usage) if isinstance(usage, dict) else {}
    cached = _count(told, "cache_read_input_tokens")
    prompt = _count(told, "input_tokens") + cached + _count(told, "cache_creation_input_tokens")
    completion = _count(told, "output_tokens")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class Translation:
    """One stream's events, one after the other, into chunks."""

    def __init__(self, created: int) -> None:
        self.is_finished = False
        self._head: Json = {"id": None, "object": "chat.completion.chunk", "created": created, "model": None}
        self._usage: Json = {}
        self._tools: dict[int, int] = {}  # Index of the block -> index of the tool call.
        self._without_arguments: set[int] = set()  # Blocks.

    def chunks(self, event: Json) -> list[Json]:
        match event.get("type"):
            case "message_start":
                message = cast("Json", event.get("message") or {})
                self._head |= {"id": message.get("id"), "model": message.get("model")}
                self._usage |= _told(message.get("usage"))
                return [self._chunk({"role": "assistant", "content": ""})]
            case "content_block_start":
                return self._block_starts(event)
            case "content_block_delta":
                return self._block_grows(event)
            case "content_block_stop":
                return self._block_ends(event)
            case "message_delta":
                self._usage |= _told(event.get("usage"))
                delta = cast("Json", event.get("delta") or {})
                return [self._chunk({}, _reason(delta.get("stop_reason")))]
            case "message_stop":
                self.is_finished = True
                return [{**self._head, "choices": [], "usage": usage_of(self._usage)}]
            case _:  # Pings, and what may be added later.
                return []

    def _block_starts(self, event: Json) -> list[Json]:
        block = cast("Json", event.get("content_block") or {})
        if block.get("type") == "text" and block.get("text"):
            return [self._chunk({"content": block["text"]})]
        if block.get("type") != "tool_use":
            return []
        number = _count(event, "index")
        index = self._tools.setdefault(number, len(self._tools))
        self._without_arguments.add(number)
        function = {"name": block.get("name"), "arguments": ""}
        call = {"index": index, "id": block.get("id"), "type": "function", "function": function}
        return [self._chunk({"tool_calls": [call]})]

    def _block_grows(self, event: Json) -> list[Json]:
        delta = cast("Json", event.get("delta") or {})
        match delta.get("type"):
            case "text_delta":
                return [self._chunk({"content": delta.get("text", "")})]
            case "input_json_delta":
                index = self._tools.get(_count(event, "index"))
                if index is None:
                    return []
                function = {"arguments": delta.get("partial_json", "")}
                if function["arguments"]:
                    self._without_arguments.discard(_count(event, "index"))
                return [self._chunk({"tool_calls": [{"index": index, "function": function}]})]
            case _:  # Thinking is the model's own.
                return []

    def _block_ends(self, event: Json) -> list[Json]:
        """A tool without parameters is called with no text at all; readers expect JSON."""
        number = _count(event, "index")
        if number not in self._without_arguments:
            return []
        self._without_arguments.discard(number)
        call = {"index": self._tools[number], "function": {"arguments": "{}"}}
        return [self._chunk({"tool_calls": [call]})]

    def _chunk(self, delta: Json, reason: str | None = None) -> Json:
        return {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def _reason(stop_reason: Any) -> str | None:
    return None if stop_reason is None else _REASONS.get(str(stop_reason), "stop")


def _told(usage: Any) -> Json:
    """Counts that are said; later ones are totals, and take the place of earlier ones."""
    told = cast("Json", usage) if isinstance(usage, dict) else {}
    return {name: value for name, value in told.items() if value is not None}


def _count(values: Json, name: str) -> int:
    value = values.get(name)
    return value if isinstance(value, int) else 0

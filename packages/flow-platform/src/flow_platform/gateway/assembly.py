"""Between an answer in chunks and the same answer in one piece."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast

from flow_platform.gateway.conversation import Json, functions_of, objects

_HEAD: Final = ("id", "created", "model", "system_fingerprint", "service_tier")
_TEXTS: Final = ("content", "refusal", "reasoning", "reasoning_content")
"""Parts of a message that come in pieces; whatever else stands in a delta is taken as it is."""


class Assembly:
    """Puts chunks (`chat.completion.chunk`) together to the `chat.completion` that they are pieces of."""

    def __init__(self) -> None:
        self.usage: Json | None = None
        self._head: Json = {}
        self._choices: dict[int, Json] = {}

    @property
    def is_finished(self) -> bool:
        """Whether every choice that began has said why it ended."""
        return bool(self._choices) and all(choice["finish_reason"] for choice in self._choices.values())

    @property
    def characters(self) -> int:
        """Of text and arguments so far, for an estimate of tokens."""
        return sum(_characters(choice["message"]) for choice in self._choices.values())

    def add(self, chunk: Json) -> None:
        for name in _HEAD:
            if self._head.get(name) is None and chunk.get(name) is not None:
                self._head[name] = chunk[name]
        if isinstance(chunk.get("usage"), dict):
            self.usage = chunk["usage"]
        for choice in objects(chunk.get("choices")):
            self._add_choice(choice)

    def completion(self) -> Json:
        """The answer as far as it came. Its `usage` is absent when no chunk told it."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        answer: Json = {**self._head, "object": "chat.completion", "choices": [_whole_choice(c) for c in choices]}
        return answer if self.usage is None else {**answer, "usage": self.usage}

    def _add_choice(self, piece: Json) -> None:
        index = _index(piece, 0)
        choice = self._choices.setdefault(
            index, {"index": index, "message": {"role": "assistant", "content": None}, "finish_reason": None}
        )
        delta = piece.get("delta")
        if isinstance(delta, dict):
            _merge(choice["message"], cast("Json", delta))
        if piece.get("finish_reason") is not None:
            choice["finish_reason"] = piece["finish_reason"]
        logprobs = piece.get("logprobs")
        if isinstance(logprobs, dict):
            kept: Json = choice.setdefault("logprobs", {})
            for name, value in cast("Json", logprobs).items():
                kept[name] = [*(kept.get(name) or []), *value] if isinstance(value, list) else kept.get(name, value)


def chunk_of(answer: Json) -> Json:
    """The whole answer as one chunk, without usage."""
    choices: list[Json] = []
    for choice in objects(answer.get("choices")):
        delta: Json = dict(choice.get("message") or {})
        if calls := objects(delta.get("tool_calls")):
            delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(calls)]
        choices.append({**{k: v for k, v in choice.items() if k != "message"}, "delta": delta})
    head = {name: value for name, value in answer.items() if name not in ("usage", "choices")}
    return {**head, "object": "chat.completion.chunk", "choices": choices}


def _merge(message: Json, delta: Json) -> None:
    for name, value in delta.items():
        if value is None:
            continue
        if name in _TEXTS and isinstance(value, str):
            earlier = message.get(name)
            message[name] = earlier + value if isinstance(earlier, str) else value
        elif name == "tool_calls":
            _merge_tool_calls(message.setdefault("tool_calls", {}), objects(value))
        else:
            message[name] = value


def _merge_tool_calls(calls: dict[int, Json], pieces: Iterable[Json]) -> None:
    for number, piece in enumerate(pieces):
        call = calls.setdefault(_index(piece, number), {"id": None, "type": "function"})
        for name, value in piece.items():
            if name == "function" and isinstance(value, dict):
                function: Json = call.setdefault("function", {"name": "", "arguments": ""})
                for part, text in cast("Json", value).items():
                    # Names come whole; arguments come in pieces.
                    if part == "arguments":
                        function[part] = function.get(part, "") + (text or "")
                    elif text is not None:
                        function[part] = text
            elif name != "index" and value is not None:
                call[name] = value


def _whole_choice(choice: Json) -> Json:
    message = dict(choice["message"])
    calls = message.get("tool_calls")
    if isinstance(calls, dict):
        by_index = cast("dict[int, Json]", calls)
        message["tool_calls"] = [by_index[index] for index in sorted(by_index)]
    return {**choice, "message": message}


def _characters(message: Json) -> int:
    texts = [message.get(name) for name in _TEXTS]
    calls = message.get("tool_calls")
    if isinstance(calls, dict):
        for function in functions_of(list(cast("dict[int, Json]", calls).values())):
            texts += [function.get("name"), function.get("arguments")]
    return sum(len(text) for text in texts if isinstance(text, str))


def _index(piece: Json, default: int) -> int:
    index = piece.get("index")
    return index if isinstance(index, int) else default

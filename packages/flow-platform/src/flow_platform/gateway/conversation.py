"""Reading a conversation in the shape of chat completions: who said what last, and how much it is."""

from __future__ import annotations

import json
from typing import Any, cast

Json = dict[str, Any]


def objects(value: Any) -> list[Json]:
    """Those items of a list that are objects; none for whatever is no list."""
    if not isinstance(value, list):
        return []
    return [cast("Json", item) for item in cast("list[Any]", value) if isinstance(item, dict)]


def text_of(content: Any) -> str:
    """The text of a message's content, which is a text or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or part.get("refusal") or "") for part in objects(content))


def last_text(messages: list[Json], role: str) -> str:
    return next((text_of(m.get("content")) for m in reversed(messages) if m.get("role") == role), "")


def tools_of(body: Json) -> dict[str, Json]:
    """The functions that the model may call, by name."""
    functions = functions_of(body.get("tools"))
    return {str(function["name"]): function for function in functions if function.get("name")}


def functions_of(calls: Any) -> list[Json]:
    """What stands under `function` in each of a list of tools, or of tool calls."""
    return objects([item.get("function") for item in objects(calls)])


def arguments_of(call: Json) -> Json:
    """The arguments of a tool call as an object; empty when they are none."""
    for function in functions_of([call]):
        text = function.get("arguments")
        value = object_in(text) if isinstance(text, str) else None
        return value or {}
    return {}


def object_in(text: str) -> Json | None:
    """The JSON object that a text is; None when it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return cast("Json", value) if isinstance(value, dict) else None


def characters(messages: list[Json]) -> int:
    """Of all texts and arguments, for an estimate of tokens."""
    functions = [function for message in messages for function in functions_of(message.get("tool_calls"))]
    texts = [text_of(message.get("content")) for message in messages]
    return sum(len(text) for text in texts) + sum(len(json.dumps(function)) for function in functions)

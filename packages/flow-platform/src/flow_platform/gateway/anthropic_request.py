"""From a chat completions request to one of Anthropic's Messages API.

Source: Anthropic's API reference, "Messages".
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

from flow_platform.domain import errors
from flow_platform.gateway.adapter import Json, UpstreamCall
from flow_platform.gateway.conversation import arguments_of, objects, text_of

DEFAULT_MAX_TOKENS: Final = 8192  # The API asks for one; chat completions does not.
_DATA_URL: Final = re.compile(r"data:([\w/+.-]+);base64,(.*)", re.DOTALL)
_SYSTEM: Final = ("system", "developer")
_SAME: Final = ("temperature", "top_p", "top_k", "thinking")


def messages_request(call: UpstreamCall) -> Json:
    """Raises UpstreamRefused for what the API has no word for."""
    body = call.body
    if body.get("n") not in (None, 1):
        raise errors.UpstreamRefused(f"n {body['n']!r} is not possible with provider 'anthropic': expected 1")
    messages = objects(body.get("messages"))
    request: Json = {
        "model": call.target.model,
        "max_tokens": body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_MAX_TOKENS,
        "messages": _turns(messages),
    }
    system = "\n\n".join(text_of(m.get("content")) for m in messages if m.get("role") in _SYSTEM)
    if system:
        request["system"] = system
    request |= {name: body[name] for name in _SAME if body.get(name) is not None}
    if stop := body.get("stop"):
        request["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if user := body.get("user"):
        request["metadata"] = {"user_id": user}
    if tools := objects(body.get("tools")):
        request["tools"] = [_tool(cast("Json", tool.get("function") or {})) for tool in tools]
        if choice := _tool_choice(body):
            request["tool_choice"] = choice
    if output := _output_config(body.get("response_format")):
        request["output_config"] = output
    return request


def _turns(messages: list[Json]) -> list[Json]:
    """User and assistant in turns: neighbours of one role are one message, results of tools are the user's."""
    turns: list[Json] = []
    for message in messages:
        role = message.get("role")
        if role in _SYSTEM:
            continue
        blocks = _blocks(message)
        role = "assistant" if role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: Json) -> list[Json]:
    content = message.get("content")
    if message.get("role") == "tool":
        result: Json = {"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": text_of(content)}
        return [result]
    blocks = _parts(content)
    for tool_call in objects(message.get("tool_calls")):
        function = cast("Json", tool_call.get("function") or {})
        blocks.append(
            {
                "type": "tool_use",
                "id": tool_call.get("id"),
                "name": function.get("name"),
                "input": arguments_of(tool_call),
            }
        )
    return blocks


def _parts(content: Any) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    parts: list[Json] = []
    for part in objects(content):
        match part.get("type"):
            case "text":
                if part.get("text"):  # Empty ones are refused.
                    parts.append({"type": "text", "text": part["text"]})
            case "image_url":
                image = part.get("image_url")
                url = cast("Json", image).get("url") if isinstance(image, dict) else image
                parts.append({"type": "image", "source": _source(str(url))})
            case kind:
                raise errors.UpstreamRefused(
                    f"content of type {kind!r} is not possible with provider 'anthropic': expected text or image_url",
                    helps_elsewhere=True,
                )
    return parts


def _source(url: str) -> Json:
    found = _DATA_URL.fullmatch(url)
    if found:
        return {"type": "base64", "media_type": found[1], "data": found[2]}
    return {"type": "url", "url": url}


def _tool(function: Json) -> Json:
    tool: Json = {
        "name": function.get("name"),
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    if function.get("description"):
        tool["description"] = function["description"]
    return tool


def _tool_choice(body: Json) -> Json | None:
    choice = body.get("tool_choice")
    parallel = body.get("parallel_tool_calls")
    if isinstance(choice, dict):
        function = cast("Json", cast("Json", choice).get("function") or {})
        result: Json = {"type": "tool", "name": function.get("name")}
    elif choice in ("auto", "none"):
        result = {"type": choice}
    elif choice == "required":
        result = {"type": "any"}
    elif parallel is False:
        result = {"type": "auto"}
    else:
        return None
    if parallel is False and result["type"] != "none":
        result["disable_parallel_tool_use"] = True
    return result


def _output_config(wanted: Any) -> Json | None:
    """A schema can be asked for; JSON without one cannot, and stays a matter of the prompt."""
    rule = cast("Json", wanted) if isinstance(wanted, dict) else {}
    if rule.get("type") != "json_schema":
        return None
    return {"format": {"type": "json_schema", "schema": cast("Json", rule.get("json_schema") or {}).get("schema")}}

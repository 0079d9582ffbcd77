"""`test/echo`: answers by rules that one can predict, and calls tools when it is told to.

In this order:

1. Tools have answered since the last message of the user: it says what they answered.
2. The last user message has lines `call NAME {json}` for tools of the request: it calls them, all at once.
3. The request asks for a tool (`tool_choice`), or for JSON (`response_format`): the user's text when that is a JSON
   object, else the smallest value that the schema allows.
4. Else it repeats the user's text.
"""

from __future__ import annotations

import json
import re
from typing import Any, cast

from flow_platform.gateway.conversation import Json, last_text, object_in, objects, text_of, tools_of
from flow_platform.gateway.sample import sample
from flow_platform.gateway.script import ScriptedCall, Turn

_CALL = re.compile(r"^call ([A-Za-z0-9_.-]{1,128})(?:[ \t]+(\{.*\}))?[ \t]*$", re.MULTILINE)


def echo_turn(body: Json) -> Turn:
    messages = objects(body.get("messages"))
    tools = tools_of(body)
    answered = _answers_of_tools(messages)
    said = "\n".join(answered) if answered else last_text(messages, "user")
    calls = [] if answered else _told_calls(said, tools)
    if calls:
        return Turn(tool_calls=calls)
    wanted = _wanted_tool(body.get("tool_choice"), tools)
    if wanted is not None:
        return Turn(tool_calls=[ScriptedCall(name=wanted, arguments=_value(tools[wanted].get("parameters"), said))])
    asked, schema = _wanted_schema(body.get("response_format"))
    return Turn(text=json.dumps(_value(schema, said))) if asked else Turn(text=said)


def _answers_of_tools(messages: list[Json]) -> list[str]:
    """What tools said since anybody else did."""
    answers: list[str] = []
    for message in reversed(messages):
        if message.get("role") != "tool":
            break
        answers.append(text_of(message.get("content")))
    return answers[::-1]


def _told_calls(text: str, tools: dict[str, Json]) -> list[ScriptedCall]:
    calls: list[ScriptedCall] = []
    for found in _CALL.finditer(text):
        arguments = object_in(found[2] or "{}")
        if found[1] in tools and arguments is not None:
            calls.append(ScriptedCall(name=found[1], arguments=arguments))
    return calls


def _wanted_tool(choice: Any, tools: dict[str, Json]) -> str | None:
    if isinstance(choice, dict):
        function = cast("Json", choice).get("function")
        name = cast("Json", function).get("name") if isinstance(function, dict) else None
        return name if name in tools else None
    return next(iter(tools), None) if choice == "required" else None


def _wanted_schema(wanted: Any) -> tuple[bool, Any]:
    rule = cast("Json", wanted) if isinstance(wanted, dict) else {}
    match rule.get("type"):
        case "json_schema":
            return True, cast("Json", rule.get("json_schema") or {}).get("schema")
        case "json_object":
            return True, {"type": "object"}
        case _:
            return False, None


def _value(schema: Any, said: str) -> Json:
    given = object_in(said)
    if given is not None:
        return given
    value = sample(schema, said)
    return cast("Json", value) if isinstance(value, dict) else {}

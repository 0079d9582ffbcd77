"""An attempt of an agent, in the place of a call of code; and what publishing wants to know of one."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from flow_sdk.harness import channel, result
from flow_sdk.harness.failure import Refused, refuse_unloadable
from flow_sdk.harness.source import load_module
from flow_sdk.wire.agent import AgentDocument


def run(start: Mapping[str, Any], given: Mapping[str, Any]) -> bytes:
    """Runs it; the body of RESULT.

    Raises:
        BaseException: As `invoke.call`.
    """
    from flow_sdk.agents.runner import run_agent

    work = run_agent(AgentDocument.model_validate(start["agent"]), given, channel.emit_event)
    seconds = start.get("suspend_after_seconds")
    if seconds is None:
        end = asyncio.run(work)
    else:
        from flow_sdk.harness import idle

        end = idle.run(work, seconds)
    body = {"output": end.output, "usage": end.usage, "messages": end.messages, "state": end.state, "error": None}
    return result.encode(body)


def inspect(start: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of its output, from a type of the file that declares it; without code: that agents can run here.

    Raises:
        Refused: The code cannot be loaded, or no schema can be made of the type.
    """
    described: dict[str, Any] = {"input_schema": {}, "output_schema": {}, "description": ""}
    if not start["code"]:
        importlib.import_module("flow_sdk.agents.runner")
        return described
    expression = start["entry_point"]
    try:
        module = load_module(start["code"])
        annotation = eval(expression, module.__dict__)  # noqa: S307 - as the file itself, which was just run.
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        described["output_schema"] = adapter.json_schema(mode="validation")
    except Refused:
        raise
    except PydanticUserError as exc:
        message = f"output {expression!r}: no JSON Schema can be made of it: {exc}"
        raise Refused("invalid_output_type", message, [{"field": "output_type", "message": message}]) from exc
    except Exception as exc:
        raise refuse_unloadable(exc) from exc
    return described

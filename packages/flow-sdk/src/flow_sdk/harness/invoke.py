"""Calls a component, or only looks at it."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from flow_sdk.harness import result
from flow_sdk.harness.binding import Signature
from flow_sdk.harness.failure import Refused, describe, refuse_unloadable
from flow_sdk.harness.source import load_entry_point
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.status import Kind


def call(start: Mapping[str, Any], input_data: Any, before_call: Callable[[], None]) -> bytes:
    """Loads the component, calls it with the input and returns its output as JSON.

    Args:
        before_call: Run once, when the next thing is code of the component.

    Raises:
        BaseException: Refused for input, code or output; anything else is the component's own.
    """
    before_call()
    function = load_entry_point(start["code"], start["entry_point"])
    signature = Signature(function, start["kind"])
    return _call(function, signature, input_data, start.get("context") or {}, start.get("suspend_after_seconds"))


def inspect_component(start: Mapping[str, Any]) -> dict[str, Any]:
    """What publishing wants to know: schemas, description, whether the examples hold.

    Raises:
        Refused: Syntax, what loading the code raised, entry point, annotations, or an example that gave something else.
    """
    if start["kind"] == Kind.AGENT:
        from flow_sdk.harness import agent

        return agent.inspect(start)
    try:
        function = load_entry_point(start["code"], start["entry_point"])
    except Refused:
        raise
    except Exception as exc:
        raise refuse_unloadable(exc) from exc
    signature = Signature(function, start["kind"])
    described = {
        "input_schema": signature.input_schema(),
        "output_schema": signature.output_schema(),
        "description": inspect.getdoc(function) or "",
    }
    problems = [
        {"field": f"examples[{index}]", "message": problem}
        for index, example in enumerate(start.get("examples") or [])
        if (problem := _try_example(function, signature, example, start.get("context") or {}))
    ]
    if problems:
        message = f"{problems[0]['field']}: {problems[0]['message']}"
        raise Refused("example_failed", message, problems)
    return described


def _call(
    function: Callable[..., Any],
    signature: Signature,
    input_data: Any,
    context: Mapping[str, Any],
    suspend_after_seconds: float | None = None,
) -> bytes:
    positional, named = signature.bind(input_data, context)
    returned = function(*positional, **named)
    if inspect.isawaitable(returned):
        returned = _run(_await(returned), suspend_after_seconds)
    return result.encode(signature.check_result(returned))


def _run(work: Coroutine[Any, Any, Any], suspend_after_seconds: float | None) -> Any:
    if suspend_after_seconds is None:
        return asyncio.run(work)
    from flow_sdk.harness import idle  # With the client, which not every component needs.

    return idle.run(work, suspend_after_seconds)


async def _await(awaitable: Any) -> Any:
    return await awaitable


def _try_example(
    function: Callable[..., Any], signature: Signature, example: Mapping[str, Any], context: Mapping[str, Any]
) -> str:
    """What is wrong with an example; empty when it holds."""
    try:
        output = json.loads(_call(function, signature, example.get("input"), context))
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever the component raises is the answer.
        document: ErrorDocument = describe(exc)
        return f"{document.type or document.code}: {document.message}"
    expected = example.get("output")
    return "" if output == expected else f"gave {output!r:.500}, expected {expected!r:.500}"

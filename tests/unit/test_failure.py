"""What an author is shown of an error that came out of the SDK."""

from __future__ import annotations

import asyncio
from typing import Any

from flow_sdk import declare
from flow_sdk.harness.failure import COMPONENT_FILE, describe

_CODE = """
async def outer(call):
    return await call()

def inner():
    raise ValueError("mine")
"""


def _component() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(_CODE, COMPONENT_FILE, "exec"), names)  # noqa: S102 - as the harness does.
    return names


def _traceback_of(function: Any) -> str:
    """Of a component that calls `function` as a component that is declared."""
    try:
        asyncio.run(_component()["outer"](declare.code_block(function).call))
    except ValueError as error:
        return describe(error).traceback or ""
    raise AssertionError("nothing was raised")


def test_what_the_sdk_raises_is_shown_at_the_line_that_called_it() -> None:
    def refuses() -> None:
        raise ValueError("no")

    shown = _traceback_of(refuses)
    assert "in outer" in shown
    assert "flow_sdk" not in shown


def test_what_the_component_raises_below_the_sdk_is_shown_with_both_of_its_lines() -> None:
    shown = _traceback_of(_component()["inner"])
    assert ("in outer" in shown, "in inner" in shown, "flow_sdk" in shown) == (True, True, False)

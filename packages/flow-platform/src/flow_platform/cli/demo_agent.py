"""The agent of `flow demo`: a conversation of two turns on the `test/` provider, with its transcript."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, cast

from flow_platform.cli import output
from flow_platform.domain.errors import FlowError
from flow_sdk.wire.status import Status

if TYPE_CHECKING:
    from pathlib import Path

    from flow_platform.cli.remote import Remote

EXAMPLE: Final = "agent"
SHOP: Final = "Kettles and Lamps"
SESSION: Final = "demo"
QUESTIONS: Final = ("When does my order A-17 come?", "And what about B-2?")
NO_PACKAGES: Final = frozenset({"index_unavailable", "build_failed"})
"""Where the packages that agents run with cannot be had: the rest of the demo does not need them."""


def run_agent(remote: Remote, folder: Path, seconds: float) -> dict[str, Any]:
    """Publishes the example's agent, asks it twice in one session, and says what was said.

    Returns:
        `turns`, with the ids of their executions; `skipped` with the reason where there is no package index.

    Raises:
        FlowError: It did not answer.
    """
    from flow_platform.cli.declarations import find_components
    from flow_platform.cli.publish import publish_components

    began = time.monotonic()
    output.say("publishing an agent with two tools ...")
    try:
        for outcome in publish_components(remote, find_components(folder), "dev"):
            output.say(f"published {outcome.kind}/{outcome.slug} v{outcome.version} ({outcome.seconds:.2f} s)")
    except FlowError as error:
        if error.error_code not in NO_PACKAGES:
            raise
        output.say(f"left out: the packages that agents run with cannot be had here: {error.message[:200]}")
        return {"skipped": error.message}
    return {"publish_s": time.monotonic() - began, "turns": [_turn(remote, text, seconds) for text in QUESTIONS]}


def _turn(remote: Remote, question: str, seconds: float) -> dict[str, Any]:
    from flow_platform.cli.run import submit, wait

    began = time.monotonic()
    value = {"prompt": question, "shop": SHOP, "session_id": SESSION}
    execution_id = submit(remote, "agents", "support", value, remote.ring_id("dev"), seconds)
    output.say(f"  you: {question}")
    for event in remote.events(execution_id):
        line = _line(event.event_type, event.event_data)
        if line:
            output.say(line)
    document = wait(remote, execution_id)
    if document.status is not Status.COMPLETED:
        raise FlowError(f"the agent ended as {document.status}: {document.error and document.error.message}")
    return {
        "execution_id": execution_id,
        "question": question,
        "answer": document.output,
        "usage": document.usage,
        "seconds": time.monotonic() - began,
    }


def _line(event_type: str, data: Any) -> str | None:
    told = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    match event_type:
        case "message" if told.get("role") == "assistant":
            return f"  agent: {told.get('text')}"
        case "tool_call" if told.get("status") != "called":
            return f"    {told.get('tool')} -> {output.compact(told.get('result'))}"
        case _:
            return None

"""The conversation so far, as it comes with the input and goes with the result: pydantic-ai's messages as JSON.

A list of plain `{"role", "content"}` is taken as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import pydantic
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    UserPromptPart,
)

from flow_sdk.harness.failure import Refused

_OF_THE_RUN: Final = frozenset(
    {"instructions", "usage", "provider_url", "run_id", "conversation_id", "model_id", "canonical_system"}
)


def load(messages: list[Any], most: int) -> list[ModelMessage]:
    """The last messages, at most so many, from one of the user on: a tool's answer needs its call.

    Raises:
        Refused: `invalid_input`, when they are no messages.
    """
    if not messages:
        return []
    try:
        if all(isinstance(message, Mapping) and "role" in message for message in messages):
            found = [_plain(cast("Mapping[str, Any]", message)) for message in messages]
        else:
            found = ModelMessagesTypeAdapter.validate_python(messages)
    except (pydantic.ValidationError, ValueError) as error:
        detail = {"field": "messages", "message": str(error)[:500]}
        raise Refused("invalid_input", f"messages are not valid: {error!s:.500}", [detail]) from error
    kept = found[-most:]
    first = next((index for index, message in enumerate(kept) if _begins_turn(message)), len(kept))
    return kept[first:]


def dump(messages: list[ModelMessage]) -> list[Any]:
    """Without what belongs to the run and not to the conversation."""
    left_out: Any = {"__all__": set(_OF_THE_RUN)}
    return cast(
        "list[Any]", ModelMessagesTypeAdapter.dump_python(messages, mode="json", exclude_none=True, exclude=left_out)
    )


def _plain(message: Mapping[str, Any]) -> ModelMessage:
    role, content = message["role"], message.get("content")
    if not isinstance(content, str):
        raise ValueError(f"a message of role {role!r} has content {content!r:.100}: expected a text")  # noqa: TRY004
    if role == "user":
        return ModelRequest(parts=[UserPromptPart(content)])
    if role == "assistant":
        return ModelResponse(parts=[TextPart(content)])
    raise ValueError(f"a message has role {role!r}: expected 'user' or 'assistant'")


def _begins_turn(message: ModelMessage) -> bool:
    return isinstance(message, ModelRequest) and any(isinstance(part, UserPromptPart) for part in message.parts)

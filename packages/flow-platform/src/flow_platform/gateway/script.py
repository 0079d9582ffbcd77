"""Scripts of the `test` provider: what a model answers, turn by turn, written down beforehand.

Which turn it is follows from the conversation: as many assistant messages as it has, as many turns are over. So the
provider keeps nothing between calls, and an agent that is resumed gets what it got before.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from flow_platform.domain import errors

MAX_TURNS: Final = 1_000
MAX_PACE_MS: Final = 60_000


class ScriptedCall(BaseModel):
    """A call of a tool."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    name: Annotated[str, Field(min_length=1, max_length=128)]
    arguments: dict[str, Any] = {}
    id: Annotated[str, Field(min_length=1, max_length=128)] | None = None


class ScriptedError(BaseModel):
    """What goes wrong instead of an answer, or in the middle of it.

    Attributes:
        status: As the provider's HTTP status; 0: the connection breaks.
        times: Of how many tries of one call, the first ones; the next succeeds.
        after_chunks: Of a stream: how many chunks come before it.
    """

    model_config = ConfigDict(extra="forbid", defer_build=True)

    status: Annotated[int, Field(ge=0, le=599)] = 500
    message: Annotated[str, Field(max_length=1_000)] = "scripted"
    times: Annotated[int, Field(ge=1)] = 1_000
    retry_after: Annotated[float, Field(ge=0, le=3_600)] | None = None
    after_chunks: Annotated[int, Field(ge=0)] = 0


class ScriptedUsage(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    prompt_tokens: Annotated[int, Field(ge=0, le=10**12)] = 0
    completion_tokens: Annotated[int, Field(ge=0, le=10**12)] = 0
    cached_tokens: Annotated[int, Field(ge=0, le=10**12)] = 0


class Turn(BaseModel):
    """One answer. `{{last_user}}` and `{{last_tool}}` in its text stand for the last message of that role."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    text: str | None = None
    tool_calls: Annotated[list[ScriptedCall], Field(max_length=128)] = []
    first_chunk_ms: Annotated[float, Field(ge=0, le=MAX_PACE_MS)] = 0
    chunk_ms: Annotated[float, Field(ge=0, le=MAX_PACE_MS)] = 0
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"] | None = None
    usage: ScriptedUsage | None = None
    error: ScriptedError | None = None


class Script(BaseModel):
    """All turns. `then`: what answers when they are over."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    turns: Annotated[list[Turn], Field(min_length=1, max_length=MAX_TURNS)]
    then: Literal["error", "repeat", "echo"] = "error"

    def turn(self, number: int) -> Turn | None:
        """The turn of that number, from 0; None: the echo answers.

        Raises:
            UpstreamRefused: `script_ended`.
        """
        if number < len(self.turns):
            return self.turns[number]
        match self.then:
            case "repeat":
                return self.turns[-1]
            case "echo":
                return None
            case "error":
                raise errors.UpstreamRefused(
                    f"the script has {len(self.turns)} turns and the conversation {number} answers: expected fewer",
                    code="script_ended",
                )


def script_of(value: Any) -> Script:
    """A script given with a request: an object, a list of turns, or either as JSON text.

    Raises:
        UpstreamRefused: `invalid_script`.
    """
    try:
        if isinstance(value, str):
            value = json.loads(value)
        return Script.model_validate({"turns": value} if isinstance(value, list) else value)
    except ValueError as error:
        raise errors.UpstreamRefused(
            f"metadata.script is no script: {str(error)[:1000]}", code="invalid_script"
        ) from error

"""What a reader sees while an agent runs: events `message`, `chunk`, `tool_call`, `done` and `error`.

Chunks are as the model made them, but those that come within a few milliseconds travel together. Of an answer that an
earlier attempt had already, no chunks are sent again; its `message` and `tool_call` come with `replayed`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

GATHER_SECONDS: Final = 0.02
"""How long what follows a chunk is held back; the first is sent at once."""

MAX_CHUNKS: Final = 5_000
"""Of one attempt: half of what a container may emit. What comes after is in `message` only."""

MAX_SHOWN_CHARACTERS: Final = 32_000
"""Of an output, arguments or a tool's result, in an event. The result of the execution has all of it."""

Emit = Callable[[str, Any], None]


class Stream:
    """Args:
    emit: Publishes an event; see `flow_sdk.emit_event`.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._turn = 0
        self._replayed = False
        self._held = ""
        self._timer: asyncio.TimerHandle | None = None
        self._chunks = 0

    def begin_turn(self, turn: int) -> None:
        self.flush()
        self._turn, self._replayed = turn, False

    def mark_replayed(self) -> None:
        """The answer that comes was given before."""
        self._replayed = True

    def user_message(self, text: str) -> None:
        self._emit("message", {"turn": 0, "role": "user", "text": _shown(text)})

    def text(self, delta: str) -> None:
        if not delta or self._replayed or self._chunks >= MAX_CHUNKS:
            return
        if self._timer is not None:
            self._held += delta
            return
        self._send(delta)
        # Never what keeps the container: it is over before anything could be given back.
        self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._gathered)

    def message(self, text: str) -> None:
        """The whole text of an answer."""
        self.flush()
        if text:
            self._emit("message", self._about({"role": "assistant", "text": _shown(text)}))

    def tool_called(self, call_id: str, tool: str, arguments: Any) -> None:
        self.flush()
        about = {"tool_call_id": call_id, "tool": tool, "status": "called", "arguments": _shown(arguments)}
        self._emit("tool_call", self._about(about))

    def tool_ended(self, call_id: str, tool: str, status: str, execution_id: str | None, result: Any) -> None:
        about = {"tool_call_id": call_id, "tool": tool, "status": status, "execution_id": execution_id}
        self._emit("tool_call", self._about({**about, "result": _shown(result)}))

    def done(self, output: Any, usage: dict[str, Any]) -> None:
        self.flush()
        self._emit("done", {"output": _shown(output), "usage": usage})

    def error(self, code: str, message: str) -> None:
        self.flush()
        self._emit("error", {"code": code, "message": message[:MAX_SHOWN_CHARACTERS]})

    def flush(self) -> None:
        """Sends what is held back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held:
            held, self._held = self._held, ""
            self._send(held)

    def _gathered(self) -> None:
        self._timer = None
        if self._held:
            held, self._held = self._held, ""
            self.text(held)

    def _send(self, text: str) -> None:
        self._chunks += 1
        self._emit("chunk", {"turn": self._turn, "text": text})

    def _about(self, data: dict[str, Any]) -> dict[str, Any]:
        return {"turn": self._turn, **data, **({"replayed": True} if self._replayed else {})}


def _shown(value: Any) -> Any:
    """The value, or the beginning of its text when it is too long for an event."""
    if isinstance(value, str):
        return value if len(value) <= MAX_SHOWN_CHARACTERS else value[:MAX_SHOWN_CHARACTERS] + " ..."
    text = json.dumps(value, ensure_ascii=False, default=str)
    return value if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + " ..."

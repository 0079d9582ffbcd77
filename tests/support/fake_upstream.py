"""A provider of models over real HTTP on loopback, whose answers a test writes down beforehand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


@dataclass
class Answer:
    """One answer.

    Attributes:
        events: A stream: each is sent as one server-sent event; a text as it is.
        gate: Waited for before the body, or before the event of number `gate_at`.
        breaks: The connection ends there, without the end of the body.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    events: list[Any] | None = None
    gate: asyncio.Event | None = None
    gate_at: int = 0
    breaks: bool = False


@dataclass
class Seen:
    path: str
    headers: dict[str, str]
    body: Any


class FakeUpstream:
    """Gives the answers of `script` in turn, the last one again and again."""

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.seen: list[Seen] = []
        self.open = 0
        self.app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST"])])

    def will(self, *answers: Answer) -> None:
        self.script, self.seen = list(answers), []

    async def _answer(self, request: Request) -> Response:
        content = await request.body()
        self.seen.append(Seen(request.url.path, dict(request.headers), json.loads(content) if content else None))
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if answer.events is None:
            if answer.gate:
                await answer.gate.wait()
            if isinstance(answer.body, bytes):
                return Response(answer.body, answer.status, answer.headers)
            return JSONResponse(answer.body, answer.status, answer.headers)
        return StreamingResponse(self._events(answer), 200, answer.headers, "text/event-stream")

    async def _events(self, answer: Answer) -> AsyncIterator[bytes]:
        self.open += 1
        try:
            for number, event in enumerate(answer.events or []):
                if answer.gate and number == answer.gate_at:
                    await answer.gate.wait()
                yield event.encode() if isinstance(event, str) else sse(event)
            if answer.breaks:
                raise ConnectionResetError("scripted")
        finally:
            self.open -= 1


def sse(event: Any) -> bytes:
    name = f"event: {event['type']}\n".encode() if isinstance(event, dict) and "type" in event else b""
    return name + b"data: " + json.dumps(event).encode() + b"\n\n"


def completion(text: str = "hello", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
        **more,
    }


def chunks(*words: str, usage: bool = True, finish: bool = True) -> list[Any]:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    found: list[Any] = [
        {**head, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in words
    ]
    if finish:
        found.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage:
        counts = {"prompt_tokens": 10, "completion_tokens": len(words), "total_tokens": 10 + len(words)}
        found.append({**head, "choices": [], "usage": counts})
    return [*found, "data: [DONE]\n\n"] if finish else found

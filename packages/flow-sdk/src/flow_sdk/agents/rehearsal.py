"""Runs agents that ask nobody anything, in a template, before any container is forked from it; see `harness.rehearsal`.

pydantic-ai and its client build most of what they work with at their first use: modules, validators, tables. That takes
0.2 s, and would be done in each container again. Model and platform are played by a server on loopback, so that the
way to them is rehearsed as well; what they say is all made up here.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterable
from typing import Any, Final, cast

from flow_sdk.agents.output import ANSWER_TOOL
from flow_sdk.agents.runner import SAVE_STATE, AgentEnd, run_agent
from flow_sdk.harness import idle, result
from flow_sdk.wire.agent import AgentDocument, AgentTool, Persistence, StateRule, ToolTarget
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.status import Status

_ROUNDS: Final = 2  # What comes after saves less than it takes.
_PATIENCE_SECONDS: Final = 60.0
_LAST_THREAD_SECONDS: Final = 10.0
_TOOL: Final = "look"
_EXECUTION: Final = "00000000-0000-7000-8000-000000000000"
_ENVIRONMENT: Final = {
    "AUTH_TOKEN": "rehearsal",
    "ORG_ID": _EXECUTION,
    "WORKSPACE_ID": _EXECUTION,
    "RING_ID": _EXECUTION,
    "DEPLOYMENT_ID": _EXECUTION,
}
_OBJECT: Final[dict[str, Any]] = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
_TALKS: Final = AgentDocument(
    models=["openai/rehearsal"],
    prompt="You rehearse {what}, and know {state}.",
    tools=[AgentTool(name=_TOOL, target=ToolTarget.CODE_BLOCK, ref=_TOOL, parameters=_OBJECT)],
    state=StateRule(persistence=Persistence.SESSION),
)
_SORTS: Final = AgentDocument(models=["test/rehearsal"], output_schema=_OBJECT)

_Answer = tuple[int, str, bytes]
"""Status, type and body."""


def rehearse() -> None:
    """Leaves no trace but warm caches: no variable, no event loop, no connection, no thread.

    Raises:
        RuntimeError: Agents do not work here.
    """
    threads = _threads()
    before = {name: os.environ.get(name) for name in (*_ENVIRONMENT, "PLATFORM_API_URL", "ATTEMPT")}
    os.environ.update(_ENVIRONMENT)
    os.environ.pop("ATTEMPT", None)
    try:
        for _ in range(_ROUNDS):
            idle.run(_round(), _PATIENCE_SECONDS)
        _outlast_threads(threads)
    except Exception as exc:
        reason = getattr(exc, "document", exc)
        said = reason.message if isinstance(reason, ErrorDocument) else f"{type(reason).__name__}: {reason}"
        raise RuntimeError(f"the rehearsal of an agent failed: {said}") from exc
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _threads() -> int:
    """As the kernel counts them."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208


def _outlast_threads(before: int) -> None:
    """Libraries call some functions in threads. These were told to end, which the kernel does when it comes to it."""
    until = time.monotonic() + _LAST_THREAD_SECONDS
    while _threads() > before:
        if time.monotonic() > until:
            raise RuntimeError(f"threads are left: {threading.enumerate()!r}")
        time.sleep(0.001)


async def _round() -> None:
    loop = asyncio.get_running_loop()
    open_: set[asyncio.Transport] = set()
    server = await loop.create_server(lambda: _Platform(open_), "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        os.environ["PLATFORM_API_URL"] = f"http://{host}:{port}"
        talked = await _run(_TALKS, {"prompt": "Begin.", "what": "it"}, [])
        sorted_ = await _run(_SORTS, "Go on.", talked.messages)
        while open_:  # Else the loop would be closed before they are.
            open_.pop().abort()
            await asyncio.sleep(0)
    if (talked.output, sorted_.output) != ("Well done.", {"text": "done"}):
        raise RuntimeError(f"an agent answered {talked.output!r}, then {sorted_.output!r}")


async def _run(document: AgentDocument, input_data: Any, messages: list[Any]) -> AgentEnd:
    frozen = AgentDocument.model_validate(json.loads(document.model_dump_json()))
    end = await run_agent(frozen, {"input_data": input_data, "messages": messages, "state": {}}, _tell)
    result.encode({"output": end.output, "usage": end.usage, "messages": end.messages, "state": end.state})
    return end


def _tell(_: str, data: Any) -> None:
    json.dumps(data)  # As far as an event comes without a runner.


class _Platform(asyncio.Protocol):
    """One connection to what plays model and platform, as far as a run needs them. Has no task that could be left."""

    def __init__(self, open_: set[asyncio.Transport]) -> None:
        self._open = open_
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
        if not separator or len(body) < length:
            return
        self._received = b""  # No client of ours sends a request before the last one is answered.
        status, kind, answer = _answer(lines[0].split(" ")[1], json.loads(body or b"{}"))
        about = f"HTTP/1.1 {status} OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        self._transport.write(b"%b%x\r\n%b\r\n0\r\n\r\n" % (about.encode(), len(answer), answer))


def _answer(path: str, body: dict[str, Any]) -> _Answer:
    if path.endswith("/chat/completions"):
        return 200, "text/event-stream", _streamed(_chunks(body))
    document = {"execution_id": _EXECUTION, "status": Status.COMPLETED, "output": {"text": "seen"}}
    return 200 if path.endswith(_EXECUTION) else 202, "application/json", json.dumps(document).encode()


def _chunks(body: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Calls what can be called, then says something."""
    names = [tool["function"]["name"] for tool in body.get("tools", [])]
    if ANSWER_TOOL in names:
        return _calls((ANSWER_TOOL, {"text": "done"}))
    if body["messages"][-1]["role"] == "tool":
        return [{"role": "assistant", "content": "Well "}, {"content": "done."}]
    return _calls((_TOOL, {"text": "there"}), (SAVE_STATE, {"values": {"seen": True}}))


def _calls(*called: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    functions = [{"name": name, "arguments": json.dumps(arguments)} for name, arguments in called]
    return [
        {"tool_calls": [{"index": index, "id": f"call-{index}", "type": "function", "function": function}]}
        for index, function in enumerate(functions)
    ]


def _streamed(deltas: Iterable[dict[str, Any]]) -> bytes:
    about = {"id": "rehearsal", "object": "chat.completion.chunk", "created": 0, "model": "test/rehearsal"}
    parts: list[dict[str, Any]] = [
        {**about, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    parts.append({**about, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "cost_micro_credits": 0}
    parts.append({**about, "choices": [], "usage": usage})
    return b"".join(b"data: " + json.dumps(part).encode() + b"\n\n" for part in parts) + b"data: [DONE]\n\n"

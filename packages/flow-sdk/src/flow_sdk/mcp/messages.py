"""JSON-RPC messages between us and a server, and how a conversation with one goes wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from flow_sdk.harness.failure import Refused

MAX_MESSAGE_BYTES: Final = 16 << 20
"""Of one answer; also a bound on what the container holds of it at once."""

METHOD_NOT_FOUND: Final = -32601

Message = dict[str, Any]


class RpcError(Exception):
    """The server answered a request with an error."""

    def __init__(self, code: Any, message: Any) -> None:
        super().__init__(f"{message} ({code})" if code is not None else str(message))
        self.code = code


@dataclass(frozen=True)
class Deadline:
    """Until when one request must have been answered."""

    at: float
    seconds: float
    what: str

    @classmethod
    def after(cls, seconds: float, what: str) -> Deadline:
        return cls(time.monotonic() + seconds, seconds, what)

    def remaining(self) -> float:
        """Seconds that are left.

        Raises:
            Refused: `mcp_timeout`: there are none.
        """
        left = self.at - time.monotonic()
        if left <= 0:
            raise self.passed()
        return left

    def passed(self) -> Refused:
        return Refused("mcp_timeout", f"the MCP server did not answer {self.what!r} within {self.seconds:g} s")


class Transport(Protocol):
    """A way to one server."""

    def exchange(self, request: Message, deadline: Deadline) -> Message:
        """Sends a request and returns its answer, whole. Requests of the server that come meanwhile are answered.

        Raises:
            Refused: `mcp_unreachable`, `mcp_timeout` or `mcp_protocol_error`.
        """
        ...

    def notify(self, message: Message, deadline: Deadline) -> None: ...

    def speak(self, protocol: str) -> None:
        """From now on messages are of this version of the protocol."""
        ...

    def close(self) -> None: ...


def unreachable(message: str) -> Refused:
    return Refused("mcp_unreachable", message)


def protocol_error(message: str) -> Refused:
    return Refused("mcp_protocol_error", f"the MCP server {message}")


def too_large() -> Refused:
    return protocol_error(f"sent a message of more than {MAX_MESSAGE_BYTES} bytes")


def is_answer(message: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
    return "method" not in message and message.get("id") == request["id"]


def reply_to(message: Mapping[str, Any]) -> Message | None:
    """What we answer to what the server asks of us: we are there, and can nothing else. None: it asked nothing."""
    if "method" not in message or message.get("id") is None:
        return None
    answer: Message = {"jsonrpc": "2.0", "id": message["id"]}
    if message["method"] == "ping":
        return {**answer, "result": {}}
    return {**answer, "error": {"code": METHOD_NOT_FOUND, "message": "this client offers nothing to servers"}}


def result_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The result in an answer.

    Raises:
        RpcError: It is an error.
        Refused: `mcp_protocol_error`: it is neither.
    """
    error: Any = answer.get("error")
    if isinstance(error, dict):
        raise RpcError(error.get("code"), error.get("message"))  # pyright: ignore[reportUnknownMemberType] - JSON.
    result = answer.get("result")
    if not isinstance(result, dict):
        raise protocol_error(f"answered neither a result nor an error: {answer!r:.200}")
    return result  # pyright: ignore[reportUnknownVariableType] - JSON.

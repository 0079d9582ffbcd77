"""A conversation with a server: agree on a version of the protocol, list its tools, call one."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any, Final, cast

from flow_sdk.harness.failure import Refused
from flow_sdk.mcp.messages import Deadline, Message, RpcError, Transport, protocol_error, result_of

HANDSHAKE: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Versions with a handshake; the first is what we propose."""

PER_REQUEST: Final = "2026-07-28"
"""Without one: each request says all that is to be said."""

CLIENT_VERSION: Final = "1"  # Of this speaker, as servers are told.
START_SECONDS: Final = 60.0  # For a program to have loaded its packages.
MAX_TOOLS: Final = 500
MAX_PAGES: Final = 100
_META: Final = "io.modelcontextprotocol/"


class Session:
    """Open from `open` on.

    Attributes:
        server: Name and version, as the server says.
        protocol: The version that is spoken.
    """

    def __init__(self, transport: Transport, timeout_seconds: float) -> None:
        self._transport = transport
        self._seconds = timeout_seconds
        self._ids = itertools.count(1)
        self._envelope: dict[str, Any] = {}
        self.server: dict[str, Any] = {}
        self.protocol = ""

    def open(self) -> None:
        """Agrees on a version. Most servers take the handshake; one that has none any more says so by an error.

        Raises:
            Refused: The server cannot be reached, or speaks no version that we know.
        """
        client = {"name": "flow", "version": CLIENT_VERSION}
        wanted = {"protocolVersion": HANDSHAKE[0], "capabilities": {}, "clientInfo": client}
        try:
            result = self._result("initialize", wanted, START_SECONDS)
        except RpcError as error:
            if self._discovered(client):
                return
            raise protocol_error(f"refused 'initialize': {error}") from error
        chosen = result.get("protocolVersion")
        if chosen not in HANDSHAKE:
            raise protocol_error(f"speaks version {chosen!r} of the protocol: expected one of {', '.join(HANDSHAKE)}")
        self.protocol = str(chosen)
        self.server = _object(result.get("serverInfo"))
        self._transport.speak(self.protocol)
        deadline = Deadline.after(self._seconds, "notifications/initialized")
        self._transport.notify({"jsonrpc": "2.0", "method": "notifications/initialized"}, deadline)

    def tools(self) -> list[dict[str, Any]]:
        """As the server tells of them.

        Raises:
            Refused: It does not, or not in bounds.
        """
        found: list[dict[str, Any]] = []
        cursor: Any = None
        for _ in range(MAX_PAGES):
            result = self._asked("tools/list", {} if cursor is None else {"cursor": cursor})
            page = result.get("tools")
            if not isinstance(page, list):
                raise protocol_error(f"listed no tools: {result!r:.200}")
            found += [_object(tool) for tool in cast("list[Any]", page)]
            if len(found) > MAX_TOOLS:
                raise protocol_error(f"has more than {MAX_TOOLS} tools")
            cursor = result.get("nextCursor")
            if not cursor:
                return found
        raise protocol_error(f"has more than {MAX_PAGES} pages of tools")

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The result of a tool, also of one that failed.

        Raises:
            Refused: `mcp_refused`: the server does not make the call.
        """
        result = self._asked("tools/call", {"name": name, "arguments": arguments})
        if result.get("resultType", "complete") != "complete":
            raise Refused("mcp_refused", f"the MCP tool {name!r} asks for more input from a person, who is not there")
        return result

    def _asked(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._result(method, params, self._seconds)
        except RpcError as error:
            raise Refused("mcp_refused", f"the MCP server refused {method!r}: {error}") from error

    def _result(self, method: str, params: dict[str, Any], seconds: float) -> dict[str, Any]:
        request: Message = {"jsonrpc": "2.0", "id": next(self._ids), "method": method}
        params = {**params, "_meta": self._envelope} if self._envelope else params
        if params:
            request["params"] = params
        return result_of(self._transport.exchange(request, Deadline.after(seconds, method)))

    def _discovered(self, client: dict[str, Any]) -> bool:
        self._envelope = {
            f"{_META}protocolVersion": PER_REQUEST,
            f"{_META}clientInfo": client,
            f"{_META}clientCapabilities": {},
        }
        self._transport.speak(PER_REQUEST)
        with contextlib.suppress(RpcError):
            result = self._result("server/discover", {}, START_SECONDS)
            if PER_REQUEST in (result.get("supportedVersions") or ()):
                self.protocol = PER_REQUEST
                self.server = _object(_object(result.get("_meta")).get(f"{_META}serverInfo"))
                return True
        return False


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}

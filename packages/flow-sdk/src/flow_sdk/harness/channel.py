"""How the harness speaks to the runner: frames on the inherited socket. See `flow_sdk.wire.harness`."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from typing import Any, Final

from flow_sdk.wire.harness import HEADER, PLATFORM_EVENTS, Frame

EVENT_BYTES: Final = 256 << 10
"""Largest body of one event."""


class Channel:
    """The harness's end of the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def receive_start(self) -> dict[str, Any] | None:
        """Waits for the START frame; None when the runner went away."""
        header = self._receive(HEADER.size)
        if header is None:
            return None
        kind, length = HEADER.unpack(header)
        body = self._receive(length)
        if body is None:
            return None
        if kind != Frame.START:
            raise ValueError(f"the first frame has kind {kind!r}, expected START ({Frame.START.value})")
        start: dict[str, Any] = json.loads(body)
        return start

    def send(self, kind: Frame, body: bytes = b"{}") -> None:
        self._connection.sendall(HEADER.pack(kind, len(body)) + body)

    def _receive(self, size: int) -> bytes | None:
        received = bytearray(size)
        view = memoryview(received)
        position = 0
        while position < size:
            count = self._connection.recv_into(view[position:])
            if count == 0:
                return None
            position += count
        return bytes(received)


_current: Channel | None = None


def set_current(channel: Channel) -> None:
    """Makes `emit_event` use this channel."""
    global _current  # noqa: PLW0603 - one process, one execution.
    _current = channel


def emit_event(event_type: str, event_data: Any = None) -> None:
    """Publishes an event of this execution, e.g. `emit_event("progress", {"percent": 40})`.

    Outside of a container it does nothing, so that components can be called by their tests.

    Raises:
        ValueError: The data is larger than `EVENT_BYTES` as JSON, or only the platform emits events of that type.
    """
    if event_type in PLATFORM_EVENTS:
        raise ValueError(f"event type {event_type!r} is the platform's own: expected another")
    if _current is None:
        return
    timestamp = datetime.now(UTC).isoformat()  # noqa: TID251 - when the component said it, for people.
    event = {"event_type": event_type, "event_data": event_data, "timestamp": timestamp}
    body = json.dumps(event, default=str).encode()
    if len(body) > EVENT_BYTES:
        raise ValueError(f"event {event_type!r} has {len(body)} bytes as JSON, at most {EVENT_BYTES} are allowed")
    _current.send(Frame.EVENT, body)

"""How much of the runner one execution may use through the gateway.

All connections of a session share one `Room`, so that opening more of them gains nothing. A container that wants more
is not refused, it is read more slowly: the kernel's socket buffer fills, and it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

# Our own limit for an output is 32 MiB; usage, messages, state and the envelope come on top.
MAX_PAYLOAD_BYTES: Final = (32 << 20) + (1 << 20)
MAX_CONNECTIONS: Final = 8  # Per session; a client opens one.
MAX_SUBSCRIPTIONS: Final = 64  # Per connection; nats-py needs two.
MAX_CONSUMERS: Final = 16  # Per connection; the oldest one goes.
MAX_REQUEST_BYTES: Final = 64 << 10  # Of a request to the JetStream API; it is parsed as JSON.
MAX_PULLS: Final = 16  # Pull requests of a connection that wait for a message.
MAX_IN_FLIGHT: Final = 64  # Messages of a session that are being stored.
# Bytes of a session's messages that are being received or stored. One of the largest size always fits.
MAX_HELD_BYTES: Final = MAX_PAYLOAD_BYTES + (4 << 20)
AUTH_TIMEOUT: Final = 5.0  # seconds from accept to CONNECT.
MAX_MESSAGE_IDS: Final = 4096  # Remembered per session; a client repeats a message within seconds or never.
END_GRACE: Final = 1.0  # seconds to read what a container has sent before its session ended.
END_POLL: Final = 0.002  # seconds between two looks whether that is read; mostly it is at the first.
END_TIMEOUT: Final = 15.0  # seconds for what is in flight when a session ends; longer than a publish is retried.

TICK: Final = 0.05  # seconds between two refills.
OPERATIONS_PER_TICK: Final = 1_000  # 20,000/s: more than a client in Python can send.
MAX_OPERATIONS_AT_ONCE: Final = 4_000
BYTES_PER_TICK: Final = 8 << 20
MAX_BYTES_AT_ONCE: Final = MAX_PAYLOAD_BYTES + BYTES_PER_TICK


class Room:
    """The shared account of one session's connections.

    Attributes:
        published: By kind and message id, the sequence number, or None when it was not stored.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.published: dict[tuple[str, bytes], asyncio.Future[int | None]] = {}
        self._in_flight = 0
        self._held_bytes = 0
        self._operations = MAX_OPERATIONS_AT_ONCE
        self._bytes = MAX_BYTES_AT_ONCE
        self._refilled_at = asyncio.get_running_loop().time()
        self._waiting: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def may_hold(self, size: int) -> bool:
        """Whether a message of that size may be received now. One alone always may."""
        if self._in_flight == 0 and self._held_bytes == 0:
            return True
        return self._in_flight < MAX_IN_FLIGHT and self._held_bytes + size <= MAX_HELD_BYTES

    def hold(self, size: int) -> None:
        self._in_flight += 1
        self._held_bytes += size

    def release(self, size: int) -> None:
        self._in_flight -= 1
        self._held_bytes -= size
        self._call_waiting()

    def spend_bytes(self, size: int) -> None:
        self._bytes -= size

    def spend_operation(self) -> bool:
        """Takes one operation from the account; False when it is empty: call `wait`."""
        if self._operations <= 0 or self._bytes <= 0:
            self._refill()
            if self._operations <= 0 or self._bytes <= 0:
                return False
        self._operations -= 1
        return True

    def wait(self, resume: Callable[[], None]) -> None:
        """Has `resume` called once, at the next refill or release, whichever is first."""
        if resume not in self._waiting:
            self._waiting.append(resume)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def close(self) -> None:
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        self._refill()
        self._call_waiting()

    def _refill(self) -> None:
        now = asyncio.get_running_loop().time()
        ticks = int((now - self._refilled_at) / TICK)
        if ticks > 0:
            self._refilled_at += ticks * TICK
            self._operations = min(MAX_OPERATIONS_AT_ONCE, self._operations + ticks * OPERATIONS_PER_TICK)
            self._bytes = min(MAX_BYTES_AT_ONCE, self._bytes + ticks * BYTES_PER_TICK)

    def _call_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for resume in waiting:
            resume()

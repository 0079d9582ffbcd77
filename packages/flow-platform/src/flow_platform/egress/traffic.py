"""What one broker allows, what it has carried, and the record of each connection."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from flow_platform.egress.refusal import Verdict, limit_reached

MAX_CONNECTIONS: Final = 64  # Open at once per execution; an HTTP client's default pool is 100, used far below.
MAX_ACCEPTED: Final = 10_000  # Per execution over its whole life: connecting in a loop ends here.
MAX_TRANSFER_BYTES: Final = 1 << 30  # Per execution and direction; a setting.
IDLE_SECONDS: Final = 300.0  # Without a byte in either direction; long polls of common services last up to 2 minutes.
CHUNK_BYTES: Final = 64 << 10


@dataclass(frozen=True)
class Limits:
    """Of one broker.

    Attributes:
        bytes_each_way: Over all connections together, in each direction.
    """

    connections: int = MAX_CONNECTIONS
    accepted: int = MAX_ACCEPTED
    bytes_each_way: int = MAX_TRANSFER_BYTES
    idle_seconds: float = IDLE_SECONDS


@dataclass
class Record:
    """One connection, from its request to its end. `started_at` is of the event loop's clock."""

    started_at: float
    host: str = ""
    port: int = 0
    address: str = ""
    bytes_out: int = 0
    bytes_in: int = 0
    duration_ms: float = 0.0
    verdict: Verdict = "allowed"
    reason: str = ""


class Meter:
    """Bytes of all connections of one broker."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.bytes_each_way
        self._out = 0
        self._in = 0

    def check(self) -> None:
        """Raises `Refusal` when nothing more may be carried."""
        self._compare(self._out, "out")
        self._compare(self._in, "in")

    def sent(self, record: Record, size: int) -> None:
        """Counts bytes on their way out. Raises `Refusal` at the limit."""
        self._out += size
        self._compare(self._out, "out")
        record.bytes_out += size

    def received(self, record: Record, size: int) -> None:
        """Counts bytes on their way in. Raises `Refusal` at the limit."""
        self._in += size
        self._compare(self._in, "in")
        record.bytes_in += size

    def _compare(self, size: int, direction: str) -> None:
        if size > self._limit:
            raise limit_reached(
                f"limit reached: an execution may carry {self._limit} bytes {direction} over the network"
            )


class IdleTimer:
    """Ends a connection on which nothing moves. Use `watching` around it, `touch` with each byte."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.watching: asyncio.Timeout = asyncio.timeout(seconds)
        self._loop = asyncio.get_running_loop()

    def touch(self) -> None:
        self.watching.reschedule(self._loop.time() + self.seconds)

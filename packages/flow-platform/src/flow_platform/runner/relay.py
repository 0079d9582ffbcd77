"""Carries the connections that a container opens on its two loopback listeners, and reaches nothing else.

The listeners live in the container's network namespace; this process accepts on them. API connections are piped, byte
by byte, to the one configured API address; NATS connections are handed to the gateway. A container that never connects
costs one `add_reader` per listener. Everything closes with the attempt.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, cast

from flow_platform.sandbox.base import API_PORT, NATS_PORT

logger = logging.getLogger(__name__)

MAX_API_CONNECTIONS: Final = 384  # Open at once per container: all that one of our clients opens, and some of others.
MAX_NATS_ACCEPTED: Final = 64  # Per container over its whole life: a client needs one, and one per reconnect.
MAX_ACCEPTED: Final = 10_000  # Per container over its whole life: connecting in a loop ends here.
BYTES_PER_SECOND: Final = 64 << 20  # Both directions together, per container: two outputs of the largest size.
BURST_BYTES: Final = 64 << 20
CONNECT_SECONDS: Final = 5.0  # For the API's address; the client in the container tries again.
WRITE_BUFFER_BYTES: Final = 256 << 10  # Towards a slow reader; beyond it the other side is not read.
ACCEPTS_PER_WAKE_UP: Final = 16  # So that one container's connection storm does not hold the loop.

_RELAYED: Final = frozenset({API_PORT, NATS_PORT})

AttachNats = Callable[[socket.socket], None]


class ByteBudget:
    """A token bucket over all connections of one container."""

    def __init__(self, now: float) -> None:
        self._left = float(BURST_BYTES)
        self._at = now

    def spend(self, size: int, now: float) -> float:
        """Takes `size` bytes; returns how many seconds to pause before the next read."""
        self._left = min(BURST_BYTES, self._left + (now - self._at) * BYTES_PER_SECOND) - size
        self._at = now
        return max(0.0, -self._left / BYTES_PER_SECOND)


class _Side(asyncio.Protocol):
    """One end of a piped connection. What it reads is written to its peer; it reads no faster than the peer takes."""

    def __init__(self, budget: ByteBudget, on_lost: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._budget = budget
        self._on_lost = on_lost
        self._is_throttled = False
        self.peer_is_full = False
        self.has_ended = False
        self._resume: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None
        self.peer: _Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        self.transport = stream
        stream.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        self.read_or_pause()
        if self.peer is not None:
            self.peer.read_or_pause()

    def data_received(self, data: bytes) -> None:
        peer = self.peer
        if peer is None or peer.transport is None:
            return
        peer.transport.write(data)
        pause = self._budget.spend(len(data), self._loop.time())
        if pause > 0 and not self._is_throttled:
            self._is_throttled = True
            self._resume = self._loop.call_later(pause, self._unthrottle)
            self.read_or_pause()

    def eof_received(self) -> bool:
        self.has_ended = True
        peer = self.peer
        if peer is None or peer.has_ended or peer.transport is None or not peer.transport.can_write_eof():
            return False
        peer.transport.write_eof()
        return True  # The other direction may go on.

    def pause_writing(self) -> None:
        self._block_peer(full=True)

    def resume_writing(self) -> None:
        self._block_peer(full=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.close()
        if self.peer is not None:
            self.peer.close()
        self._on_lost()

    def close(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def abort(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
        if self.transport is not None:
            self.transport.abort()

    def _block_peer(self, *, full: bool) -> None:
        if self.peer is not None:
            self.peer.peer_is_full = full
            self.peer.read_or_pause()

    def _unthrottle(self) -> None:
        self._is_throttled = False
        self.read_or_pause()

    def read_or_pause(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if self._is_throttled or self.peer_is_full or self.peer is None or self.peer.transport is None:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()


class Relay:
    """Serves one container's listeners until closed.

    Args:
        listeners: By port, as the container gives them; listening and not blocking.
        api_address: The only address that API connections reach.
        attach_nats: Takes over an accepted socket.
        on_nats_refused: Told of each connection that is one too many for the gateway.
    """

    def __init__(
        self,
        listeners: Mapping[int, socket.socket],
        api_address: tuple[str, int],
        attach_nats: AttachNats,
        on_nats_refused: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._api_address = api_address
        self._attach_nats = attach_nats
        self._on_nats_refused = on_nats_refused
        self._budget: ByteBudget | None = None
        self._accepted = 0
        self._nats_accepted = 0
        self._api_connections = 0
        self._sides: set[_Side] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._accepted_only: set[socket.socket] = set()  # Whose task has not begun: cancelled then, it closes nothing.
        # Our own descriptors: the container closes its own when it ends, and a number that is used again for another
        # container's listener must not still be registered with the event loop.
        self._listeners = [(port, listener.dup()) for port, listener in listeners.items() if port in _RELAYED]
        for port, listener in self._listeners:
            listener.setblocking(False)
            self._loop.add_reader(listener.fileno(), self._accept, port, listener)

    @property
    def used_nats(self) -> bool:
        """Whether any connection was handed to the gateway."""
        return self._nats_accepted > 0

    def close(self) -> None:
        """Accepts no more and ends the API connections. The gateway ends its own; the listeners are the container's."""
        for _, listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()
        for task in list(self._opening):
            task.cancel()
        for connection in self._accepted_only:
            connection.close()
        for side in list(self._sides):
            side.abort()

    def _accept(self, port: int, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_WAKE_UP):
            try:
                connection, _address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                logger.warning("a container's listener failed: %s", error)
                self._loop.remove_reader(listener.fileno())
                return
            self._accepted += 1
            connection.setblocking(False)
            if self._accepted > MAX_ACCEPTED:
                connection.close()
                self._loop.remove_reader(listener.fileno())
                return
            if port == API_PORT:
                self._accept_api(connection)
            else:
                self._accept_nats(connection)

    def _accept_api(self, connection: socket.socket) -> None:
        if self._api_connections >= MAX_API_CONNECTIONS:
            connection.close()
            return
        self._api_connections += 1
        self._accepted_only.add(connection)
        self._spawn(self._pipe(connection))

    def _accept_nats(self, connection: socket.socket) -> None:
        self._nats_accepted += 1
        if self._nats_accepted > MAX_NATS_ACCEPTED:
            connection.close()
            self._on_nats_refused()
            return
        self._attach_nats(connection)

    async def _pipe(self, connection: socket.socket) -> None:
        self._accepted_only.discard(connection)
        if self._budget is None:
            self._budget = ByteBudget(self._loop.time())
        if connection.family != socket.AF_UNIX:  # Some sandboxes carry the container's connections to such a socket.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        outer = _Side(self._budget, lambda: self._lost(outer))
        inner = _Side(self._budget, lambda: self._lost(inner))
        outer.peer, inner.peer = inner, outer
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._loop.create_connection(lambda: outer, *self._api_address)
            self._sides.add(outer)
            await self._loop.connect_accepted_socket(lambda: inner, connection)
            self._sides.add(inner)
        except (OSError, TimeoutError) as error:
            logger.warning("a container's call did not reach the API at %s:%s: %s", *self._api_address, error)
        finally:
            if inner.transport is None:
                outer.abort()
                connection.close()
                self._api_connections -= 1

    def _lost(self, side: _Side) -> None:
        self._sides.discard(side)
        peer = side.peer
        if peer is not None and peer not in self._sides:
            side.peer = peer.peer = None
            self._api_connections -= 1

    def _spawn(self, opening: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(opening, name="relay")
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

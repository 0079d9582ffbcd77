"""Carries connections from loopback inside gVisor to the runner's unix sockets, byte by byte. Runs inside gVisor.

The network stack of the container is gVisor's own and has loopback alone; the host's is never reached. What the
component connects to on loopback is accepted here, and goes out on a unix socket that only the runner listens on. The
component gains nothing by breaking this: it may connect to those ports anyway, and the runner trusts nothing of it.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Mapping
from typing import Final

MAX_OPEN: Final = 448
"""Connections at the same time: what the runner takes of one container, and some."""

_CHUNK_BYTES: Final = 64 << 10
_BUFFER_BYTES: Final = 256 << 10  # Towards a slow reader; beyond it the other side is not read.
_BACKLOG: Final = 64


class Ferry:
    """All connections of one container.

    Args:
        doors: Port on loopback -> path of the runner's unix socket.
    """

    def __init__(self, doors: Mapping[int, str]) -> None:
        self.selector = selectors.DefaultSelector()
        self._sides: set[Side] = set()
        self._listeners: dict[socket.socket, str] = {}
        self._is_listening = False
        for port, door in doors.items():
            listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
            listener.setblocking(False)
            self._listeners[listener] = door
        self._listen_while_there_is_room()

    def stop_accepting(self) -> None:
        for listener in self._listeners:
            if self._is_listening:
                self.selector.unregister(listener)
            listener.close()
        self._listeners.clear()
        self._is_listening = False

    def has_more(self) -> bool:
        """Whether something that the component sent is still on its way."""
        return any(side.is_outer and not side.peer.is_dry for side in self._sides)

    def _listen_while_there_is_room(self) -> None:
        has_room = len(self._sides) < 2 * MAX_OPEN
        if has_room == self._is_listening:
            return
        self._is_listening = has_room
        for listener, door in self._listeners.items():
            if has_room:
                self.selector.register(listener, selectors.EVENT_READ, lambda a=listener, b=door: self._accept(a, b))
            else:
                self.selector.unregister(listener)

    def _accept(self, listener: socket.socket, door: str) -> None:
        try:
            inner, _ = listener.accept()
        except OSError:
            return
        outer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        outer.setblocking(False)  # A runner that does not accept must not stop the keeper.
        try:
            outer.connect(door)
        except OSError:
            inner.close()
            outer.close()
            return
        inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one, other = Side(self, inner, is_outer=False), Side(self, outer, is_outer=True)
        one.peer, other.peer = other, one
        for side in (one, other):
            self._sides.add(side)
            side.watch()
        self._listen_while_there_is_room()

    def forget(self, side: Side) -> None:
        self._sides.discard(side)
        self._listen_while_there_is_room()


class Side:
    """One end of a carried connection: reads for its peer, writes what its peer has read."""

    peer: Side

    def __init__(self, ferry: Ferry, connection: socket.socket, *, is_outer: bool) -> None:
        connection.setblocking(False)
        self.is_outer = is_outer
        self._ferry = ferry
        self._connection = connection
        self.pending = bytearray()  # To be written here.
        self.has_ended = False  # Nothing more will be read here.
        self.is_shut = False  # Nothing more will be written here.
        self._watched = 0

    @property
    def is_dry(self) -> bool:
        """Whether all that could be read here has been, and was written by the peer."""
        return self.has_ended and not self.peer.pending

    def watch(self) -> None:
        wanted = selectors.EVENT_WRITE if self.pending else 0
        if not self.has_ended and len(self.peer.pending) < _BUFFER_BYTES:
            wanted |= selectors.EVENT_READ
        if wanted == self._watched:
            return
        selector = self._ferry.selector
        if not self._watched:
            selector.register(self._connection, wanted, self)
        elif not wanted:
            selector.unregister(self._connection)
        else:
            selector.modify(self._connection, wanted, self)
        self._watched = wanted

    def go(self, events: int) -> None:
        try:
            if events & selectors.EVENT_READ and self._connection.fileno() >= 0:
                self._read()
            if events & selectors.EVENT_WRITE and self._connection.fileno() >= 0:
                self.write()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            self.peer.close()
            return
        self._settle()

    def _read(self) -> None:
        data = self._connection.recv(_CHUNK_BYTES)
        if data:
            self.peer.pending += data
        else:
            self.has_ended = True
        self.peer.write()

    def write(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.pending:
                sent = self._connection.send(self.pending[:_CHUNK_BYTES])
                del self.pending[:sent]
        if self.peer.has_ended and not self.pending and not self.is_shut:
            self.is_shut = True
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)

    def _settle(self) -> None:
        if self.is_shut and self.peer.is_shut:
            self.close()
            self.peer.close()
            return
        for side in (self, self.peer):
            side.watch()

    def close(self) -> None:
        if self._connection.fileno() < 0:
            return
        if self._watched:
            self._ferry.selector.unregister(self._connection)
            self._watched = 0
        self.has_ended = self.is_shut = True
        self.pending.clear()
        self._connection.close()
        self._ferry.forget(self)

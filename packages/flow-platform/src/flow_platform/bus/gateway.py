"""The gateway: containers speak NATS to us, not to NATS.

Per-user permissions in a shared NATS account do not isolate the contract's client: filter and deliver subject of a
consumer are in a request's body, reply subjects are never checked, and `_INBOX.>` sees everybody's answers. So each
container meets a speaker of the protocol that knows one execution only. There is no shared subject space to attack: a
connection is bound to one session when the runner hands it over, before the first byte, and the token can only
confirm that. An unmodified client works: it connects, fetches its input, publishes output, events and status.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from flow_platform.bus.gateway_connection import GatewayConnection
from flow_platform.bus.gateway_limits import END_GRACE, END_POLL, END_TIMEOUT, MAX_CONNECTIONS, MAX_PAYLOAD_BYTES, Room
from flow_platform.bus.sessions import GatewaySession
from flow_platform.domain.clock import Clock, SystemClock

__all__ = ["Gateway", "GatewaySession"]

_log = logging.getLogger(__name__)

_ENDED: Final = "User Authentication Expired"


@dataclass
class _Attached:
    """A session and what belongs to it."""

    session: GatewaySession
    room: Room
    connections: set[GatewayConnection] = field(default_factory=set[GatewayConnection])
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])


class Gateway:
    """Serves accepted sockets. One per runner process; it holds no connection of its own.

    Args:
        max_payload: Most bytes of one message; announced to clients.
    """

    def __init__(self, *, max_payload: int = MAX_PAYLOAD_BYTES, clock: Clock | None = None) -> None:
        self._max_payload = max_payload
        self._clock = clock or SystemClock()
        self._attached: dict[int, _Attached] = {}

    def attach(self, accepted: socket.socket, session: GatewaySession) -> None:
        """Serves one accepted connection for one session; the socket is the gateway's from now on.

        The connection ends when the client goes, breaks a rule, or `end` is called.
        """
        attached = self._attached.setdefault(id(session), _Attached(session, Room()))
        accepted.setblocking(False)
        if attached.room.connections >= MAX_CONNECTIONS:
            accepted.close()
            session.denied("CONNECT", "rate_limited")
            return
        attached.room.connections += 1
        self._start(attached, self._serve(accepted, attached))

    async def end(self, session: GatewaySession) -> None:
        """Cuts the session's connections. When it returns, nothing more is published for the session.

        What the container had sent until now is read and stored first, within `END_GRACE` and `END_TIMEOUT`.
        """
        attached = self._attached.get(id(session))
        if attached is None:
            return
        loop = asyncio.get_running_loop()
        cut_at, deadline = loop.time() + END_GRACE, loop.time() + END_TIMEOUT
        # No event tells that a socket's buffer in the kernel is empty.
        while loop.time() < cut_at and not all(each.is_idle for each in attached.connections):  # noqa: ASYNC110
            await asyncio.sleep(END_POLL)
        for connection in list(attached.connections):
            if connection.is_cut_short:
                session.denied("CONNECT", "token_revoked")
            connection.cut(_ENDED, linger=0.0)
        while attached.tasks and loop.time() < deadline:
            await asyncio.wait(attached.tasks, timeout=deadline - loop.time())
        late = list(attached.tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        attached.room.close()
        self._attached.pop(id(session), None)

    async def close(self) -> None:
        """Ends all sessions."""
        await asyncio.gather(*(self.end(attached.session) for attached in list(self._attached.values())))

    async def _serve(self, accepted: socket.socket, attached: _Attached) -> None:
        loop = asyncio.get_running_loop()
        connection = GatewayConnection(
            attached.session,
            attached.room,
            max_payload=self._max_payload,
            clock=self._clock,
            start=lambda work: self._start(attached, work),
        )
        attached.connections.add(connection)
        try:
            await loop.connect_accepted_socket(lambda: connection, accepted)
            await connection.wait_closed()
        except OSError as error:
            accepted.close()
            _log.info("connection of a container failed", extra={"reason": repr(error)})
        finally:
            attached.connections.discard(connection)
            attached.room.connections -= 1

    def _start(self, attached: _Attached, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        attached.tasks.add(task)
        task.add_done_callback(lambda done: self._finished(attached, done))

    def _finished(self, attached: _Attached, task: asyncio.Task[None]) -> None:
        attached.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("gateway task failed", exc_info=error, extra={"execution_id": attached.session.execution_id})
        if not attached.tasks and not attached.connections and self._attached.get(id(attached.session)) is attached:
            attached.room.close()
            del self._attached[id(attached.session)]

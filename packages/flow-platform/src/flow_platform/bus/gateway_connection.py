"""One connection of one container: what it may do, and back-pressure.

Order of business for bytes: the room's account is charged, the parser finds operations, each is answered or refused.
Whenever the container should wait (its account is empty, its earlier messages are not stored yet, it does not read our
answers) reading pauses; nothing is queued on its behalf beyond the parser's buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import termios
from array import array
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

from flow_platform.bus import gateway_jetstream as jetstream
from flow_platform.bus.gateway_limits import AUTH_TIMEOUT, MAX_MESSAGE_IDS, MAX_PULLS, MAX_SUBSCRIPTIONS, Room
from flow_platform.bus.gateway_outbox import Outbox, Subscription
from flow_platform.bus.gateway_protocol import (
    MAX_CONTROL_LINE_BYTES,
    Connect,
    Operation,
    Parser,
    Ping,
    Pong,
    Publish,
    Subscribe,
    Unsubscribe,
    Violation,
)
from flow_platform.bus.sessions import DenialCode, GatewaySession, MessageKind, Tried
from flow_platform.domain.clock import Clock
from flow_platform.domain.errors import FlowError
from flow_sdk.wire import subjects

_log = logging.getLogger(__name__)

LINGER: Final = 2.0  # seconds for a client to read why it was cut off.
# A message below this is not reserved while it is received, only while it is stored.
RESERVE_FROM_BYTES: Final = 64 << 10
# Clients decide by it which requests they may use.
SERVER_VERSION: Final = "2.15.1"

_STREAMS: Final[dict[MessageKind, tuple[str, str]]] = {
    "output": (subjects.EXEC_OUTPUT, subjects.STREAM_OUTPUT),
    "events": (subjects.EXEC_EVENTS, subjects.STREAM_EVENTS),
    "status": (subjects.EXEC_STATUS, subjects.STREAM_STATUS),
}
_UNAUTHORIZED: Final = "Authorization Violation"


class GatewayConnection(asyncio.Protocol):
    """Speaks to one container.

    Args:
        start: Runs work of the session that outlives the connection: what was received completely is stored.
    """

    def __init__(
        self,
        session: GatewaySession,
        room: Room,
        *,
        max_payload: int,
        clock: Clock,
        start: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._session = session
        self._room = room
        self._max_payload = max_payload
        self._clock = clock
        self._start = start
        self._parser = Parser(max_payload)
        self._stream = jetstream.InputStream(session.execution_id)
        self._input_subject = f"{subjects.EXEC_INPUT}.{session.execution_id}".encode()
        self._kinds: dict[bytes, MessageKind] = {
            f"{prefix}.{session.execution_id}".encode(): kind for kind, (prefix, _) in _STREAMS.items()
        }
        self._undelivered: list[jetstream.Consumer] = []
        self._pulls: set[asyncio.TimerHandle] = set()
        self._transport: asyncio.Transport | None = None
        self._closed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._delivering = asyncio.Lock()
        self._stalled: Publish | None = None
        self._reserved: int | None = None
        self._authorized = False
        self._out = Outbox()
        self._cut = False
        self._blocked = False
        self._timer: asyncio.TimerHandle | None = None

    async def wait_closed(self) -> None:
        await self._closed.wait()

    @property
    def is_idle(self) -> bool:
        """Whether everything that the container has sent so far has been handled."""
        if self._transport is None or self._blocked:
            return self._cut
        unread = array("i", [0])
        with contextlib.suppress(OSError, ValueError, AttributeError):  # Closed meanwhile: nothing is unread.
            fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.FIONREAD, unread)
        return unread[0] == 0

    @property
    def is_cut_short(self) -> bool:
        """Whether its container still has something to say that is not heard, if it is cut now."""
        return self._authorized and not self._cut and not self.is_idle

    def cut(self, reason: str, linger: float = LINGER) -> None:
        """Says why, and closes. A client that does not read is waited for `linger` seconds."""
        if self._transport is None:
            return
        if not self._cut:
            self._cut = True
            self._out.error(reason.encode())
            self._transport.close()
        if linger > 0:
            self._set_timer(linger, self._transport.abort)
        elif self._transport.get_write_buffer_size():
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._out.open(self._transport)
        self._set_timer(AUTH_TIMEOUT, lambda: self._refuse("unauthenticated", "Authentication Timeout"))
        information = {
            "server_id": "FLOWGATEWAY",
            "server_name": "flow-gateway",
            "version": SERVER_VERSION,
            "proto": 1,
            "host": "127.0.0.1",
            "port": 4222,
            "headers": True,
            "auth_required": True,
            "jetstream": True,
            "max_payload": self._max_payload,
            "client_id": 1,
        }
        self._out.write(b"INFO %b \r\n" % json.dumps(information).encode())

    def connection_lost(self, exc: Exception | None) -> None:
        self._cut = True
        if self._timer is not None:
            self._timer.cancel()
        for pull in self._pulls:
            pull.cancel()
        self._release_reserved()
        if self._stalled is not None:
            # Complete when it came: it counts, although the client did not wait for the answer.
            operation, self._stalled = self._stalled, None
            self._room.hold(len(operation.body))
            self._publish(operation, len(operation.body))
        self._writable.set()
        self._closed.set()

    def data_received(self, data: bytes) -> None:
        if self._cut:
            return
        self._room.spend_bytes(len(data))
        self._parser.feed(data)
        self._proceed()

    def pause_writing(self) -> None:
        self._writable.clear()
        self._pause()

    def resume_writing(self) -> None:
        self._writable.set()
        self._proceed()

    # Reading

    def _proceed(self) -> None:
        """Handles what is in the buffer, as far as the container may go on; reads on only when all is handled."""
        while not self._cut:
            if not self._writable.is_set():
                return self._pause()
            operation: Operation | None = self._stalled
            if operation is None:
                if not self._room.spend_operation():
                    return self._pause_until_room()
                operation = self._parser.next_operation()
            if operation is None:
                return self._await_more()
            if isinstance(operation, Publish) and not self._hold(operation):
                self._stalled = operation
                return self._pause_until_room()
            self._stalled = None
            self._handle(operation)
        return None

    def _await_more(self) -> None:
        size = self._parser.announced_bytes
        if not self._authorized and max(size, self._parser.buffered_bytes) > MAX_CONTROL_LINE_BYTES:
            return self._refuse("unauthenticated")
        if size >= RESERVE_FROM_BYTES and self._reserved is None:
            if not self._room.may_hold(size):
                return self._pause_until_room()
            self._room.hold(size)
            self._reserved = size
        self._blocked = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        return None

    def _hold(self, operation: Publish) -> bool:
        """Takes room for a complete message, unless it was reserved while the message was received."""
        if self._reserved is None:
            if not self._room.may_hold(len(operation.body)):
                return False
            self._reserved = len(operation.body)
            self._room.hold(self._reserved)
        return True

    def _release_reserved(self) -> None:
        if self._reserved is not None:
            reserved, self._reserved = self._reserved, None
            self._room.release(reserved)

    def _pause(self) -> None:
        self._blocked = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _pause_until_room(self) -> None:
        self._pause()
        self._room.wait(self._proceed)

    # Operations

    def _handle(self, operation: Operation) -> None:
        match operation:
            case Connect() if not self._authorized:
                self._connect(operation.options)
            case _ if not self._authorized:
                self._release_reserved()
                self._refuse("unauthenticated", operation.reason if isinstance(operation, Violation) else _UNAUTHORIZED)
            case Violation():
                self.cut(operation.reason)
            case Publish():
                held, self._reserved = self._reserved, None
                self._publish(operation, held or 0)
            case Subscribe():
                self._subscribe(operation)
            case Unsubscribe():
                self._unsubscribe(operation)
            case Ping():
                self._out.write(b"PONG\r\n")
            case Pong():
                pass
            case Connect():
                self.cut("Unknown Protocol Operation")

    def _connect(self, options: dict[str, Any]) -> None:
        offered = [options.get(field) for field in ("auth_token", "pass", "user")]
        tokens = [token for token in offered if isinstance(token, str) and token and token.isascii()]
        if not any(self._session.check(token) for token in tokens):
            return self._refuse("token_invalid" if tokens else "unauthenticated")
        self._authorized = True
        self._out.verbose = options.get("verbose") is True
        self._out.acknowledge()
        if self._timer is not None:
            self._timer.cancel()
        return None

    def _subscribe(self, operation: Subscribe) -> None:
        if not operation.subject.startswith(jetstream.INBOX):
            return self._deny("SUB", "Subscription to", operation.subject)
        if len(self._out.subscriptions) >= MAX_SUBSCRIPTIONS:
            self._session.denied("SUB", "rate_limited", _text(operation.subject))
            return self.cut("maximum subscriptions exceeded")
        self._out.subscriptions[operation.subscription_id] = Subscription(operation.subject.split(b"."))
        self._out.acknowledge()
        waiting, self._undelivered = self._undelivered, []
        for consumer in waiting:
            self._push(consumer)
        return None

    def _unsubscribe(self, operation: Unsubscribe) -> None:
        subscription = self._out.subscriptions.get(operation.subscription_id)
        if subscription is not None:
            subscription.after = operation.after
            if operation.after <= subscription.delivered:
                del self._out.subscriptions[operation.subscription_id]
        self._out.acknowledge()

    def _publish(self, operation: Publish, held: int) -> None:
        subject, reply = operation.subject, operation.reply
        kind = self._kinds.get(subject)
        if kind is not None and (not reply or reply.startswith(jetstream.INBOX)):
            self._out.acknowledge()
            return self._start(self._store(kind, operation, held))
        self._room.release(held)
        if reply and not reply.startswith(jetstream.INBOX):
            return self._deny("PUB", "Publish with Reply of", reply)
        if subject.startswith(jetstream.ACKNOWLEDGE):
            self._out.acknowledge()
            return self._input_acknowledged(subject, operation.body, reply)
        if subject.startswith(jetstream.API):
            self._out.acknowledge()
            return self._call(subject, operation.body, reply)
        self._deny("PUB", "Publish to", subject)
        return self._out.answer(reply, jetstream.refused(f"publish to {_text(subject)}").document)

    async def _store(self, kind: MessageKind, operation: Publish, held: int) -> None:
        try:
            sequence, is_repeated = await self._publish_once(kind, operation)
            document: dict[str, Any] = {"stream": _STREAMS[kind][1], "seq": sequence}
            if is_repeated:
                document["duplicate"] = True
        except FlowError as error:
            _log.info("message of a container refused", extra=self._fields(kind=kind, reason=error.message))
            document = jetstream.error_document(error.http_status, 10077, error.message)
        finally:
            self._room.release(held)
        self._out.answer(operation.reply, document)

    async def _publish_once(self, kind: MessageKind, operation: Publish) -> tuple[int, bool]:
        """Publishes, unless this session has already stored a message of that id. Clients repeat what timed out."""
        if not operation.message_id:
            return await self._session.publish(kind, operation.body), False
        published, key = self._room.published, (kind, operation.message_id)
        while (earlier := published.get(key)) is not None:
            sequence = await asyncio.shield(earlier)
            if sequence is not None:
                return sequence, True
        if len(published) >= MAX_MESSAGE_IDS:
            del published[next(iter(published))]
        outcome: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        published[key] = outcome
        sequence = None
        try:
            sequence = await self._session.publish(kind, operation.body)
            return sequence, False
        finally:
            if sequence is None:
                published.pop(key, None)
            outcome.set_result(sequence)

    def _call(self, subject: bytes, body: bytes, reply: bytes) -> None:
        outcome = self._stream.call(_text(subject[len(jetstream.API) :]), body)
        match outcome:
            case jetstream.Answer():
                if outcome.refused:
                    self._session.denied("PUB", "forbidden", outcome.refused)
                self._out.answer(reply, outcome.document)
            case jetstream.Deliver():
                self._out.answer(reply, outcome.document)
                self._push(outcome.consumer)
            case jetstream.Pull():
                self._start(self._pull(outcome, reply))
            case jetstream.DirectGet():
                self._start(self._direct_get(reply))

    # Input

    def _push(self, consumer: jetstream.Consumer) -> None:
        if consumer.delivered or self._stream.consumers.get(consumer.name) is not consumer:
            return
        if self._out.subscription_for(consumer.deliver) is None:
            # Clients subscribe after they have made the consumer.
            self._undelivered = [known for known in self._undelivered if known.name != consumer.name]
            self._undelivered.append(consumer)
            return
        consumer.delivered = True
        self._start(self._deliver(consumer, consumer.deliver))

    async def _pull(self, pull: jetstream.Pull, reply: bytes) -> None:
        if not pull.consumer.delivered:
            pull.consumer.delivered = True
            await self._deliver(pull.consumer, reply)
            if pull.batch <= 1:
                return
        if pull.expires <= 0 or len(self._pulls) >= MAX_PULLS:
            self._out.send(reply, b"", status=b"404 No Messages")
        elif not self._cut:
            handle = asyncio.get_running_loop().call_later(pull.expires, lambda: self._pull_expired(handle, reply))
            self._pulls.add(handle)

    def _pull_expired(self, handle: asyncio.TimerHandle, reply: bytes) -> None:
        self._pulls.discard(handle)
        self._out.send(reply, b"", status=b"408 Request Timeout")

    def _input_acknowledged(self, subject: bytes, body: bytes, reply: bytes) -> None:
        if reply:
            self._out.send(reply, b"")
        consumer = self._stream.acknowledged(subject, body)
        if consumer is not None and consumer.deliver:
            self._push(consumer)

    async def _deliver(self, consumer: jetstream.Consumer, to: bytes) -> None:
        acknowledgement = self._stream.acknowledgement_subject(consumer, self._nanoseconds())
        await self._send_input(to, named=self._input_subject, reply=acknowledgement)

    async def _direct_get(self, to: bytes) -> None:
        headers = b"\r\nNats-Stream: %b\r\nNats-Subject: %b\r\nNats-Sequence: 1\r\nNats-Time-Stamp: %b" % (
            subjects.STREAM_INPUT.encode(),
            self._input_subject,
            self._clock.now().isoformat().replace("+00:00", "Z").encode(),
        )
        await self._send_input(to, named=to, status=headers)

    async def _send_input(self, to: bytes, *, named: bytes, reply: bytes = b"", status: bytes = b"") -> None:
        # One at a time, and only when the container has read the one before: inputs are large.
        async with self._delivering:
            await self._writable.wait()
            if self._cut:
                return
            try:
                body = await self._session.input()
            except FlowError as error:
                _log.warning("input of a container is not there", extra=self._fields(reason=error.message))
                self._out.send(to, b"", status=b" 404 Message Not Found")
                return
            self._out.send(to, body, named=named, reply=reply, status=status)

    def _refuse(self, code: DenialCode, reason: str = _UNAUTHORIZED) -> None:
        """Ends a connection that has not shown who it is."""
        if not self._cut:
            self._session.denied("CONNECT", code)
        self.cut(reason)

    def _deny(self, tried: Tried, what: str, subject: bytes) -> None:
        self._session.denied(tried, "forbidden", _text(subject))
        self._out.error(b'Permissions Violation for %b "%b"' % (what.encode(), subject))

    def _set_timer(self, delay: float, action: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, action)

    def _nanoseconds(self) -> int:
        return int(self._clock.now().timestamp() * 1e9)

    def _fields(self, **more: str) -> dict[str, str]:
        return {"execution_id": self._session.execution_id, **more}


def _text(subject: bytes) -> str:
    return subject.decode("ascii", "replace")

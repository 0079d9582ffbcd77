"""A durable pull consumer that adds no latency to a single message and hands over batches under load.

Pull requests are kept outstanding at the server, so a message is on its way to us the moment it is stored; what
arrives while the handler works becomes the next batch. The server says every few seconds that a request is still
alive. When it falls silent (restarted, the stream or the consumer deleted, a request lost on the way) everything is
set up anew: the stream, the consumer, the subscription.

Acknowledgements are explicit and not waited for: the database is the record, so a lost one costs a redelivery that
changes nothing. (One acknowledgement for all earlier messages would be cheaper, but several engines may share the
consumer, and one would acknowledge what another has not committed.)
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from flow_platform.bus.nats_client import subscribe
from flow_platform.bus.streams import SECOND, Api
from flow_platform.domain.errors import BusUnavailable

_log = logging.getLogger(__name__)

PULL_EXPIRES: Final = 30.0  # seconds a pull request stays at the server.
HEARTBEAT: Final = 2.0  # seconds between the server's signs of life on an idle request.
SILENT_AFTER: Final = 2.5 * HEARTBEAT  # seconds without any sign, after which everything is set up anew.
# A message that is not acknowledged comes again. An engine that was killed holds up what it had taken for that long.
ACK_WAIT: Final = 10.0  # seconds
MAX_UNACKNOWLEDGED: Final = 10_000
# A pull answers with at most that much, so a backlog of large messages does not fill the memory.
MAX_PULL_BYTES: Final = 16 << 20
FAILED_HANDLER_DELAYS: Final = (0.5, 1.0, 2.0, 5.0, 10.0)  # seconds until redelivery, by number of failures in a row.
SETUP_DELAYS: Final = (0.05, 0.1, 0.25, 0.5, 1.0)  # seconds between two attempts to set up.

_INFORMATION_STATUS: Final = "100"  # An idle heartbeat.
# 404 no messages, 408 the request expired, 409 the request ended: batch or bytes reached, or consumer gone.
_REQUEST_ENDED: Final = ("404", "408", "409")
_CONSUMER_GONE: Final = (
    "consumer deleted",
    "stream deleted",
    "server shutdown",
    "leadership change",
    "consumer is push",
)


@dataclass(frozen=True, slots=True)
class Message:
    """One message, as a consumer or a subscriber sees it.

    Attributes:
        delivered: How often JetStream has delivered it, 1 at first; 0 for a message outside JetStream.
        sequence: Its number in the stream; 0 outside JetStream.
    """

    subject: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    delivered: int = 0
    sequence: int = 0


Handler = Callable[[list[Message]], Awaitable[None]]


class _Reset(Exception):
    pass


class PullConsumer:
    """Runs one durable consumer for as long as `run` is not cancelled.

    Args:
        ensure_stream: Makes the stream exist.
    """

    def __init__(
        self,
        api: Api,
        ensure_stream: Callable[[str], Awaitable[None]],
        stream: str,
        durable: str,
        handler: Handler,
        batch: int,
    ) -> None:
        self._api = api
        self._ensure_stream = ensure_stream
        self._stream = stream
        self._durable = durable
        self._handler = handler
        self._batch = batch
        self._buffer: deque[Msg] = deque()
        self._wake = asyncio.Event()
        self._outstanding = 0
        self._heard_at = 0.0
        self._reset_reason = ""
        self._one_by_one = 0
        self._failures = 0
        self._can_reset = True

    def connection_lost(self) -> None:
        """The server forgets the requests of a closed connection: start again."""
        self._request_reset("the connection was lost")

    async def run(self, client: Callable[[], Awaitable[Client]]) -> None:
        """Consumes until cancelled. `client` waits for a connected client."""
        attempt = 0
        while True:
            connected = await client()
            try:
                await self._set_up()
                attempt = 0
                await self._consume(connected)
            except (_Reset, BusUnavailable, nats.errors.Error) as reason:
                _log.info(
                    "consumer starts again",
                    extra={"stream": self._stream, "durable": self._durable, "reason": str(reason)},
                )
            await asyncio.sleep(SETUP_DELAYS[min(attempt, len(SETUP_DELAYS) - 1)])
            attempt += 1

    async def _set_up(self) -> None:
        await self._ensure_stream(self._stream)
        config = {
            "durable_name": self._durable,
            "name": self._durable,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": int(ACK_WAIT * SECOND),
            "max_deliver": -1,
            "max_ack_pending": MAX_UNACKNOWLEDGED,
            "max_waiting": 512,
        }
        answer = await self._api(
            f"CONSUMER.CREATE.{self._stream}.{self._durable}", {"stream_name": self._stream, "config": config}
        )
        if error := answer.get("error"):
            raise BusUnavailable(f"JetStream refuses the consumer {self._durable!r}: {error!r}")
        # What was on its way when a connection broke or an engine was killed comes again now, and in order, instead of
        # after ACK_WAIT. Servers before 2.14 do not know the request.
        if self._can_reset:
            try:
                await self._api(f"CONSUMER.RESET.{self._stream}.{self._durable}", {})
            except BusUnavailable:
                self._can_reset = False

    async def _consume(self, client: Client) -> None:
        self._buffer.clear()
        self._wake.clear()
        self._outstanding = 0
        self._reset_reason = ""
        self._heard_at = asyncio.get_running_loop().time()
        inbox = client.new_inbox()
        subscription = await subscribe(client, inbox, self._received)
        try:
            while True:
                await self._pull(client, inbox)
                await self._wait_for_messages()
                await self._hand_over(client)
        finally:
            try:
                await self._give_back(client, 0.0)
                await subscription.unsubscribe()
            except nats.errors.Error as error:
                _log.debug("consumer left without saying so", extra={"reason": repr(error)})

    async def _pull(self, client: Client, inbox: str) -> None:
        # Ask again when half is used up: the next request is there before the last one is empty.
        if self._outstanding + len(self._buffer) > self._batch // 2:
            return
        request = {
            "batch": self._batch,
            "max_bytes": MAX_PULL_BYTES,
            "expires": int(PULL_EXPIRES * SECOND),
            "idle_heartbeat": int(HEARTBEAT * SECOND),
        }
        self._outstanding += self._batch
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._durable}"
        await client.publish(subject, json.dumps(request).encode(), reply=inbox)

    async def _wait_for_messages(self) -> None:
        """Returns when there is a message or a request has ended.

        Raises:
            _Reset: The server fell silent, or said that consumer or request are gone.
        """
        loop = asyncio.get_running_loop()
        while not self._buffer:
            if self._reset_reason:
                raise _Reset(self._reset_reason)
            if self._outstanding <= self._batch // 2:
                return
            self._wake.clear()
            try:
                async with asyncio.timeout_at(self._heard_at + SILENT_AFTER):
                    await self._wake.wait()
            except TimeoutError:
                if loop.time() >= self._heard_at + SILENT_AFTER:
                    raise _Reset("the server fell silent") from None

    async def _hand_over(self, client: Client) -> None:
        if not self._buffer:
            return
        size = 1 if self._one_by_one else min(self._batch, len(self._buffer))
        taken = [self._buffer.popleft() for _ in range(size)]
        self._one_by_one = max(0, self._one_by_one - 1)
        try:
            await self._handler([message_of(each) for each in taken])
        except asyncio.CancelledError:
            self._buffer.extendleft(reversed(taken))
            raise
        except Exception:  # noqa: BLE001 - the process loop of every recorder: one bad batch must not end it.
            _log.exception("handler failed", extra={"stream": self._stream, "durable": self._durable, "size": size})
            self._one_by_one = 2 * self._batch
            await self._postpone(client, taken)
            return
        self._failures = 0
        for each in taken:
            await client.publish(each.reply)

    async def _postpone(self, client: Client, failed: list[Msg]) -> None:
        """Has failed messages delivered again after a while; a message that fails alone holds up no other."""
        if len(failed) == 1:
            delivered = message_of(failed[0]).delivered
            delay = FAILED_HANDLER_DELAYS[min(max(delivered, 1), len(FAILED_HANDLER_DELAYS)) - 1]
            await client.publish(failed[0].reply, _negative(delay))
            return
        # What came later goes back, too, so that it keeps its place in the order. Then one by one: if a single
        # message is the cause, it fails alone from now on.
        delay = FAILED_HANDLER_DELAYS[min(self._failures, len(FAILED_HANDLER_DELAYS) - 1)]
        self._failures += 1
        self._buffer.extendleft(reversed(failed))
        await self._give_back(client, delay)
        await asyncio.sleep(delay)
        raise _Reset("the handler failed")

    async def _give_back(self, client: Client, delay: float) -> None:
        while self._buffer:
            await client.publish(self._buffer.popleft().reply, _negative(delay))

    async def _received(self, message: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        status = message.headers.get("Status") if message.headers and not message.data else None
        if status is None or message.reply.startswith("$JS.ACK."):
            self._outstanding -= 1
            self._buffer.append(message)
        elif status == _INFORMATION_STATUS:
            return
        elif status in _REQUEST_ENDED:
            self._request_ended(message.headers or {})
        else:
            self._request_reset(f"the server answers {status!r}")
        self._wake.set()

    def _request_ended(self, headers: Mapping[str, str]) -> None:
        description = headers.get("Description", "").lower()
        if any(sign in description for sign in _CONSUMER_GONE):
            self._request_reset(description)
            return
        self._outstanding = max(0, self._outstanding - int(headers.get("Nats-Pending-Messages") or self._batch))

    def _request_reset(self, reason: str) -> None:
        self._reset_reason = reason
        self._wake.set()


def _negative(delay: float) -> bytes:
    """The negative acknowledgement: deliver again after `delay` seconds."""
    return b"-NAK " + json.dumps({"delay": int(delay * SECOND)}).encode() if delay else b"-NAK"


def message_of(message: Msg) -> Message:
    """Translates nats-py's message. The position of an acknowledged message is in its reply subject."""
    headers: dict[str, str] = message.headers or {}
    parts = message.reply.split(".") if message.reply.startswith("$JS.ACK.") else []
    # `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>...`; servers in a domain put domain and account before.
    at = {9: 4}.get(len(parts), 6) if parts else 0
    if not parts:
        return Message(message.subject, message.data, headers)
    return Message(message.subject, message.data, headers, delivered=int(parts[at]), sequence=int(parts[at + 1]))


def decode_answer(data: bytes) -> dict[str, Any]:
    """Decodes an answer of the JetStream API."""
    try:
        document = json.loads(data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise BusUnavailable(f"JetStream answers {data[:100]!r}, expected a JSON object")
    return document  # pyright: ignore[reportUnknownVariableType]

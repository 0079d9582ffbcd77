"""Many publishes at once become one atomic batch: four syncs of the disk instead of one for each message.

Alone, or among a few, a message is sent at once and gains nothing from waiting. When more are in flight they queue
behind the batch that is being stored, and are the next batch. A batch is stored as a whole or not at all, so everybody
gets a true answer; whatever goes wrong with it (a repeated message id among them, a lost connection), its messages
are published one by one instead, under the same ids, which JetStream recognizes if the batch had been stored after all.

Source: JetStream ADR-50. Measured on a busy disk with 256 in flight: 63 ms instead of 1,040 ms.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flow_platform.bus.publisher import Publisher, Retry
from flow_platform.domain.errors import PayloadTooLarge
from flow_sdk.wire import subjects

_log = logging.getLogger(__name__)

ALONE: Final = 8  # So many publishes of a stream go each for itself; a batch of fewer costs more syncs than it saves.
MAX_BATCH: Final = 512  # JetStream allows 1,000.
MAX_BATCH_BYTES: Final = 4 << 20
MAX_MESSAGE_BYTES: Final = 64 << 10  # For larger ones the sync is not what costs.
BATCH_TIMEOUT: Final = 2.0  # seconds; a stream that is deleted meanwhile never answers.
DISABLED_SECONDS: Final = 60.0  # After a server refused batches as such.


@dataclass(slots=True)
class _Waiting:
    subject: str
    body: bytes
    headers: dict[str, str]
    stored: asyncio.Future[int | None]

    def settle(self, sequence: int | None) -> None:
        """Tells the sequence number, or None: it is to be published alone."""
        if not self.stored.done():
            self.stored.set_result(sequence)


class _Lane:
    """The publishes of one stream."""

    def __init__(self, publisher: Publisher, prefix: str) -> None:
        self._publisher = publisher
        self._batch_prefix = f"{secrets.token_hex(8)}{prefix}"
        self._batch_ids = itertools.count()
        self._queue: deque[_Waiting] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._disabled_until = 0.0
        self.alone = 0

    def groups(self, body: bytes) -> bool:
        """Whether a message with this body joins the queue."""
        if len(body) > MAX_MESSAGE_BYTES or asyncio.get_running_loop().time() < self._disabled_until:
            return False
        return self._sender is not None or self.alone >= ALONE

    async def store(self, subject: str, body: bytes, headers: dict[str, str]) -> int | None:
        stored: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(subject, body, headers, stored))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all())
        return await stored

    async def _send_all(self) -> None:
        try:
            while self._queue:
                batch = self._next_batch()
                last = None
                try:
                    if len(batch) >= ALONE:
                        last = await self._send(batch)
                finally:
                    for position, each in enumerate(batch, 1):
                        each.settle(None if last is None else last - len(batch) + position)
        finally:
            self._sender = None
            for each in self._queue:
                each.settle(None)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._queue and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
            each = self._queue.popleft()
            # Who waits no longer need not be stored.
            if not each.stored.done():
                batch.append(each)
                size += len(each.body)
        return batch

    async def _send(self, batch: list[_Waiting]) -> int | None:
        """Returns the sequence number of the last message, or None when nothing is known to be stored."""
        loop = asyncio.get_running_loop()
        batch_id = f"{self._batch_prefix}{next(self._batch_ids)}"
        try:
            for number, each in enumerate(batch, 1):
                each.headers |= {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(number)}
                if number < len(batch):
                    await self._publisher.send(each.subject, each.body, each.headers)
            last = batch[-1]
            headers = {**last.headers, "Nats-Batch-Commit": "1"}
            return await self._publisher.attempt(last.subject, last.body, headers, loop.time() + BATCH_TIMEOUT)
        except (Retry, PayloadTooLarge) as error:
            if isinstance(error, Retry) and error.no_batches:
                self._disabled_until = loop.time() + DISABLED_SECONDS
            _log.info("batch not stored, going on one by one", extra={"size": len(batch), "reason": str(error)})
            return None


class GroupCommit:
    """Publishes, in groups where that pays."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._lanes = {
            prefix: _Lane(publisher, prefix.rpartition(".")[2])
            for prefix in (subjects.EXEC_OUTPUT, subjects.EXEC_EVENTS)
        }

    async def publish(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str] | None,
        message_id: str | None,
        timeout: float,  # noqa: ASYNC109 - bounds the retries.
    ) -> int:
        """As `Publisher.publish`."""
        identified = self._publisher.identified(headers, message_id)
        lane = self._lanes.get(subject.rpartition(".")[0])
        if lane is None:
            return await self._publisher.publish(subject, body, identified, timeout)
        if lane.groups(body):
            loop = asyncio.get_running_loop()
            deadline = loop.time() + timeout
            sequence = await lane.store(subject, body, dict(identified))
            if sequence is not None:
                return sequence
            timeout = max(0.0, deadline - loop.time())
        lane.alone += 1
        try:
            return await self._publisher.publish(subject, body, identified, timeout)
        finally:
            lane.alone -= 1

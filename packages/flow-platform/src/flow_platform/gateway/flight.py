"""One call on its way: who started it, or asks for the same meanwhile, follows what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

Json = dict[str, Any]


class Flight:
    """The chunks that came so far, and in the end the answer or an error. Any number of readers, on one loop.

    Attributes:
        answer: The whole answer; set last.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Json] = loop.create_future()
        self.answer.add_done_callback(_look_at)
        self._chunks: list[Json] = []
        self._changed = asyncio.Event()

    @property
    def has_chunks(self) -> bool:
        return bool(self._chunks)

    def push(self, chunk: Json) -> None:
        self._chunks.append(chunk)
        self._wake()

    def finish(self, answer: Json) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)
        self._wake()

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
        self._wake()

    async def begun(self) -> bool:
        """Returns, True, when there is a chunk, or an answer.

        Raises:
            FlowError: It failed before.
        """
        while not self._chunks and not self.answer.done():
            await self._changed.wait()
        if not self._chunks:
            self.answer.result()
        return True

    async def ended(self) -> bool:
        """The same when there is an answer."""
        await asyncio.shield(self.answer)  # Whoever stops waiting does not end it for others.
        return True

    async def chunks(self) -> AsyncGenerator[Json]:
        """All chunks from the first, until the call has ended; then `answer` says how."""
        position = 0
        while True:
            changed = self._changed
            while position < len(self._chunks):
                position += 1
                yield self._chunks[position - 1]
            if self.answer.done():
                return
            await changed.wait()

    def _wake(self) -> None:
        """Everybody who waits looks again; who looks later waits for the next change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _look_at(answer: asyncio.Future[Json]) -> None:
    """An error that nobody is there to hear is no fault of this program."""
    if not answer.cancelled():
        answer.exception()

"""Answers a workflow that runs again with what the platform gave it ahead, without asking for each call.

The calls of an attempt are numbered here, in the order in which the code makes them. While the platform has ended calls
of earlier attempts, one request at a time asks for the next of them; what is called meanwhile waits for that answer, as
it is likely in it. All of it is an optimization: what is not here is asked for as always. See `wire.replay`.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from flow_sdk.wire.replay import Told, call_key, numbers_in, ranges_of

Json = dict[str, Any]
Send = Callable[[str], Awaitable[Json]]
"""Sends the request with what the header says, and returns its answer."""

CHECKPOINT: Final = "checkpoint"
MAX_HELD: Final = 1_000
"""Answers that the code has not asked for. One that does something else now will not ask for more of them either."""

_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(eq=False)
class _Call:
    """Attributes:
    kind: Of a component, or `CHECKPOINT`.
    named: Its id or slug, as the code says it; empty for a checkpoint.
    content: See `wire.replay.content_of`; of a checkpoint its key.
    occurrence: How many equal ones the code made before.
    """

    kind: str
    named: str
    content: str
    occurrence: int = 0
    key: str | None = None


class Ahead:
    """Of one attempt, and of the event loop that its code runs on.

    Args:
        is_expected: Whether earlier attempts made calls. None: only if the platform answers one of them as ended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, is_expected: bool | None) -> None:
        self._loop = loop
        self._pid = os.getpid()
        self._is_expected = is_expected
        self._is_asking = False  # A request is on its way that asks for more.
        self._waits = False  # And others wait for its answer.
        self._after = 0
        self._held: dict[tuple[str, int], Json] = {}
        self._made: set[int] = set()  # Ordinals that the platform does not know of yet.
        self._ids: dict[tuple[str, str], str] = {}
        self._counts: dict[tuple[str, str], Counter[str]] = {}
        self._waiting: list[tuple[_Call, asyncio.Future[Json | None]]] = []

    @property
    def is_here(self) -> bool:
        """Whether the code that runs now is the attempt's own: not another thread's, nor a child process."""
        try:
            return asyncio.get_running_loop() is self._loop and os.getpid() == self._pid
        except RuntimeError:
            return False

    async def answer(
        self,
        kind: str,
        named: str,
        content: str,
        send: Send,
        given: Callable[[Json], Json],
        *,
        occurrence: int | None = None,
        is_quick: bool = True,
    ) -> Json:
        """The answer to a call.

        Args:
            kind, named, content: What is called with what.
            send: Asks the platform.
            given: Makes the answer of what was given ahead: the document of an execution or a checkpoint.
            occurrence: Where the caller counts.
            is_quick: The platform answers at once, whatever is called.
        """
        call = self._numbered(_Call(kind, named, content), occurrence)
        while (held := self._take(call)) is None and self._is_asking and self._waits:
            if (held := await self._turn(call)) is not None:
                break
        if held is not None:
            return given(held)
        return await self._send(call, send, is_quick=is_quick)

    async def settle(self, tell: Callable[[str], Awaitable[object]]) -> None:
        """Tells the platform which of the calls that it gave the code made, and that it makes no others for now."""
        while self._held or self._made:
            made = ranges_of(self._made)
            told = set(numbers_in(made))
            is_over = told == self._made
            if is_over:  # Now, not behind the request: the code may go on meanwhile.
                self._held.clear()
                self._after = 0
            await tell(str(Told(made=made, is_over=is_over)))
            self._made -= told

    def _numbered(self, call: _Call, occurrence: int | None) -> _Call:
        if occurrence is not None:
            call.occurrence = occurrence
            return call
        counts = self._counts.setdefault((call.kind, self._component_of(call)), Counter())
        digest = call_key("", "", call.content)
        call.occurrence = counts[digest]
        counts[digest] += 1
        return call

    def _component_of(self, call: _Call) -> str:
        return self._ids.get((call.kind, call.named), call.named)

    def _take(self, call: _Call) -> Json | None:
        found = self._held.pop((key, call.occurrence), None) if self._held and (key := self._key_of(call)) else None
        if found is None:
            return None
        self._made.add(found["ordinal"])
        return cast("Json", found.get("execution") or found.get("checkpoint"))

    def _key_of(self, call: _Call) -> str | None:
        """The platform's key of a call, as soon as it is known which component is meant."""
        if call.key is None:
            if call.kind == CHECKPOINT:
                call.key = call.content
            elif (component_id := self._ids.get((call.kind, call.named))) is not None:
                call.key = call_key(call.kind, component_id, call.content)
        return call.key

    async def _turn(self, call: _Call) -> Json | None:
        """What the request brings that is on its way; None: it brought nothing for this call."""
        turn: asyncio.Future[Json | None] = self._loop.create_future()
        self._waiting.append((call, turn))
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result() is None:
                self._let_go_on()  # The next one shall not wait for nobody.
            raise

    async def _send(self, call: _Call, send: Send, *, is_quick: bool) -> Json:
        asks = self._is_expected is True and not self._is_asking and len(self._held) < MAX_HELD
        made = ranges_of(self._made)
        told = Told(occurrence=call.occurrence, after=self._after if asks else None, made=made)
        if asks:
            self._is_asking, self._waits = True, is_quick
        try:
            answer = await send(str(told))
            self._made.difference_update(numbers_in(made))
            self._learn(call, answer)
            if asks:
                self._adopt(answer.pop("ahead", None))
            if (key := self._key_of(call)) is not None:
                self._held.pop((key, call.occurrence), None)
        finally:
            self._is_asking = self._is_asking and not asks
            if not self._is_asking:
                self._let_go_on()
        return answer

    def _let_go_on(self) -> None:
        """Gives those that wait what came for them; of the others the first one asks for more."""
        waiting, self._waiting = self._waiting, []
        has_asked = False
        for call, turn in waiting:
            if turn.done():
                continue
            held = self._take(call)
            if held is None and has_asked and self._is_expected:
                self._waiting.append((call, turn))
                continue
            has_asked = has_asked or held is None
            turn.set_result(held)

    def _adopt(self, ahead: object) -> None:
        document = cast("Json", ahead) if isinstance(ahead, dict) else {}
        for given in cast("list[Json]", document.get("calls") or []):
            self._held[given["key"], given["occurrence"]] = given
            if (execution := given.get("execution")) is not None:
                self._learn_component(execution["component"])
        after = document.get("after")
        self._is_expected = after is not None and len(self._held) < MAX_HELD
        self._after = after or self._after

    def _learn_component(self, component: Json) -> None:
        kind, slug, component_id = component["kind"], component["slug"], component["id"]
        self._name(kind, component_id, component_id)
        if not _ID.fullmatch(slug):  # What looks like an id is looked for as one first: it could be another's.
            self._name(kind, slug, component_id)

    def _learn(self, call: _Call, answer: Json) -> None:
        """Takes from an answer which component was meant, and whether this was a call of an earlier attempt."""
        if call.kind == CHECKPOINT:
            if self._is_expected is None and answer.get("kind") == "step" and answer.get("status") != "open":
                self._is_expected = True
            return
        ended = answer.get("execution")
        if self._is_expected is None and ended is not None:
            self._is_expected = True
        document = cast("Json", ended) if isinstance(ended, dict) else answer
        component = document.get("component")
        if isinstance(component, dict):
            self._name(call.kind, call.named, cast("Json", component)["id"])

    def _name(self, kind: str, named: str, component_id: str) -> None:
        """Notes what a component is called; what was counted by its slug is counted by its id from now on."""
        if self._ids.get((kind, named)) == component_id:
            return
        self._ids[kind, named] = component_id
        counted = self._counts.pop((kind, named), None) if named != component_id else None
        if counted is not None:
            self._counts.setdefault((kind, component_id), Counter()).update(counted)

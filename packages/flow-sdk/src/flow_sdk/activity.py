"""What this process is doing with the platform at the moment: requests on their way, and what is only waited for.

The harness reads it to see that a workflow does nothing but wait, and then gives its container back
(`harness/idle.py`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from flow_sdk.ahead import Ahead

_OURS: Final[ContextVar[bool]] = ContextVar("flow_sdk_ours", default=False)
_WAITING: Final[ContextVar[bool]] = ContextVar("flow_sdk_waiting", default=False)


@dataclass(eq=False)
class Wait:
    """One thing that is waited for.

    Attributes:
        field: What the id is of.
        may_suspend: The wait ends by what the platform does, never by a clock of this process alone.
    """

    field: Literal["execution_id", "checkpoint_id"]
    id: str
    may_suspend: bool


class Activity:
    """Of one process.

    Attributes:
        requests: On their way, besides those that only wait.
        waits: What is waited for.
        changed_at: When one of these changed last, on the monotonic clock.
        on_wait: Called when the first wait begins.
        asking: Requests on their way whose answer may be the end of something that ended long ago.
        on_answer: Called when there are none of them any more.
        in_turn: Awaited before the code is given such an end, with the time of it; see `harness/order.py`.
        ahead: Numbers the calls of the code, and answers those that were given ahead.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.waits: set[Wait] = set()
        self.changed_at = 0.0
        self.on_wait: Callable[[], None] | None = None
        self.asking = 0
        self.on_answer: Callable[[], None] | None = None
        self.in_turn: Callable[[datetime], Awaitable[None]] | None = None
        self.ahead: Ahead | None = None

    @contextmanager
    def request(self) -> Generator[None]:
        """Around everything that the SDK does over the network."""
        if _WAITING.get():
            yield
            return
        token = _OURS.set(True)
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1
            self.changed_at = time.monotonic()
            _OURS.reset(token)

    @contextmanager
    def busy(self) -> Generator[None]:
        """Around what another library does over the network: as `request`, but it may end in another task."""
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1
            self.changed_at = time.monotonic()

    @contextmanager
    def ask(self) -> Generator[None]:
        """Around a call, or a request for a checkpoint, until it is answered."""
        self.asking += 1
        try:
            yield
        finally:
            self.asking -= 1
            if not self.asking and self.on_answer is not None:
                self.on_answer()

    async def turn(self, ended_at: object) -> None:
        """Until the code may see the end of something that had ended when it was asked for."""
        if self.in_turn is not None and isinstance(ended_at, str | datetime):
            await self.in_turn(datetime.fromisoformat(ended_at) if isinstance(ended_at, str) else ended_at)

    @contextmanager
    def wait(
        self, field: Literal["execution_id", "checkpoint_id"], waited_for: str, *, may_suspend: bool
    ) -> Generator[Wait]:
        """Around everything that only waits, with all requests in it."""
        wait = Wait(field, waited_for, may_suspend)
        ours, waiting = _OURS.set(True), _WAITING.set(True)
        self.waits.add(wait)
        self.changed_at = time.monotonic()
        if self.on_wait is not None and len(self.waits) == 1:
            self.on_wait()
        try:
            yield wait
        finally:
            self.waits.discard(wait)
            self.changed_at = time.monotonic()
            _WAITING.reset(waiting)
            _OURS.reset(ours)


def is_ours() -> bool:
    """Whether the code that runs now is the SDK's, on behalf of a request or a wait."""
    return _OURS.get()


CURRENT: Final = Activity()

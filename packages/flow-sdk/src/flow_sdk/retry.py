"""When a request is repeated, and how long to pause before.

Repeated is what may go better: no answer, and the statuses with which servers say "later". Never another 4xx, and
never 500, which says that this request broke the server. Source: RFC 9110, sections 9.2.2 and 10.2.3 (`Retry-After`).
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

RETRYABLE_STATUSES: Final = frozenset({408, 425, 429, 502, 503, 504})

_NEVER: Final = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)
"""Transport errors that the request itself causes."""

JITTER: Final = 0.5
"""Up to this share is added to each pause, so that clients that failed together do not come back together."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a call is repeated.

    Attributes:
        retries: Repeats after the first attempt.
        first_delay_seconds: The first pause; each next one is twice as long.
    """

    retries: int = 0
    first_delay_seconds: float = 0.25

    def pause(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait after the given attempt, counted from 0; at least what the server asked for."""
        back_off = self.first_delay_seconds * 2**attempt
        back_off += back_off * JITTER * random.random()  # noqa: S311, TID251 - spreads load; decides nothing.
        return max(back_off, retry_after or 0.0)


ONCE: Final = Retry()
SUBMIT: Final = Retry(retries=3, first_delay_seconds=0.25)
STATUS: Final = Retry(retries=3, first_delay_seconds=0.2)


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant on the monotonic clock that a caller will not wait beyond."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left; 0 when it has passed."""
        return max(0.0, self.at - time.monotonic())


def may_improve(error: httpx.HTTPError) -> bool:
    """Whether the same request can go better next time, after there was no answer."""
    return isinstance(error, httpx.TransportError) and not isinstance(error, _NEVER)


def parse_retry_after(value: str | None) -> float | None:
    """Seconds until a server takes the request again: a number or a date; None when it said nothing that is one."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, at.timestamp() - time.time())  # noqa: TID251 - the header is a date of the wall clock.

"""What the NATS gateway refused containers, on its way to the engine, which enters it into the audit log.

A container decides how often it is refused. So refusals are counted here, equal ones together, and told with the next
heartbeat: of an attempt each kind at most once a minute, of an organization so many kinds, and what is beyond that as
one number. Whatever containers do, a heartbeat stays small. What is not refused is never looked at.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from flow_platform.bus.sessions import DenialCode, Tried
from flow_platform.domain.inert import inert
from flow_sdk.wire.runner import Assignment, GatewayRefusal

logger = logging.getLogger(__name__)

EVERY_SECONDS: Final = 60.0  # Between two tellings of the same.
MAX_OF_ORGANIZATION: Final = 50  # Different ones, from their first until a minute after their last.
MAX_TOLD: Final = 200  # With one heartbeat, about 80 KB; the rest comes with the next.
MAX_SUBJECT: Final = 100

_STATUS: Final[Mapping[DenialCode, int]] = {
    "unauthenticated": 401,
    "token_invalid": 401,
    "token_revoked": 401,
    "forbidden": 403,
    "rate_limited": 429,
}

_Key = tuple[str, str, int, str, str]
"""Organization, execution, lease epoch, what was tried, code. Of what is not told apart only the first and the last."""


@dataclass
class _Gathered:
    execution_id: str  # Of the first, where they are not told apart: it says to the engine whose they are.
    lease_epoch: int
    attempt: int
    tried: str
    code: DenialCode
    subject: str
    is_others: bool
    count: int
    first_at: float
    told_at: float | None = None


class GatewayRefusals:
    """Those of one runner.

    Args:
        now: Seconds that only grow.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._gathered: dict[_Key, _Gathered] = {}
        self._kinds: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many kinds there are of which the engine has not heard all."""
        return sum(found.count > 0 for found in self._gathered.values())

    def note(self, assignment: Assignment, tried: Tried, code: DenialCode, subject: Callable[[], str]) -> None:
        """Counts one.

        Args:
            subject: What was tried with; asked for the first of its kind only.
        """
        org_id, execution_id, epoch = assignment.org_id, assignment.execution_id, assignment.lease_epoch
        key: _Key = (org_id, execution_id, epoch, tried, code)
        found = self._gathered.get(key)
        is_others = found is None and self._kinds[org_id] >= MAX_OF_ORGANIZATION
        if is_others:
            key = (org_id, "", 0, "", code)
            found = self._gathered.get(key)
        now = self._now()
        if found is not None:
            found.first_at = found.first_at if found.count else now
            found.count += 1
            return
        said = "" if is_others else inert(subject())[:MAX_SUBJECT]
        self._kinds[org_id] += 1
        self._gathered[key] = _Gathered(
            execution_id, epoch, assignment.attempt, tried, code, said, is_others, count=1, first_at=now
        )
        logger.info(
            "container refused", extra={"execution_id": execution_id, "tried": tried, "code": code, "subject": said}
        )

    def due(self, *, at_end: bool = False) -> dict[_Key, GatewayRefusal]:
        """What to tell now; `told` takes it back when the engine has it.

        Args:
            at_end: All that there is, as there is no later.
        """
        now = self._now()
        self._forget(now)
        due = ((key, found) for key, found in self._gathered.items() if found.count and (at_end or _is_due(found, now)))
        return {key: _record(found, now) for key, found in itertools.islice(due, MAX_TOLD)}

    def told(self, refusals: Mapping[_Key, GatewayRefusal]) -> None:
        """The engine has these. What came meanwhile is left for the next time."""
        now = self._now()
        for key, refusal in refusals.items():
            found = self._gathered[key]
            found.count -= refusal.count
            found.first_at = found.told_at = now

    def _forget(self, now: float) -> None:
        for key in [key for key, found in self._gathered.items() if not found.count and _is_due(found, now)]:
            del self._gathered[key]
            self._kinds[key[0]] -= 1
            if not self._kinds[key[0]]:
                del self._kinds[key[0]]


def _is_due(found: _Gathered, now: float) -> bool:
    return found.told_at is None or now - found.told_at >= EVERY_SECONDS


def _record(found: _Gathered, now: float) -> GatewayRefusal:
    return GatewayRefusal(
        execution_id=found.execution_id,
        lease_epoch=found.lease_epoch,
        attempt=found.attempt,
        tried=found.tried,
        status=_STATUS[found.code],
        code=found.code,
        subject=found.subject,
        count=found.count,
        seconds=round(now - found.first_at, 3),
        is_others=found.is_others,
    )

"""Refusals on their way into the audit log: equal ones are counted together, and floods cost neither time nor room.

Whoever is refused decides how often. So a refusal is noted in memory and written behind the request; equal ones of two
seconds are one entry, and of different ones each organization gets so many an hour. What is beyond that is one entry a
minute, which says how many there were. Strangers and known callers are counted apart: neither hides the other.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, Protocol

from flow_platform.domain import errors, rate_limit
from flow_platform.domain.clock import Clock
from flow_platform.domain.rate_limit import Bucket, RateLimit
from flow_platform.store.base import Store, Transaction

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 2.0
ENTRIES: Final = RateLimit(count=300, period=timedelta(hours=1), burst=100)
"""Of one organization, in each server: about 5 MB a day, if somebody does nothing but be refused."""

OTHERS: Final = "(others)"
OTHERS_EVERY: Final = timedelta(minutes=1)
MAX_BUCKETS: Final = 10_000


class Whence(Protocol):
    """Where a refusal comes from: a dataclass, whose fields an entry shows as they are."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


@dataclass(frozen=True)
class Refusal:
    """What makes refusals the same: they are one entry, with how many there were."""

    org_id: str
    subject: str
    role: str
    credential: str
    address: str
    action: str
    workspace_id: str | None
    status: int
    code: str

    @property
    def is_known(self) -> bool:
        return bool(self.credential)

    def as_others(self) -> Refusal:
        """The same as one of many that are not told apart."""
        return dataclasses.replace(
            self,
            subject=OTHERS,
            role="",
            credential=OTHERS if self.is_known else "",
            address="",
            action=OTHERS,
            workspace_id=None,
            code=OTHERS,
        )


@dataclass
class _Gathered:
    count: int
    first_at: datetime
    last_at: datetime
    origin: Whence | None
    target: Mapping[str, str]


class Refusals:
    """Those of all organizations, as one server gives them."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._gathered: dict[Refusal, _Gathered] = {}
        self._buckets: dict[tuple[str, bool], Bucket] = {}
        self._entering = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._gathered)

    def note(
        self,
        refusal: Refusal,
        origin: Whence,
        target: Mapping[str, str],
        *,
        count: int = 1,
        first_at: datetime | None = None,
    ) -> None:
        """Has a refusal entered, a moment later.

        Args:
            count: How many there were, since `first_at`, if they were counted elsewhere.
        """
        now = self._clock.now()
        found = self._gathered.get(refusal)
        if found is None and refusal.subject != OTHERS and not self._take(refusal, now):
            refusal = refusal.as_others()
            found = self._gathered.get(refusal)
        if found is None:
            is_many = refusal.subject == OTHERS
            self._gathered[refusal] = _Gathered(
                count, first_at or now, now, None if is_many else origin, {} if is_many else target
            )
            return
        found.count += count
        found.last_at = now

    async def run(self) -> None:
        """Enters what was gathered, until it is cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                async with self._entering:
                    await self._enter(self._due())
            except errors.StoreUnavailable as error:
                logger.warning("refusals were not entered yet: %s", error)

    async def flush(self) -> None:
        """Returns when all that was gathered until now is entered."""
        async with self._entering:
            await self._enter(dict(self._gathered))

    def _due(self) -> dict[Refusal, _Gathered]:
        latest = self._clock.now() - OTHERS_EVERY
        return {
            refusal: found
            for refusal, found in self._gathered.items()
            if refusal.subject != OTHERS or found.first_at <= latest
        }

    async def _enter(self, due: Mapping[Refusal, _Gathered]) -> None:
        if not due:
            return
        for refusal in due:
            del self._gathered[refusal]

        def operation(tx: Transaction) -> None:
            for refusal, found in due.items():
                tx.audit.append(refusal.org_id, _entry(refusal, found), found.last_at)

        try:
            await self._store.write(operation)
        except BaseException:  # Cancelled, too: `flush` at the end enters them.
            for refusal, found in due.items():
                self._put_back(refusal, found)
            raise

    def _put_back(self, refusal: Refusal, found: _Gathered) -> None:
        newer = self._gathered.get(refusal)
        if newer is not None:
            found.count += newer.count
            found.last_at = newer.last_at
        self._gathered[refusal] = found

    def _take(self, refusal: Refusal, now: datetime) -> bool:
        """Whether the organization has an entry left for it."""
        key = (refusal.org_id, refusal.is_known)
        bucket = self._buckets.pop(key, None) or rate_limit.full(ENTRIES, now)
        less = rate_limit.take(ENTRIES, bucket, now)
        self._buckets[key] = less or bucket
        if len(self._buckets) > MAX_BUCKETS:
            del self._buckets[next(iter(self._buckets))]
        return less is not None


def _entry(refusal: Refusal, found: _Gathered) -> dict[str, Any]:
    return {
        "kind": "refusal",
        "action": refusal.action,
        "subject": refusal.subject,
        "who": {"subject": refusal.subject, "role": refusal.role, "credential": refusal.credential},
        "from": dataclasses.asdict(found.origin) if found.origin else {},
        "workspace_id": refusal.workspace_id,
        "target": dict(found.target),
        "status": refusal.status,
        "code": refusal.code,
        "count": found.count,
        "first_at": found.first_at.isoformat(),
    }

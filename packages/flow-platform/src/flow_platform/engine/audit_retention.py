"""Takes old entries out of the audit log, when the operator said how long they are kept.

An entry says that it was done and up to which one, in the transaction that removes them. So a log that does not begin
with the first entry is whole when it says so itself; see `domain.audit.verify_log`.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.audit import RETENTION
from flow_platform.domain.clock import Clock
from flow_platform.store.base import Store, Transaction

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 3600.0
BATCH: Final = 2000  # Entries that one transaction removes.


class AuditRetention:
    """Of all organizations.

    Args:
        kept: For how long.
    """

    def __init__(self, store: Store, clock: Clock, kept: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._kept = kept

    async def run(self) -> None:
        """Removes what is old enough, now and then, until it is cancelled."""
        while True:
            try:
                await self.remove()
            except errors.StoreUnavailable as error:
                logger.warning("old entries of the audit log were not removed yet: %s", error)
            await asyncio.sleep(LOOK_SECONDS)

    async def remove(self) -> int:
        """Removes all that is old enough now; returns how many entries that were."""
        before = self._clock.now() - self._kept
        count = 0
        for org_id in await self._store.read(lambda tx: tx.audit.organizations()):
            while removed := await self._store.write(lambda tx, org_id=org_id: self._remove(tx, org_id, before)):
                count += removed
                logger.info("old entries of the audit log were removed", extra={"org_id": org_id, "count": removed})
        return count

    def _remove(self, tx: Transaction, org_id: str, before: datetime) -> int:
        oldest, last = tx.audit.removable(org_id, before, BATCH)
        if last is None:
            return 0
        content = {
            "kind": RETENTION,
            "action": RETENTION,
            "subject": "(platform)",
            "before": before.isoformat(),
            "removed": {"sequence": last.sequence, "hash": last.hash},
        }
        tx.audit.append(org_id, content, self._clock.now())
        tx.audit.remove_to(org_id, last.sequence)
        return last.sequence - oldest

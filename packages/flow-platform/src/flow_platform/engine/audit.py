"""The audit log: refusals gathered and entered, entries read, exported and checked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.domain.audit import AuditEntry
from flow_platform.domain.clock import Clock
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.engine.audited import Change, Origin, seen
from flow_platform.store.audit_table import AuditFilter
from flow_platform.store.base import Store, Transaction

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 2.0
MAX_GATHERED: Final = 50  # Different refusals between two flushes; what is more is counted together.
EXPORT_PAGE: Final = 500


@dataclass(frozen=True)
class Refusal:
    """What makes refusals the same: they are one entry, with how many there were."""

    org_id: str
    subject: str
    role: str
    address: str
    action: str
    workspace_id: str | None
    status: int
    code: str


@dataclass
class _Gathered:
    count: int
    first_at: datetime
    last_at: datetime
    origin: Origin
    target: Mapping[str, str]


class Audit:
    """The audit log of all organizations."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._gathered: dict[Refusal, _Gathered] = {}

    def refused(self, refusal: Refusal, origin: Origin, target: Mapping[str, str]) -> None:
        """Notes a refusal; it is entered with others a moment later. Costs nothing but memory, and little of that."""
        now = self._clock.now()
        if refusal not in self._gathered and len(self._gathered) >= MAX_GATHERED:
            refusal = Refusal(refusal.org_id, "(others)", "", "", "(several)", None, refusal.status, "(several)")
        found = self._gathered.get(refusal)
        if found is None:
            self._gathered[refusal] = _Gathered(1, now, now, origin, target)
        else:
            found.count += 1
            found.last_at = now

    async def run(self) -> None:
        """Enters what was gathered, until it is cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except errors.StoreUnavailable as error:
                logger.warning("refusals were not entered yet: %s", error)

    async def flush(self) -> None:
        """Enters all that was gathered until now."""
        if not self._gathered:
            return
        gathered, self._gathered = self._gathered, {}

        def operation(tx: Transaction) -> None:
            for refusal, found in gathered.items():
                tx.audit.append(refusal.org_id, _entry(refusal, found), found.last_at)

        try:
            await self._store.write(operation)
        except errors.StoreUnavailable:
            self._gathered = {**gathered, **self._gathered}
            raise

    async def enter(self, change: Change, after: Any) -> None:
        """Enters a change that is nothing in the database, as a token that was made, or that left all as it was."""
        if change.is_written:
            return
        change.is_written = True  # By this write, which needs no second entry.

        def operation(tx: Transaction) -> None:
            same = seen(change, tx)
            content = change.entry(same, same if change.look else after)
            tx.audit.append(change.org_id, content, change.now())

        await self._store.write(operation)

    async def page(
        self, principal: Principal, org_id: str, where: AuditFilter, before: int | None, limit: int
    ) -> tuple[list[AuditEntry], int | None]:
        """A page of entries, newest first, and where the next one begins. Who is of one workspace gets that one's.

        Raises:
            NotFound, Forbidden: As for everything that only admins may.
        """
        _require(principal, org_id, where.workspace_id)
        inside = where.workspace_id or principal.workspace_id
        narrowed = AuditFilter(where.kind, where.action, where.subject, inside, where.since, where.until)
        found = await self._store.read(lambda tx: tx.audit.page(org_id, narrowed, before, limit + 1))
        return found[:limit], found[limit - 1].sequence if len(found) > limit else None

    async def export(self, principal: Principal, org_id: str, after: int) -> AsyncGenerator[AuditEntry]:
        """All entries behind a sequence number, in their order, up to the newest at the start.

        Raises:
            Forbidden: Not an admin of the whole organization: a part of a chain proves nothing.
        """
        _require(principal, org_id, None)
        if principal.workspace_id is not None:
            raise errors.Forbidden("the token is for one workspace: expected one for the whole organization")
        last, _ = await self._store.read(lambda tx: tx.audit.head(org_id))
        position = after
        while position < last:
            start = position
            page = await self._store.read(lambda tx, start=start: tx.audit.after(org_id, start, EXPORT_PAGE))
            if not page:
                return
            for entry in page:
                yield entry
            position = page[-1].sequence


def _entry(refusal: Refusal, found: _Gathered) -> dict[str, Any]:
    return {
        "kind": "refusal",
        "action": refusal.action,
        "subject": refusal.subject,
        "who": {"subject": refusal.subject, "role": refusal.role},
        "from": {
            "address": refusal.address,
            "request_id": found.origin.request_id,
            "user_agent": found.origin.user_agent,
        },
        "workspace_id": refusal.workspace_id,
        "target": dict(found.target),
        "status": refusal.status,
        "code": refusal.code,
        "count": found.count,
        "first_at": found.first_at.isoformat(),
    }


def _require(principal: Principal, org_id: str, workspace_id: str | None) -> None:
    principal.require(Action.ADMINISTER, org_id, workspace_id)
    if principal.role is Role.EXECUTION:
        raise errors.Forbidden("an execution's token is not for this: expected a token of a user")

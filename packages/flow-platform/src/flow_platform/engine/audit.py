"""The audit log: what is not entered with a change itself; entries read and exported."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

from flow_platform.domain import errors
from flow_platform.domain.audit import AuditEntry
from flow_platform.domain.clock import Clock
from flow_platform.domain.principal import Action, Principal, Role
from flow_platform.engine.audited import Change, seen
from flow_platform.engine.refusals import Refusals
from flow_platform.store.audit_table import AuditFilter
from flow_platform.store.base import Store, Transaction

EXPORT_PAGE: Final = 500


class Audit:
    """The audit log of all organizations."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self.refusals = Refusals(store, clock)

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

    async def export(
        self, principal: Principal, org_id: str, after: int
    ) -> tuple[tuple[int, str], AsyncGenerator[AuditEntry]]:
        """Sequence and hash of the newest entry, and all up to it behind a sequence number, in their order.

        Raises:
            Forbidden: Not an admin of the whole organization: a part of a chain proves nothing.
        """
        _require(principal, org_id, None)
        if principal.workspace_id is not None:
            raise errors.Forbidden("the token is for one workspace: expected one for the whole organization")
        head = await self._store.read(lambda tx: tx.audit.head(org_id))
        return head, self._entries(org_id, after, head[0])

    async def _entries(self, org_id: str, after: int, last: int) -> AsyncGenerator[AuditEntry]:
        position = after
        while position < last:
            start, limit = position, min(EXPORT_PAGE, last - position)
            page = await self._store.read(lambda tx, start=start, limit=limit: tx.audit.after(org_id, start, limit))
            for entry in page:
                if entry.sequence > last:
                    return
                yield entry
            if not page:
                return
            position = page[-1].sequence


def _require(principal: Principal, org_id: str, workspace_id: str | None) -> None:
    principal.require(Action.ADMINISTER, org_id, workspace_id)
    if principal.role is Role.EXECUTION:
        raise errors.Forbidden("an execution's token is not for this: expected a token of a user")

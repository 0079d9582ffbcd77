"""What calls in other servers used, taken from the limits of this one.

Each server records its calls in the one database, and counts its own while they run. Before a call that a rate limits,
and at most once a second for each workspace, a server reads the newest records and takes what it did not count itself.
So all servers together keep a rate but for what the others use between two looks. A server that starts takes what was
used in the minute before. How many calls run at once is not in the records: that limit is each server's.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock
from flow_platform.domain.model_call import ModelCall
from flow_platform.gateway.limits import MINUTE, Limits
from flow_platform.gateway.providers import LimitRule
from flow_platform.store.base import Store
from flow_platform.store.model_table import ModelCallFilter

logger = logging.getLogger(__name__)

LOOK_EVERY: Final = timedelta(seconds=1)
MAX_READ: Final = 500  # Records at a time: more that others made within a second are not counted.
MAX_KNOWN: Final = 10 * MAX_READ  # Of one workspace; what is forgotten is far behind the newest records.
MAX_WORKSPACES: Final = 2_000  # The one that was idle longest is forgotten, and begins as after a start.


@dataclass
class _Seen:
    """Of one workspace: when it was looked at, and the calls that are counted here."""

    at: datetime | None = None
    calls: OrderedDict[str, None] = field(default_factory=OrderedDict[str, None])

    def add(self, call_id: str) -> None:
        self.calls[call_id] = None
        if len(self.calls) > MAX_KNOWN:
            self.calls.popitem(last=False)


class CallsElsewhere:
    """Of one process."""

    def __init__(self, store: Store, clock: Clock, limits: Limits) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits
        self._seen: OrderedDict[tuple[str, str], _Seen] = OrderedDict()

    async def look(self, org_id: str, workspace_id: str, call_id: str, rules: Sequence[LimitRule]) -> None:
        """Before a call of this server is counted. A look that fails changes nothing, and keeps nobody from calling."""
        if not any(rule.limit.requests_per_minute or rule.limit.tokens_per_minute for rule in rules):
            return
        seen = self._of(org_id, workspace_id)
        seen.add(call_id)
        now, last = self._clock.now(), seen.at
        if last is not None and now - last < LOOK_EVERY:
            return
        seen.at = now  # Before the read: calls of the same moment need no look of their own.
        try:
            page = await self._store.read(
                lambda tx: tx.models.list_calls(org_id, workspace_id, ModelCallFilter(), None, MAX_READ)
            )
        except errors.FlowError as error:
            logger.warning("model calls of other servers are not counted: %s", error.message)
            return
        since = now - MINUTE if last is None else None
        for call in page.items:
            self._take(call, seen, rules, since)

    def _take(self, call: ModelCall, seen: _Seen, rules: Sequence[LimitRule], since: datetime | None) -> None:
        if call.id in seen.calls:
            return
        seen.add(call.id)
        if since is None or call.created_at >= since:
            name = f"{call.provider}/{call.model}"
            self._limits.take(call.org_id, call.workspace_id, name, rules, call.usage.total)

    def _of(self, org_id: str, workspace_id: str) -> _Seen:
        key = org_id, workspace_id
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = _Seen()
            if len(self._seen) > MAX_WORKSPACES:
                self._seen.popitem(last=False)
        self._seen.move_to_end(key)
        return seen

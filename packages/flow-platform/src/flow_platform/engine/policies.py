"""Policies as the API offers them, and how every engine learns of a change."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime
from typing import Final

from flow_platform.domain import errors
from flow_platform.domain.clock import Clock
from flow_platform.domain.policy import Policy, check_policy
from flow_platform.domain.principal import Action, Principal
from flow_platform.engine.releases import check_workspace, find_component, require_not_execution
from flow_platform.engine.wakeups import WORK, Wakeups
from flow_platform.store.base import Store, Transaction
from flow_platform.store.policy_table import StoredPolicy

logger = logging.getLogger(__name__)

MAX_POLICIES: Final = 2_000  # Of one workspace; all are read when one was changed.
POLICIES: Final = "policies"
"""Wake-up key: policies were changed, in this engine or another one."""

LOOK_AGAIN_SECONDS: Final = 5.0  # The safety net under the wake-up.


class PolicyService:
    """Reads and edits policies."""

    def __init__(self, store: Store, clock: Clock, wakeups: Wakeups) -> None:
        self._store = store
        self._clock = clock
        self._wakeups = wakeups

    async def start(self) -> None:
        """Reads all, before the first execution is accepted."""
        await self._store.read(lambda tx: tx.policies.refresh())

    async def run(self) -> None:
        """Keeps up with other engines, until cancelled."""
        with self._wakeups.subscribe(POLICIES) as waiter:
            while True:
                await waiter.wait(LOOK_AGAIN_SECONDS)
                try:
                    await self._store.read(lambda tx: tx.policies.refresh())
                except errors.FlowError as error:
                    logger.warning("could not read the policies: %s", error)

    async def list(self, principal: Principal, org_id: str, workspace_id: str) -> list[StoredPolicy]:
        """All of the workspace, that of the workspace itself first."""
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> list[StoredPolicy]:
            check_workspace(tx, org_id, workspace_id)
            return tx.policies.of_workspace(org_id, workspace_id)

        return await self._store.read(operation)

    async def put(self, principal: Principal, org_id: str, workspace_id: str, policy: Policy) -> StoredPolicy:
        """Sets the policy of its scope; what it does not say, an earlier one of the same scope does not say either.

        Args:
            policy: Component by id or slug, ring by id or name.

        Raises:
            NotFound: Component or ring is unknown in this workspace.
            Forbidden: The workspace's own policy, asked for by somebody of the workspace alone.
            InvalidInput: See `check_policy`.
            Conflict: `too_many_policies`.
        """
        self._require(principal, org_id, workspace_id, policy)
        check_policy(policy)
        now = self._clock.now()

        def operation(tx: Transaction) -> StoredPolicy:
            scoped = _resolved(tx, org_id, workspace_id, policy)
            stored = StoredPolicy(scoped, now, principal.subject)
            tx.policies.save(org_id, workspace_id, stored)
            count = self._revise(tx, org_id, workspace_id, now)
            if count > MAX_POLICIES:
                raise errors.Conflict(
                    f"the workspace has {count - 1} policies: expected at most {MAX_POLICIES}", code="too_many_policies"
                )
            return stored

        stored = await self._store.write(operation)
        await self._tell()
        return stored

    async def delete(self, principal: Principal, org_id: str, workspace_id: str, scope: Policy) -> None:
        """Deletes the policy of a scope.

        Raises:
            NotFound: There is none, or component or ring is unknown.
            Forbidden: As for `put`.
        """
        self._require(principal, org_id, workspace_id, scope)
        now = self._clock.now()

        def operation(tx: Transaction) -> None:
            scoped = _resolved(tx, org_id, workspace_id, scope)
            if not tx.policies.delete(org_id, workspace_id, scoped.component_id, scoped.ring_id):
                raise errors.NotFound("there is no policy of this scope")
            self._revise(tx, org_id, workspace_id, now)

        await self._store.write(operation)
        await self._tell()

    def _require(self, principal: Principal, org_id: str, workspace_id: str, scope: Policy) -> None:
        require_not_execution(principal, Action.ADMINISTER, org_id, workspace_id)
        if scope.is_of_workspace and principal.workspace_id is not None:
            # A weight is a share of what others have, too.
            raise errors.Forbidden(
                "the policy of a whole workspace is set by an admin of the organization, not of the workspace"
            )

    def _revise(self, tx: Transaction, org_id: str, workspace_id: str, now: datetime) -> int:
        stored = tx.policies.of_workspace(org_id, workspace_id)
        limit_starts = any(one.policy.limits_starts for one in stored)
        tx.policies.revise(workspace_id, now, limit_starts=limit_starts)
        return len(stored)

    async def _tell(self) -> None:
        """Here before the answer; elsewhere by a wake-up. What was blocked may start now, so claims look again."""
        await self._store.read(lambda tx: tx.policies.refresh())
        self._wakeups.notify([POLICIES, WORK])


def _resolved(tx: Transaction, org_id: str, workspace_id: str, policy: Policy) -> Policy:
    """The same with ids."""
    check_workspace(tx, org_id, workspace_id)
    component_id, ring_id = policy.component_id, policy.ring_id
    if component_id is not None:
        component_id = find_component(tx, org_id, workspace_id, component_id).id
    if ring_id is not None:
        ring = tx.catalog.find_ring(org_id, workspace_id, ring_id)
        if ring is None:
            raise errors.NotFound(f"ring {ring_id!r} not found")
        ring_id = ring.id
    return replace(policy, component_id=component_id, ring_id=ring_id)

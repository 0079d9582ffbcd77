"""Looking at the sessions of agents, and forgetting them."""

from __future__ import annotations

from collections.abc import Sequence

from flow_platform.domain import errors
from flow_platform.domain.principal import Action, Principal
from flow_platform.domain.session import Session, SessionKey
from flow_platform.engine.releases import require_not_execution
from flow_platform.store.base import Store, Transaction
from flow_sdk.wire.status import Kind

MAX_SHOWN = 200


class Sessions:
    """The sessions of all agents."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, principal: Principal, org_id: str, workspace_id: str, agent: str) -> Sequence[Session]:
        """Those that changed last, without messages and state.

        Raises:
            NotFound: There is no such agent.
        """
        require_not_execution(principal, Action.READ, org_id, workspace_id)

        def operation(tx: Transaction) -> Sequence[Session]:
            component_id = _agent(tx, org_id, workspace_id, agent)
            return tx.sessions.list(org_id, workspace_id, component_id, MAX_SHOWN)

        return await self._store.read(operation)

    async def get(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        agent: str,
        session_id: str,
        ring_id: str | None,
        owner: str,
    ) -> Session:
        """A session with its messages and state.

        Raises:
            NotFound: There is no such agent, ring or session.
        """
        require_not_execution(principal, Action.READ, org_id, workspace_id)
        return await self._store.read(lambda tx: _session(tx, org_id, workspace_id, agent, session_id, ring_id, owner))

    async def delete(
        self,
        principal: Principal,
        org_id: str,
        workspace_id: str,
        agent: str,
        session_id: str,
        ring_id: str | None,
        owner: str,
    ) -> None:
        """Forgets a session; the next turn begins a new one.

        Raises:
            NotFound: There is no such agent, ring or session.
            Conflict: `session_busy`: a turn goes on.
        """
        require_not_execution(principal, Action.CANCEL, org_id, workspace_id)

        def operation(tx: Transaction) -> None:
            session = _session(tx, org_id, workspace_id, agent, session_id, ring_id, owner)
            line = tx.sessions.find(session.key.line, for_update=True)
            holder = tx.executions.find(line.holder_id) if line and line.holder_id else None
            if holder is not None and not holder.status.is_terminal:
                raise errors.Conflict(
                    f"session {session_id!r} has a turn that goes on: execution {holder.id!r}", code="session_busy"
                )
            tx.sessions.delete(session.key)

        await self._store.write(operation)


def _agent(tx: Transaction, org_id: str, workspace_id: str, agent: str) -> str:
    component = tx.catalog.find_component(org_id, workspace_id, Kind.AGENT, agent)
    if component is None:
        raise errors.NotFound(f"agent {agent!r} not found")
    return component.id


def _session(
    tx: Transaction, org_id: str, workspace_id: str, agent: str, session_id: str, ring_id: str | None, owner: str
) -> Session:
    component_id = _agent(tx, org_id, workspace_id, agent)
    rings = [ring for ring in tx.catalog.list_rings(org_id, workspace_id) if ring_id in (None, ring.id, ring.name)]
    if not rings:
        raise errors.NotFound(f"ring {ring_id!r} not found")
    ring = min(rings, key=lambda ring: ring.order)
    session = tx.sessions.find(SessionKey(component_id, ring.id, owner, session_id))
    if session is None:
        raise errors.NotFound(f"session {session_id!r} of agent {agent!r} not found in ring {ring.name!r}")
    return session

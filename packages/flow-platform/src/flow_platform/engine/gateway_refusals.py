"""What the NATS gateways of runners refused containers, entered into the audit log of whose execution it was.

A runner says which attempt was refused what. Whose that is, and whether the runner has or had it, the database says: no
runner writes into the log of somebody whose executions it does not run. Bounds are those of all refusals (`refusals`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from flow_platform.domain.audit import shown
from flow_platform.domain.clock import Clock
from flow_platform.domain.execution import Execution
from flow_platform.domain.inert import inert
from flow_platform.domain.principal import Role
from flow_platform.engine.refusals import Refusal, Refusals
from flow_platform.store.base import Store, Transaction
from flow_sdk.wire.runner import GatewayRefusal

MAX_TAKEN: Final = 1_000  # Of one heartbeat; runners tell fewer.
MAX_WORD: Final = 200


@dataclass(frozen=True)
class AtGateway:
    """Where a container was refused.

    Attributes:
        runner: The id of the runner whose container it was.
    """

    runner: str
    gateway: str = "nats"


class GatewayRefusals:
    def __init__(self, store: Store, clock: Clock, refusals: Refusals) -> None:
        self._store = store
        self._clock = clock
        self._refusals = refusals

    async def note(self, runner_id: str, told: Iterable[GatewayRefusal]) -> None:
        """Has them entered, a moment later. Those of attempts that this runner never had are left out."""
        taken = list(told)[:MAX_TAKEN]
        if not taken:
            return
        found = await self._store.read(lambda tx: _executions(tx, runner_id, taken))
        now, origin = self._clock.now(), AtGateway(runner_id)
        for one in taken:
            execution = found.get((one.execution_id, one.lease_epoch))
            if execution is None or one.count < 1:
                continue
            refusal = _refusal(execution, runner_id, one)
            subject = {"subject": _word(one.subject)} if one.subject else {}
            self._refusals.note(
                refusal.as_others() if one.is_others else refusal,
                origin,
                {"execution_id": execution.id, **subject},
                count=one.count,
                first_at=now - timedelta(seconds=min(max(one.seconds, 0.0), 86_400.0)),
            )


def _executions(
    tx: Transaction, runner_id: str, refusals: Iterable[GatewayRefusal]
) -> dict[tuple[str, int], Execution | None]:
    """By execution and lease epoch; None where the runner had no such lease."""
    found: dict[tuple[str, int], Execution | None] = {}
    for one in refusals:
        key = (one.execution_id, one.lease_epoch)
        if key not in found:
            execution = tx.executions.find(one.execution_id)
            found[key] = execution if execution and _had(tx, execution, runner_id, one.lease_epoch) else None
    return found


def _had(tx: Transaction, execution: Execution, runner_id: str, lease_epoch: int) -> bool:
    if execution.lease_epoch == lease_epoch and execution.lease_holder is not None:
        return execution.lease_holder == runner_id
    attempts = tx.executions.attempts(execution.id)
    return any(one.lease_epoch == lease_epoch and one.runner_id == runner_id for one in attempts)


def _refusal(execution: Execution, runner_id: str, told: GatewayRefusal) -> Refusal:
    return Refusal(
        org_id=execution.org_id,
        subject=f"execution:{execution.id}",  # As in its token.
        role=Role.EXECUTION.value,
        credential=f"attempt:{told.attempt}",  # The connection came out of its container, whatever it offered.
        address=runner_id,
        action=f"NATS {_word(told.tried)}",
        workspace_id=execution.workspace_id,
        status=told.status,
        code=_word(told.code),
    )


def _word(text: str) -> str:
    return str(shown(inert(text)[:MAX_WORD]))

"""What the model gateway needs of others: keys, a meter, a budget. And who calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from flow_platform.domain.model_call import ModelCall
from flow_platform.gateway.providers import Provider
from flow_platform.store.base import Transaction


@dataclass(frozen=True)
class Caller:
    """Who calls a model.

    Attributes:
        execution_id: For an execution's token; only then `idempotency_key` has a meaning.
        billing_transaction_id: For people; an execution's own transaction is looked up.
        admit: Raises when the credential ended meanwhile; runs in the call's first read of the store.
    """

    org_id: str
    workspace_id: str
    execution_id: str | None = None
    billing_transaction_id: str | None = None
    idempotency_key: str | None = None
    admit: Callable[[Transaction], None] = lambda _: None


class Keys(Protocol):
    async def key(self, org_id: str, workspace_id: str, ring_id: str | None, provider: Provider) -> str | None:
        """The provider's API key for this workspace, None when there is none.

        In a ring, for its executions, it may be another than outside. The platform's own key must never be given for a
        provider that a workspace configured (`is_platform` is False): its address is the workspace's choice, and
        would receive the key.
        """
        ...


class Meter(Protocol):
    async def record(self, call: ModelCall) -> None:
        """Called once for each call that reached a provider, when it ended, before the reader hears of its end.

        Its failure is logged and does not take the answer away, which has been paid for. After StoreUnavailable it is
        called again; Conflict says that the call is recorded already.
        """
        ...


class Budget(Protocol):
    async def check(self, org_id: str, workspace_id: str, execution_id: str | None) -> None:
        """Called before each call.

        Raises:
            BudgetExhausted: No model is called.
        """
        ...


class Secrets(Protocol):
    async def reveal(self, org_id: str, workspace_id: str, ring_id: str | None, name: str) -> str | None:
        """The value of a secret, None when there is none of that name."""
        ...

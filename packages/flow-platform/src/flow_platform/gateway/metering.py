"""The meter and the budget of the store, and counting where a provider does not."""

from __future__ import annotations

from typing import Any, cast

from flow_platform.domain.clock import Clock
from flow_platform.domain.ledger import RateCard, entry_of_call
from flow_platform.domain.model_call import CHARACTERS_PER_TOKEN, ModelCall, TokenUsage
from flow_platform.gateway.assembly import Assembly
from flow_platform.gateway.conversation import Json, characters, objects
from flow_platform.store.base import Store, Transaction


class StoredCalls:
    """Implements `Meter`: a row and an entry of the ledger per call, durable when it returns.

    Args:
        rates: For the discount of the caller's lifecycle event; the price of the tokens is in the call.
    """

    def __init__(self, store: Store, clock: Clock, rates: RateCard) -> None:
        self._store = store
        self._clock = clock
        self._rates = rates

    async def record(self, call: ModelCall) -> None:
        def operation(tx: Transaction) -> None:
            tx.models.insert_call(call)
            caller = tx.executions.find(call.execution_id) if call.execution_id else None
            tx.ledger.append(entry_of_call(self._rates, call, caller, self._clock.now()))

        await self._store.write(operation)


class StoredBudget:
    """Implements `Budget`: what the workspace has spent, attempts and calls together, against its limits.

    Nothing is set aside for calls that are on their way: those end, whatever they cost.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def check(self, org_id: str, workspace_id: str, execution_id: str | None) -> None:
        del execution_id
        standing = await self._store.read(lambda tx: tx.budgets.standing(org_id, workspace_id, self._clock.now()))
        if standing is not None:
            standing.require(workspace_id)


def usage_of(answer: Json | None) -> TokenUsage | None:
    """What a provider told about an answer; None when it told nothing."""
    usage = answer.get("usage") if answer else None
    if not isinstance(usage, dict):
        return None
    told = cast("Json", usage)
    details = told.get("prompt_tokens_details")
    cached = _count(cast("Json", details).get("cached_tokens")) if isinstance(details, dict) else 0
    return TokenUsage(_count(told.get("prompt_tokens")), _count(told.get("completion_tokens")), cached)


def estimated(body: Json, answered_characters: int) -> TokenUsage:
    """For a provider that tells nothing, and for an answer that broke off: what was read and written is paid for."""
    given = body.get("input")
    read = len(str(given)) if given is not None else characters(objects(body.get("messages")))
    return TokenUsage(
        -(-read // CHARACTERS_PER_TOKEN), -(-answered_characters // CHARACTERS_PER_TOKEN), is_estimated=True
    )


def characters_of(answer: Json) -> int:
    """Of the texts and arguments of a whole answer."""
    assembly = Assembly()
    assembly.add({"choices": [{**c, "delta": c.get("message")} for c in objects(answer.get("choices"))]})
    return assembly.characters


def usage_document(usage: TokenUsage, told: Any, cost_micro_credits: int) -> Json:
    """The `usage` of an answer: what the provider told with the cost beside it."""
    document: Json = dict(cast("Json", told)) if isinstance(told, dict) else {}
    document |= {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
        "cost_micro_credits": cost_micro_credits,
    }
    return document


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0

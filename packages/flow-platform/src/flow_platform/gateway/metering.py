"""Meters and budgets: the one that ships, and what stands in for the one that does not limit."""

from __future__ import annotations

from typing import Any, cast

from flow_platform.domain.model_call import CHARACTERS_PER_TOKEN, ModelCall, TokenUsage
from flow_platform.gateway.assembly import Assembly
from flow_platform.gateway.conversation import Json, characters, objects
from flow_platform.store.base import Store


class StoredCalls:
    """Implements `Meter`: a row per call, durable when it returns."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def record(self, call: ModelCall) -> None:
        await self._store.write(lambda tx: tx.models.insert_call(call))


class NoBudget:
    """Implements `Budget`: everything may be called."""

    async def check(self, org_id: str, workspace_id: str, execution_id: str | None) -> None:
        del org_id, workspace_id, execution_id


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

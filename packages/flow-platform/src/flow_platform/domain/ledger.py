"""What executions cost: the rate card, the price of one entry, sums over trees.

Money is whole micro-credits. An entry is priced once, when what it is about has ended, and rounded up once; everything
else is addition, so a tree adds up exactly, whoever adds in whatever order.

    an attempt      CPU seconds, and its largest memory for as long as its code ran
    a model call    what the operator's price table says of its tokens

The lifecycle event of the tree gives a discount on both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from flow_platform.domain.execution import Execution
from flow_platform.domain.model_call import ModelCall
from flow_sdk.wire.runner import AttemptMetrics

MICRO: Final = 1_000_000
"""Micro-credits in a credit."""

MAX_RATE: Final = 1_000 * MICRO
MAX_CPU_US: Final = 10**15
MAX_MEMORY_KIB_MS: Final = 10**18
"""Whatever a runner says: with these, the price of an entry fits into 64 bits at the highest rate."""

ATTEMPT: Final = "attempt"
MODEL_CALL: Final = "model_call"
_KIB_PER_GIB: Final = 1 << 20
_PER_SECOND: Final = MICRO * _KIB_PER_GIB  # One CPU second and one GiB second, over one denominator.


@dataclass(frozen=True)
class ComputeUsage:
    """What one attempt used, as its runner measured it."""

    cpu_us: int = 0
    memory_kib_ms: int = 0


@dataclass(frozen=True)
class RateCard:
    """Prices of one version. Tokens are priced per model, by the price table of the model gateway.

    Attributes:
        cpu_second, memory_gib_second: In micro-credits.
        discounts: Percent off, by lifecycle event; none for those that are not named.
    """

    version: str = "standard-1"
    cpu_second: int = 10_000
    memory_gib_second: int = 1_000
    discounts: Mapping[str, int] = field(default_factory=lambda: {"test": 50})

    def discount(self, lifecycle_event: str) -> int:
        return self.discounts.get(lifecycle_event, 0)

    def compute(self, usage: ComputeUsage, lifecycle_event: str) -> int:
        """The price of an attempt, rounded up: what used something is never free by rounding."""
        exact = usage.cpu_us * self.cpu_second * _KIB_PER_GIB + usage.memory_kib_ms * self.memory_gib_second * 1000
        return _round_up(exact * (100 - self.discount(lifecycle_event)), _PER_SECOND * 100)

    def tokens(self, list_price: int, lifecycle_event: str) -> int:
        """The price of a model call whose tokens cost that by the price table, rounded up."""
        return _round_up(list_price * (100 - self.discount(lifecycle_event)), 100)


@dataclass(frozen=True)
class Entry:
    """One line of the ledger; never changed.

    Attributes:
        tree_id: The execution at the top of the tree; of a model call from outside the call itself.
        node_id: The execution that used it; of a model call from outside the call itself. Also its transaction's id.
        source: What ended, unique within the node: `attempt:3`, `model_call:ID`.
        at: When it was recorded.
        lifecycle_event: What the discount was for.
        rate_version: Of the rate card; for tokens with the version of the price table behind it.
        parent_transaction_id: What a model call from outside named.
    """

    tree_id: str
    node_id: str
    source: str
    org_id: str
    workspace_id: str
    at: datetime
    lifecycle_event: str
    rate_version: str
    discount_percent: int
    micro_credits: int
    component_id: str | None = None
    model: str | None = None
    cpu_us: int = 0
    memory_kib_ms: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    parent_transaction_id: str | None = None


def measured(metrics: AttemptMetrics) -> ComputeUsage | None:
    """What the runner measured of an attempt; None when it measured nothing. Nonsense counts as nothing."""
    if metrics.cpu_ms is None and metrics.max_rss_bytes is None:
        return None
    cpu_us = _bounded((metrics.cpu_ms or 0.0) * 1000, MAX_CPU_US)
    return ComputeUsage(
        cpu_us, _bounded((metrics.max_rss_bytes or 0) / 1024 * (metrics.run_ms or 0.0), MAX_MEMORY_KIB_MS)
    )


def entry_of_attempt(card: RateCard, execution: Execution, number: int, usage: ComputeUsage, at: datetime) -> Entry:
    event = execution.lifecycle_event
    return Entry(
        tree_id=execution.root_id,
        node_id=execution.id,
        source=f"{ATTEMPT}:{number}",
        org_id=execution.org_id,
        workspace_id=execution.workspace_id,
        at=at,
        lifecycle_event=event,
        rate_version=card.version,
        discount_percent=card.discount(event),
        micro_credits=card.compute(usage, event),
        component_id=execution.component_id,
        cpu_us=usage.cpu_us,
        memory_kib_ms=usage.memory_kib_ms,
    )


def entry_of_call(card: RateCard, call: ModelCall, caller: Execution | None, at: datetime) -> Entry:
    """Args:
    caller: The execution that called; None for a person or a program outside.
    """
    event = caller.lifecycle_event if caller else ""
    return Entry(
        tree_id=caller.root_id if caller else call.id,
        node_id=caller.id if caller else call.id,
        source=f"{MODEL_CALL}:{call.id}",
        org_id=call.org_id,
        workspace_id=call.workspace_id,
        at=at,
        lifecycle_event=event,
        rate_version=f"{card.version}/{call.price_version or 'none'}",
        discount_percent=card.discount(event),
        micro_credits=card.tokens(call.cost_micro_credits, event),
        component_id=caller.component_id if caller else None,
        model=f"{call.provider}/{call.model}",
        prompt_tokens=call.usage.prompt,
        completion_tokens=call.usage.completion,
        parent_transaction_id=None if caller else call.billing_transaction_id,
    )


def totals(parents: Mapping[str, str | None], own: Mapping[str, int]) -> dict[str, int]:
    """The cost of each node with all that is below it.

    Args:
        parents: Of each node, in any order; a parent that is not among the nodes is none.
        own: Micro-credits of each node itself.
    """
    below: dict[str | None, list[str]] = {}
    for node, parent in parents.items():
        below.setdefault(parent if parent in parents else None, []).append(node)
    from_above = list(below.get(None, []))
    for node in from_above:  # Which grows meanwhile.
        from_above += below.get(node, [])
    result = {node: own.get(node, 0) for node in parents}
    for node in reversed(from_above):
        parent = parents[node]
        if parent in result:
            result[parent] += result[node]
    return result


def _bounded(value: float, most: int) -> int:
    return min(round(value), most) if math.isfinite(value) and value > 0 else 0


def _round_up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)

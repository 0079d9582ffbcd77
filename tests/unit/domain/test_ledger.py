"""The price of an entry, and sums over trees."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow_platform.domain import ledger
from flow_platform.domain.execution import Execution
from flow_platform.domain.ledger import ComputeUsage, RateCard
from flow_platform.domain.model_call import ModelCall, TokenUsage
from flow_sdk.wire.runner import AttemptMetrics
from tests.support.store_records import child_of, execution

NOW = datetime(2026, 11, 22, tzinfo=UTC)
CARD = RateCard("test-1", cpu_second=10_000, memory_gib_second=1_000, discounts={"test": 50, "mcp_session": 100})
GIB_SECOND = (1 << 20) * 1000
usages = st.builds(ComputeUsage, st.integers(0, ledger.MAX_CPU_US), st.integers(0, ledger.MAX_MEMORY_KIB_MS))


@pytest.mark.parametrize(
    ("usage", "event", "price"),
    [
        (ComputeUsage(1_000_000, 0), "workflow", 10_000),
        (ComputeUsage(0, GIB_SECOND), "workflow", 1_000),
        (ComputeUsage(1_000_000, GIB_SECOND), "workflow", 11_000),
        (ComputeUsage(1_000_000, GIB_SECOND), "test", 5_500),
        (ComputeUsage(1_000_000, GIB_SECOND), "mcp_session", 0),
        (ComputeUsage(1, 0), "workflow", 1),
        (ComputeUsage(101, 0), "workflow", 2),
        (ComputeUsage(), "workflow", 0),
    ],
)
def test_an_attempt_is_priced_once_and_rounded_up(usage: ComputeUsage, event: str, price: int) -> None:
    assert CARD.compute(usage, event) == price


@given(usages, st.integers(0, 100))
def test_prices_fit_into_64_bits_and_are_never_negative_nor_raised_by_a_discount(
    usage: ComputeUsage, percent: int
) -> None:
    dear = RateCard("dear", ledger.MAX_RATE, ledger.MAX_RATE, {"test": percent})

    assert 0 <= dear.compute(usage, "test") <= dear.compute(usage, "workflow") < 2**62


@given(usages, usages)
def test_rounding_costs_less_than_one_micro_credit_an_entry(one: ComputeUsage, other: ComputeUsage) -> None:
    both = ComputeUsage(one.cpu_us + other.cpu_us, one.memory_kib_ms + other.memory_kib_ms)
    apart = CARD.compute(one, "workflow") + CARD.compute(other, "workflow")

    assert 0 <= apart - CARD.compute(both, "workflow") <= 1


@pytest.mark.parametrize(
    ("metrics", "usage"),
    [
        ({"cpu_ms": 1.5, "max_rss_bytes": 2048, "run_ms": 10.0}, ComputeUsage(1500, 20)),
        ({"cpu_ms": 1.5}, ComputeUsage(1500, 0)),
        ({"max_rss_bytes": 2048}, ComputeUsage(0, 0)),  # Its code never ran.
        ({"run_ms": 10.0}, None),
        ({"cpu_ms": -3.0, "max_rss_bytes": -1, "run_ms": 10.0}, ComputeUsage()),
        ({"cpu_ms": float("nan"), "max_rss_bytes": 1, "run_ms": float("inf")}, ComputeUsage()),
        ({"cpu_ms": 1e300}, ComputeUsage(ledger.MAX_CPU_US, 0)),
    ],
)
def test_what_a_runner_measured_is_taken_within_reason(metrics: dict[str, Any], usage: ComputeUsage | None) -> None:
    assert ledger.measured(AttemptMetrics(**metrics)) == usage


def test_the_entry_of_a_call_is_its_caller_s() -> None:
    top = execution(lifecycle_event="test")
    caller = child_of(top, lifecycle_event="test")
    call = _call(execution_id=caller.id, billing_transaction_id=caller.id)

    entry = ledger.entry_of_call(CARD, call, caller, NOW)

    assert (entry.tree_id, entry.node_id, entry.source) == (top.id, caller.id, "model_call:call")
    assert (entry.micro_credits, entry.discount_percent, entry.rate_version) == (6, 50, "test-1/prices-7")
    assert (entry.prompt_tokens, entry.completion_tokens, entry.model) == (3, 4, "test/echo")
    assert entry.parent_transaction_id is None


def test_a_call_from_outside_is_a_tree_of_its_own_below_what_it_names() -> None:
    entry = ledger.entry_of_call(CARD, _call(billing_transaction_id="outside"), None, NOW)

    assert (entry.tree_id, entry.node_id, entry.parent_transaction_id) == ("call", "call", "outside")
    assert entry.micro_credits == 11


@given(
    st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
)
def test_a_node_costs_what_it_costs_itself_and_what_its_children_cost(
    drawn: list[tuple[int, int]], order: random.Random
) -> None:
    nodes: list[Execution] = []
    own: dict[str, int] = {}
    for choice, cost in drawn:
        parent = nodes[choice % len(nodes)] if nodes else None
        nodes.append(child_of(parent) if parent else execution())
        own[nodes[-1].id] = cost

    totals = ledger.totals({node.id: node.parent_id for node in order.sample(nodes, len(nodes))}, own)

    assert totals[nodes[0].id] == sum(own.values())
    for node in nodes:
        children = [one.id for one in nodes if one.parent_id == node.id]
        assert totals[node.id] == own[node.id] + sum(totals[child] for child in children)


def _call(**changes: Any) -> ModelCall:
    values: dict[str, Any] = {
        "id": "call",
        "org_id": "org",
        "workspace_id": "workspace",
        "kind": "chat",
        "provider": "test",
        "model": "echo",
        "created_at": NOW,
        "usage": TokenUsage(3, 4),
        "cost_micro_credits": 11,
        "price_version": "prices-7",
        **changes,
    }
    return ModelCall(**values)

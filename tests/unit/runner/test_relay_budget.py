from __future__ import annotations

from flow_platform.runner.relay import BURST_BYTES, BYTES_PER_SECOND, ByteBudget


def test_a_burst_is_free_and_then_the_rate_holds() -> None:
    budget = ByteBudget(now=10.0)
    assert budget.spend(BURST_BYTES, 10.0) == 0
    assert budget.spend(BYTES_PER_SECOND // 2, 10.0) == 0.5
    assert budget.spend(0, 10.5) == 0


def test_unused_time_is_not_saved_beyond_the_burst() -> None:
    budget = ByteBudget(now=0.0)
    assert budget.spend(BURST_BYTES + BYTES_PER_SECOND, 1_000.0) == 1.0

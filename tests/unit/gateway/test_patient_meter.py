"""No call is lost to a store that is away for a while, and none is recorded twice."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from flow_platform.domain import errors
from flow_platform.domain.model_call import ModelCall, TokenUsage
from flow_platform.gateway import patience
from flow_platform.gateway.patience import PatientMeter
from tests.support.eventually import eventually


class Ledger:
    """A meter that does what its next verdicts say, then records."""

    def __init__(self, *verdicts: Exception | None) -> None:
        self.verdicts = list(verdicts)
        self.calls: list[str] = []
        self.asked = 0

    async def record(self, call: ModelCall) -> None:
        self.asked += 1
        verdict = self.verdicts.pop(0) if self.verdicts else None
        if verdict is not None:
            raise verdict
        self.calls.append(call.id)

    async def recorded(self) -> list[str]:
        return self.calls


def made(call_id: str) -> ModelCall:
    return ModelCall(
        id=call_id,
        org_id="o",
        workspace_id="w",
        kind="chat",
        provider="test",
        model="m",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        usage=TokenUsage(1, 2),
    )


def away() -> Exception:
    return errors.StoreUnavailable("the database is away")


async def test_what_the_store_does_not_take_now_it_gets_later_in_order() -> None:
    ledger = Ledger(away(), away(), away(), errors.StorageFull("no room"))
    meter = PatientMeter(ledger, 0.001)
    for call_id in ("a", "b"):
        await meter.record(made(call_id))
    assert ledger.calls == []
    assert await eventually(ledger.recorded, lambda found: len(found) == 2) == ["a", "b"]
    await meter.record(made("c"))
    assert ledger.calls == ["a", "b", "c"]
    await meter.close()


async def test_one_that_was_recorded_though_nobody_heard_of_it_is_not_recorded_twice() -> None:
    ledger = Ledger(away(), errors.Conflict("there is such a row"))
    meter = PatientMeter(ledger, 0.001)
    await meter.record(made("a"))

    async def asked() -> int:
        return ledger.asked

    await eventually(asked, lambda count: count == 2)
    await meter.record(made("b"))
    await meter.close()
    assert (ledger.calls, ledger.asked) == (["b"], 3), "the other one is in the store"


async def test_a_mistake_keeps_nothing_behind_it_from_being_recorded() -> None:
    ledger = Ledger(away(), away(), KeyError("a mistake"))
    meter = PatientMeter(ledger, 0.001)
    await meter.record(made("a"))
    await meter.record(made("b"))
    assert await eventually(ledger.recorded, bool) == ["b"]
    await meter.close()


async def test_closing_tries_once_more_and_a_bound_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "MAX_WAITING", 1)
    ledger = Ledger(away(), away())
    meter = PatientMeter(ledger, 3600)
    await meter.record(made("a"))
    with pytest.raises(errors.StoreUnavailable):
        await meter.record(made("b"))
    await asyncio.wait_for(meter.close(), 5)
    assert ledger.calls == ["a"]

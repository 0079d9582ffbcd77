"""What becomes available while it is looked for is found: now, or by the instant to look again."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flow_platform.engine.grants import Grants, HeldClaim, Leasing
from flow_platform.engine.wakeups import Waiter
from flow_platform.store import open_store
from flow_sdk.wire.runner import Claim
from tests.support.store_records import execution, insert

START = datetime(2026, 1, 1, tzinfo=UTC)


class PassingClock:
    """Ten milliseconds go by from one look at it to the next."""

    def __init__(self) -> None:
        self._now = START

    def now(self) -> datetime:
        self._now += timedelta(milliseconds=10)
        return self._now


@pytest.mark.parametrize("after_ms", [11, 15, 19])
async def test_no_instant_is_between_two_looks(tmp_path: Path, after_ms: int) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'flow.db'}")
    await store.open()
    available_at = START + timedelta(milliseconds=after_ms)
    await insert(store, dataclasses.replace(execution(), available_at=available_at))
    grants = Grants(PassingClock(), Leasing())
    claim = HeldClaim(Claim(runner_id="r", instance="i", slots=1, room=1), Waiter())
    grants.hold(claim)
    granted, look_again_at = await store.write(lambda tx: grants.grant_or_next(tx, claim))
    await store.close()
    assert (granted, look_again_at) == ([], available_at)

"""Fires one schedule and dies: inside the transaction, or right behind its commit. Run as a program of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import datetime

from flow_platform.domain.clock import ManualClock, system_entropy
from flow_platform.engine import graphs
from flow_platform.engine.ends import Ends
from flow_platform.engine.firings import DecideAndFire
from flow_platform.engine.grants import Grants, Leasing
from flow_platform.store import open_store
from flow_platform.store.base import Transaction

DIED = 77


async def main(store_url: str, schedule_id: str, now: datetime, moment: str) -> None:
    store = open_store(store_url)
    await store.open()
    grants = Grants(ManualClock(now), Leasing())
    fire = DecideAndFire(schedule_id, now, system_entropy, Ends(graphs.advance), grants)

    def operation(tx: Transaction) -> None:
        assert len(fire(tx).started) == 1
        if moment == "inside":
            os._exit(DIED)

    await store.write(operation)
    os._exit(DIED)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], datetime.fromisoformat(sys.argv[3]), sys.argv[4]))

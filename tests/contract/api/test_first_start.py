"""The first start: made once, whoever starts and how often."""

from __future__ import annotations

import asyncio
from typing import Any

from flow_platform.domain.clock import ManualClock
from flow_platform.engine.first_start import ensure_first_tenant
from flow_platform.store import open_store


async def test_starts_together_and_again_make_one_tenant(store_url: str) -> None:
    stores = [open_store(store_url) for _ in range(3)]
    clock = ManualClock()
    for store in stores:
        await store.open()
    try:
        together = await asyncio.gather(*(ensure_first_tenant(store, clock) for store in stores * 3))
        workspace = together[0]
        assert set(together) == {workspace}
        assert await ensure_first_tenant(stores[0], clock) == workspace

        def look(tx: Any) -> Any:
            rings = tx.catalog.list_rings(workspace.org_id, workspace.workspace_id)
            return [(ring.name, ring.order, ring.auto_deploy) for ring in rings], len(tx.tenancy.signing_keys())

        rings, keys = await stores[1].read(look)
        assert sorted(rings) == [("dev", 10, True), ("production", 30, False), ("staging", 20, False)]
        assert keys == 1
    finally:
        for store in stores:
            await store.close()

"""Why an execution is still queued, on a platform that no runner has ever reached."""

from __future__ import annotations

import pytest

from tests.contract.api.hands import Tenant, submit_body

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_every_view_says_that_no_runner_is_connected(tenant: Tenant) -> None:
    await tenant.publish()
    execution_id = await tenant.submit()
    async with tenant.client() as client:

        async def reasons(of: str) -> list[str]:
            one = (await client.get(f"/executions/{of}")).json()
            tree = (await client.get(f"/executions/{of}/tree")).json()["execution"]
            listed = (await client.get("/executions", params={"status": "queued"})).json()["items"]
            return [document["waiting_on"]["message"] for document in (one, tree, *listed)]

        assert await reasons(execution_id) == ["No runner is connected; start one with: flow runner"] * 3
        await tenant.platform.claim(execution_id)
        answer = await client.post("/code-blocks/echo/executions", json=submit_body())
        assert await reasons(answer.json()["execution_id"]) == ["Waits for a free slot of a runner"] * 3

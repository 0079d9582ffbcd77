"""A client of a platform that runs, and what tests do with it."""

from __future__ import annotations

from typing import Any

from flow_sdk import PlatformClient
from flow_sdk.wire.status import Status
from tests.support.eventually import eventually
from tests.support.flow_program import Platform


class RingClient:
    """A `PlatformClient` that runs components of the ring `dev` by their slugs."""

    def __init__(self, platform: Platform) -> None:
        ready = platform.wait_ready()
        self.ring_id: str = ready["rings"]["dev"]
        self.client = PlatformClient(
            base_url=ready["base_url"],
            auth_token=ready["token"],
            org_id=ready["org_id"],
            workspace_id=ready["workspace_id"],
        )

    async def __aenter__(self) -> RingClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def submit(self, slug: str, arguments: dict[str, Any], timeout_seconds: float = 60) -> str:
        """The id of an execution of a code block."""
        handle = await self.client.submit_code_block_execution(
            slug, arguments, ring_id=self.ring_id, timeout_seconds=timeout_seconds
        )
        return str(handle["execution_id"])

    async def submit_workflow(self, slug: str, arguments: dict[str, Any], timeout_seconds: float = 60) -> str:
        handle = await self.client.submit_workflow_execution(
            slug, arguments, ring_id=self.ring_id, timeout_seconds=timeout_seconds
        )
        return str(handle["execution_id"])

    async def run(self, slug: str, arguments: dict[str, Any], timeout_seconds: float = 60) -> dict[str, Any]:
        """The last document of an execution of a code block."""
        return await self.ended(await self.submit(slug, arguments, timeout_seconds))

    async def run_workflow(self, slug: str, arguments: dict[str, Any], timeout_seconds: float = 60) -> dict[str, Any]:
        return await self.ended(await self.submit_workflow(slug, arguments, timeout_seconds))

    async def status(self, execution_id: str) -> dict[str, Any]:
        document: dict[str, Any] = await self.client.get_execution_status(execution_id)
        return document

    async def ended(self, execution_id: str) -> dict[str, Any]:
        document: dict[str, Any] = await self.client.await_execution_result(execution_id, timeout_seconds=90)
        return document

    async def reached(self, execution_id: str, status: Status) -> dict[str, Any]:
        """Waits for a status on the way."""
        return await eventually(lambda: self.status(execution_id), lambda document: document["status"] == status)

"""A coroutine that is cancelled while it waits tells the platform so, before its caller goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from flow_sdk import PlatformClient, calling, wait_for_event
from tests.contract.client.recording_server import Recorded, RecordingServer, Reply

CHECKPOINT = {"checkpoint_id": "c1", "kind": "event", "name": "go", "created_at": "2026-01-01T00:00:00Z"}
WITHDRAWAL = "POST /api/v1/orgs/o1/workspaces/w1/executions/e0/checkpoints/c1/withdrawal"


class Platform:
    """Holds what it is told to hold, and notes when somebody waits for it."""

    def __init__(self, server: RecordingServer) -> None:
        self.server = server
        self.held = "GET"
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self.refuses = False
        server.handler = self.handle

    async def handle(self, request: Recorded) -> Reply:
        if request.path.endswith("/withdrawal"):
            return (
                Reply(404, {"code": "not_found"}) if self.refuses else Reply(200, CHECKPOINT | {"status": "withdrawn"})
            )
        if request.line.startswith(self.held):
            self.reached.set()
            await self.go_on.wait()
        return Reply(200, CHECKPOINT | {"status": "open"})

    @property
    def withdrawals(self) -> int:
        return sum(one.line.startswith(WITHDRAWAL) for one in self.server.requests)


@pytest.fixture
async def platform(server: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Platform]:
    found = Platform(server)
    monkeypatch.setenv("PLATFORM_API_URL", server.url)
    monkeypatch.setenv("EXECUTION_ID", "e0")
    async with PlatformClient(server.url, "t", "o1", "w1") as client:

        async def shared() -> PlatformClient:
            return client

        monkeypatch.setattr(calling, "shared_client", shared)
        yield found
        found.go_on.set()


async def test_a_wait_that_is_cancelled_is_withdrawn_before_its_caller_goes_on(platform: Platform) -> None:
    waiting = asyncio.ensure_future(wait_for_event("go"))
    await platform.reached.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert platform.withdrawals == 1


async def test_a_request_that_is_on_its_way_is_withdrawn_when_its_wait_is_known(platform: Platform) -> None:
    platform.held = "POST"
    waiting = asyncio.ensure_future(wait_for_event("go"))
    await platform.reached.wait()
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    platform.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert platform.withdrawals == 1


async def test_a_platform_that_does_not_know_withdrawals_changes_nothing(platform: Platform) -> None:
    platform.refuses = True
    waiting = asyncio.ensure_future(wait_for_event("go"))
    await platform.reached.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert platform.withdrawals == 1

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from flow_sdk import PlatformClient

from tests.contract.client.recording_server import RecordingServer

VARIABLES = (
    "PLATFORM_API_URL",
    "AUTH_TOKEN",
    "ORG_ID",
    "WORKSPACE_ID",
    "EXECUTION_ID",
    "NATS_URL",
    "PARENT_BILLING_TXN_ID",
    "LIFECYCLE_EVENT",
    "PLATFORM_API_TIMEOUT",
    "RING_ID",
    "DEPLOYMENT_ID",
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
async def server() -> AsyncIterator[RecordingServer]:
    recording = RecordingServer()
    await recording.start()
    yield recording
    await recording.stop()


@pytest.fixture
async def make_client(server: RecordingServer) -> AsyncIterator[Callable[..., PlatformClient]]:
    made: list[PlatformClient] = []

    def make(**arguments: Any) -> PlatformClient:
        known = {"base_url": server.url, "auth_token": "t0ken", "org_id": "o1", "workspace_id": "w1"}
        client = PlatformClient(**(known | arguments))
        made.append(client)
        return client

    yield make
    for client in made:
        await client.close()


@pytest.fixture
def client(make_client: Callable[..., PlatformClient]) -> PlatformClient:
    return make_client()

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import nats
import pytest
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from flow_sdk import PlatformClient
from tests.contract.client.nats_platform import MakeClient, Platform
from tests.contract.client.nats_process import NatsProcess
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


_ids = itertools.count(1)


@pytest.fixture(scope="module")
def nats_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsProcess]:
    process = NatsProcess(tmp_path_factory.mktemp("nats"), "max_payload: 64KB")
    yield process
    process.stop()


@pytest.fixture
async def platform(nats_process: NatsProcess) -> AsyncIterator[Platform]:
    connection = await nats.connect(nats_process.url)
    jetstream = connection.jetstream()
    for kind in ("input", "output", "events", "status"):
        retention = RetentionPolicy.WORK_QUEUE if kind == "input" else RetentionPolicy.LIMITS
        await jetstream.add_stream(
            StreamConfig(
                name=f"EXEC_{kind.upper()}",
                subjects=[f"exec.{kind}.*"],
                retention=retention,
                storage=StorageType.MEMORY,
            )
        )
    yield Platform(connection, jetstream)
    await connection.close()


@pytest.fixture
def execution_id() -> str:
    return f"e{next(_ids)}"


@pytest.fixture
def nats_client(nats_process: NatsProcess, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> PlatformClient:
    """Knows nothing but `NATS_URL`."""
    monkeypatch.setenv("NATS_URL", nats_process.url)
    return make_client()

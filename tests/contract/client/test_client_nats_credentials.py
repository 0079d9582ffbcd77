"""The credential of the client's NATS connection: renewed, refused, not permitted, and the connection restored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import nats
import pytest

from flow_sdk import errors
from tests.contract.client.nats_platform import MakeClient, Platform
from tests.contract.client.nats_process import NatsProcess, WireTap
from tests.contract.client.recording_server import RecordingServer, Reply

DEPLOYMENT = UUID("0192f0c1-2222-7333-8444-555566667777")
NOT_CONFIGURED = "NATS_URL not configured. Set NATS_URL environment variable for execution I/O."
OLD, NEW = "eyJhbGciOiJub25lIn0.b2xk.sig", "eyJhbGciOiJub25lIn0.bmV3.sig"


@pytest.mark.parametrize("credential", ["x:{token}@", "{token}@"])
async def test_a_new_token_is_used_for_nats_too(
    credential: str,
    nats_process: NatsProcess,
    platform: Platform,
    server: RecordingServer,
    make_client: MakeClient,
    execution_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tap = WireTap(nats_process.port)
    await tap.start()
    monkeypatch.setenv("NATS_URL", f"nats://{credential.format(token=OLD)}127.0.0.1:{tap.port}")
    client = make_client(auth_token=OLD)
    await client.publish_execution_status(execution_id, "one")
    server.answer(Reply(200, {}, {"X-Auth-Token": NEW}))
    await client.get_execution_status("e")
    assert len(tap.connects()) == 1, "lazily: not before the next use"
    await client.publish_execution_status(execution_id, "two")
    await client.publish_execution_status(execution_id, "three")
    field = "pass" if ":" in credential else "auth_token"
    assert [connect[field] for connect in tap.connects()] == [OLD, NEW]
    assert len(await platform.messages("status", execution_id)) == 3
    await client.close()
    await tap.stop()


async def test_a_fetch_under_way_survives_a_new_token(
    nats_process: NatsProcess,
    platform: Platform,
    make_client: MakeClient,
    execution_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NATS_URL", f"nats://x:{OLD}@127.0.0.1:{nats_process.port}")
    client = make_client(auth_token=OLD)
    fetching = asyncio.create_task(client.fetch_execution_input(None, execution_id))
    await client.publish_execution_status(execution_id, "one")
    client.auth_token = NEW
    await client.publish_execution_status(execution_id, "two")
    await platform.put_input(execution_id, {"input_data": 1})
    assert (await fetching)["input_data"] == 1


async def test_a_credential_of_another_kind_stays(
    nats_process: NatsProcess,
    platform: Platform,
    make_client: MakeClient,
    execution_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tap = WireTap(nats_process.port)
    await tap.start()
    monkeypatch.setenv("NATS_URL", f"nats://user:pw@127.0.0.1:{tap.port}")
    client = make_client(auth_token=OLD)
    await client.publish_execution_status(execution_id, "one")
    client.auth_token = NEW
    await client.publish_execution_status(execution_id, "two")
    assert [connect["pass"] for connect in tap.connects()] == ["pw"]
    await client.close()
    await tap.stop()


async def test_a_refused_token_is_refreshed_once(
    tmp_path: Path, server: RecordingServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = NatsProcess(tmp_path, f'authorization {{ user: x, password: "{NEW}" }}')
    monkeypatch.setenv("NATS_URL", f"nats://x:{OLD}@127.0.0.1:{process.port}")
    server.answer(Reply(200, {"token": NEW}))
    client = make_client(auth_token=OLD)
    admin = await nats.connect(f"nats://x:{NEW}@127.0.0.1:{process.port}")
    await admin.jetstream().add_stream(name="EXEC_STATUS", subjects=["exec.status.*"])
    await client.publish_execution_status("e", "running")
    assert [request.path for request in server.requests] == ["/api/v1/auth/refresh"]
    await admin.close()
    await client.close()
    process.stop()


async def test_a_credential_that_stays_refused(
    tmp_path: Path, server: RecordingServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = NatsProcess(tmp_path, 'authorization { user: x, password: "other" }')
    monkeypatch.setenv("NATS_URL", f"nats://x:{OLD}@127.0.0.1:{process.port}")
    server.answer(Reply(401, {"code": "token_invalid"}))
    with pytest.raises(errors.PlatformAuthError, match="NATS refused the credential"):
        await make_client(auth_token=OLD).publish_execution_status("e", "running")
    monkeypatch.setenv("NATS_URL", f"nats://x:wrong@127.0.0.1:{process.port}")
    with pytest.raises(errors.PlatformAuthError, match="NATS refused the credential"):
        await make_client(auth_token=OLD).publish_execution_status("e", "running")
    assert len(server.requests) == 1
    process.stop()


@pytest.mark.slow
async def test_a_subject_that_is_not_permitted(
    tmp_path: Path, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    permissions = '{ publish: ["exec.status.mine"], subscribe: ["_INBOX.>"] }'
    process = NatsProcess(
        tmp_path, f"authorization {{ users: [{{ user: x, password: p, permissions: {permissions} }}] }}"
    )
    monkeypatch.setenv("NATS_URL", f"nats://x:p@127.0.0.1:{process.port}")
    monkeypatch.setattr("flow_sdk.exec_io.REQUEST_SECONDS", 0.3)
    client = make_client()
    with pytest.raises(errors.PlatformPermissionError, match="permissions violation") as caught:
        await client.publish_execution_status("another", "running")
    assert caught.value.status_code == 403
    await client.close()
    process.stop()


@pytest.mark.slow
async def test_the_connection_restores_itself(
    nats_process: NatsProcess,
    platform: Platform,
    make_client: MakeClient,
    execution_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tap = WireTap(nats_process.port)
    await tap.start()
    monkeypatch.setenv("NATS_URL", f"nats://127.0.0.1:{tap.port}")
    monkeypatch.setattr("flow_sdk.exec_io.REQUEST_SECONDS", 1.0)
    client = make_client()
    await client.publish_execution_status(execution_id, "one")
    tap.cut()
    await client.publish_execution_status(execution_id, "two")
    assert len(await platform.messages("status", execution_id)) == 2
    await client.close()
    await tap.stop()

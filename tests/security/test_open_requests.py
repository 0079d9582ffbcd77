"""Requests that are held or stream end with the credential they were made with: attempt over, token or key revoked.

Over a real server, because what is cut is a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from flow_platform.api import open_requests
from flow_platform.api.app import create_app
from flow_platform.engine import executions
from flow_platform.engine.catalog import Catalog
from flow_platform.engine.service import Engine
from flow_platform.store import open_store
from flow_sdk.wire.runner import Assignment
from tests.contract.api.hands import NO_NATS, Builds, Platform, Tenant, submit_body
from tests.contract.api.serving import serving
from tests.support.eventually import eventually
from tests.support.two_organizations import new_tenant

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Platform, str]]:
    path: Path = tmp_path_factory.mktemp("open")
    engine = Engine(open_store(f"sqlite:///{path}/flow.db"), NO_NATS)
    with pytest.MonkeyPatch.context() as patch:
        # Nobody looks again by himself: what ends a request is that it was told, however long that takes here.
        patch.setattr(open_requests, "LOOK_AGAIN_SECONDS", 3600.0)
        patch.setattr(executions, "LOOK_AGAIN_SECONDS", 3600.0)
        await engine.start()
        builds = Builds()
        engine.catalog = Catalog(engine.store, engine.clock, builds, engine.rollouts)
        platform = Platform(engine, builds, create_app(engine))
        async with serving(platform.app) as base_url:
            yield platform, base_url
        await engine.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def tenant(served: tuple[Platform, str]) -> Tenant:
    return await new_tenant(served[0])


async def other_running(tenant: Tenant) -> str:
    """A child that the held reads are about: it goes on."""
    await tenant.publish("code-blocks", "child")
    return await tenant.submit("code-blocks", "child")


async def child_of(tenant: Tenant, base_url: str, assignment: Assignment) -> str:
    await tenant.publish("code-blocks", "child")
    async with httpx.AsyncClient(headers=_bearer(assignment.token)) as client:
        body = submit_body("code-blocks")
        answer = await client.post(f"{base_url}{tenant.path}/code-blocks/child/executions", json=body)
    return str(answer.json()["execution_id"])


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def _ended(
    request: Callable[[httpx.AsyncClient], Awaitable[Any]], headers: dict[str, str], end: Callable[[], Awaitable[Any]]
) -> Any:
    """What comes of a request whose credential ends while it is open."""
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:
        asking = asyncio.create_task(request(client))  # type: ignore[arg-type]
        await eventually(_held, bool)
        assert not asking.done(), "it is held"
        await end()
        async with asyncio.timeout(60):
            return await asking


async def _held() -> list[str]:
    """The requests that the server, which runs in our loop, has open for long enough to watch them."""
    return [name for task in asyncio.all_tasks() if (name := task.get_name()) == "open-request"]


async def test_a_held_status_read_of_a_child_ends_with_the_attempt(
    served: tuple[Platform, str], tenant: Tenant
) -> None:
    platform, base_url = served
    assignment = await tenant.running()
    child = await child_of(tenant, base_url, assignment)
    answer = await _ended(
        lambda client: client.get(f"{base_url}{tenant.path}/executions/{child}", headers={"Prefer": "wait=30"}),
        _bearer(assignment.token),
        lambda: platform.finish(assignment, 1),
    )
    assert (answer.status_code, answer.json()["code"]) == (401, "token_revoked")


async def _until_cut(client: httpx.AsyncClient, url: str) -> bytes:
    received = b""
    try:
        async with client.stream("GET", url) as answer:
            assert answer.status_code == 200
            async for part in answer.aiter_bytes():
                received += part
    except httpx.RemoteProtocolError:
        return received + b"CUT"
    return received


async def test_a_stream_of_events_ends_with_the_attempt(served: tuple[Platform, str], tenant: Tenant) -> None:
    platform, base_url = served
    assignment = await tenant.running()
    child = await child_of(tenant, base_url, assignment)
    received = await _ended(
        lambda client: _until_cut(client, f"{base_url}{tenant.path}/executions/{child}/events"),
        _bearer(assignment.token),
        lambda: platform.finish(assignment, 1),
    )
    assert b"event: end" not in received


async def test_an_inline_call_ends_with_the_attempt(served: tuple[Platform, str], tenant: Tenant) -> None:
    platform, base_url = served
    await tenant.publish("transforms", "slow")
    assignment = await tenant.running()
    answer = await _ended(
        lambda client: client.post(
            f"{base_url}/api/v1/component-execution/transforms/slow/execute", json={"input_data": {}}
        ),
        _bearer(assignment.token),
        lambda: platform.finish(assignment, 1),
    )
    assert (answer.status_code, answer.json()["code"]) == (401, "token_revoked")


async def test_held_requests_end_when_a_token_is_revoked(served: tuple[Platform, str], tenant: Tenant) -> None:
    _, base_url = served
    execution_id, token = await other_running(tenant), tenant.token()

    async def revoke() -> None:
        async with httpx.AsyncClient(headers=_bearer(token)) as client:
            assert (await client.post(f"{base_url}/api/v1/auth/revoke", json={})).status_code == 200

    answer = await _ended(
        lambda client: client.get(f"{base_url}{tenant.path}/executions/{execution_id}", headers={"Prefer": "wait=30"}),
        _bearer(token),
        revoke,
    )
    assert (answer.status_code, answer.json()["code"]) == (401, "token_revoked")


async def test_streams_end_when_an_api_key_is_deleted(served: tuple[Platform, str], tenant: Tenant) -> None:
    _, base_url = served
    execution_id = await other_running(tenant)
    async with tenant.client() as client:
        key = (await client.post("/api-keys", json={"name": "k", "role": "viewer"})).json()

    async def delete() -> None:
        async with tenant.client() as client:
            assert (await client.delete(f"/api-keys/{key['id']}")).status_code == 204

    received = await _ended(
        lambda client: _until_cut(client, f"{base_url}{tenant.path}/executions/{execution_id}/events"),
        {"X-API-Key": key["key"]},
        delete,
    )
    assert b"event: end" not in received


async def test_an_open_request_with_a_good_credential_is_left_alone(
    served: tuple[Platform, str], tenant: Tenant
) -> None:
    platform, base_url = served
    execution_id, token = await other_running(tenant), tenant.token()
    assignment = await platform.claim(execution_id)

    async def end() -> None:
        platform.engine.credentials.tell()
        await platform.finish(assignment, {"fine": True})

    answer = await _ended(
        lambda client: client.get(f"{base_url}{tenant.path}/executions/{execution_id}", headers={"Prefer": "wait=30"}),
        _bearer(token),
        end,
    )
    assert answer.json()["status"] == "completed"

"""What every answer has, and what goes wrong: limits, unknown paths, a full disk, our own mistakes."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from flow_platform.api import onion
from flow_platform.api.app import create_app
from flow_platform.bus.server import NatsServer
from flow_platform.domain import errors
from flow_platform.engine.service import Engine
from flow_platform.store import open_store
from flow_sdk.wire.runner import Register
from tests.contract.api.hands import Platform, Tenant, refused, submit_body
from tests.contract.api.serving import serving
from tests.support.eventually import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 100_000


async def test_every_answer_names_its_request(platform: Platform, tenant: Tenant) -> None:
    async with platform.client(tenant.token()) as client:
        own = await client.get("/healthz", headers={"X-Request-ID": "trace-1.a:b"})
        assert own.headers["x-request-id"] == "trace-1.a:b"
        for harmful in ("a b", "x" * 200, "<script>", "ü".encode()):
            answer = await client.get("/api/v1/none", headers={"X-Request-ID": harmful})
            made = answer.headers["x-request-id"]
            assert made != harmful
            assert len(made) == 32
            assert answer.json()["request_id"] == made


async def test_every_answer_is_safe_in_a_browser(platform: Platform, tenant: Tenant) -> None:
    async with platform.client(tenant.token()) as client:
        for path in ("/healthz", "/api/v1/none", f"{tenant.path}/rings", "/api/v1/openapi.json"):
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["cache-control"] == "no-store"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "access-control-allow-origin" not in headers


async def test_unknown_paths_and_methods(platform: Platform, tenant: Tenant) -> None:
    async with platform.client(tenant.token()) as client:
        for path in (
            "/api/v1/none",
            f"{tenant.path}/rings/",
            f"{tenant.path}//executions",
            "/index.html",
            "/docs",
            "/%00",
        ):
            refused(await client.get(path), 404, "not_found")
        services = await client.get(f"/api/v1/orgs/{tenant.workspace.org_id}/services/any/skills.json")
        refused(services, 404, "not_found")
        for method in ("PUT", "DELETE", "PATCH"):
            answer = await client.request(method, f"{tenant.path}/rings")
            assert method in refused(answer, 405, "method_not_allowed")["message"]
            assert answer.headers["allow"] == "GET, POST"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.StorageFull("the disk is full"), 507, "storage_full"),
        (errors.StoreUnavailable("the database is away"), 503, "store_unavailable"),
        (errors.BusUnavailable("NATS is away", hint="wait"), 503, "bus_unavailable"),
        (errors.RateLimited("too many", retry_after=2.2), 429, "rate_limited"),
        (errors.Conflict("no"), 409, "conflict"),
    ],
)
async def test_the_engines_errors_have_their_status(
    platform: Platform, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    async def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(platform.engine.submitter, "submit", fail)
    async with tenant.client() as client:
        answer = await client.post("/code-blocks/x/executions", json=submit_body())
    body = refused(answer, status, code)
    if status in (429, 503, 507):
        assert int(answer.headers["retry-after"]) == (3 if status == 429 else 1)
    if code == "bus_unavailable":
        assert body["message"] == "NATS is away (hint: wait)"


@pytest.mark.parametrize("mistake", [RuntimeError("secret: s3cr3t"), errors.SettingsError("secret: s3cr3t")])
async def test_our_own_mistake_is_logged_and_not_told(
    platform: Platform,
    tenant: Tenant,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mistake: Exception,
) -> None:
    async def fail(*_: Any) -> Any:
        raise mistake

    monkeypatch.setattr(platform.engine.executions, "get", fail)
    with caplog.at_level(logging.ERROR):
        async with tenant.client() as client:
            answer = await client.get("/executions/x")
    refused(answer, 500, "internal_error")
    assert "s3cr3t" not in answer.text
    record = next(record for record in caplog.records if record.exc_info)
    assert vars(record)["request_id"] == answer.headers["x-request-id"]
    assert record.exc_info is not None
    assert record.exc_info[1] is mistake


async def _chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 100_000):
        yield b" " * 100_000


async def test_a_body_over_the_limit_is_refused_with_both_sizes(platform: Platform, tenant: Tenant) -> None:
    await tenant.publish()
    app = create_app(platform.engine, max_body_bytes=LIMIT)
    async with serving(app) as base_url:
        url = f"{base_url}{tenant.path}/code-blocks/echo/executions"
        headers = {"Authorization": f"Bearer {tenant.token()}"}
        async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
            # Of a size far beyond what the sockets hold, so that it is still being sent when the answer comes.
            announced = refused(await client.post(url, content=b" " * 20_000_000), 413, "payload_too_large")
            assert "20000000" in announced["message"]
            assert str(LIMIT) in announced["message"]
            chunked = refused(await client.post(url, content=_chunks(20_000_000)), 413, "payload_too_large")
            assert str(LIMIT) in chunked["message"]
            assert chunked["details"][0]["field"] == "body"
            exact = json.dumps(submit_body()).encode()
            exact += b" " * (LIMIT - len(exact))
            assert (await client.post(url, content=exact)).status_code == 202
            refused(await client.post(url, content=exact + b" "), 413, "payload_too_large")
            assert (await client.post(url, json=submit_body())).status_code == 202


async def test_all_bodies_together_are_bounded(
    platform: Platform, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tenant.publish()
    monkeypatch.setattr(onion, "MAX_BODIES_BYTES", 50)
    async with tenant.client() as client:
        refused(await client.post("/code-blocks/echo/executions", json=submit_body()), 429, "rate_limited")
        monkeypatch.setattr(onion, "MAX_BODIES_BYTES", 1000)
        for _ in range(20):  # Given back when each request ends.
            assert (await client.post("/code-blocks/echo/executions", json=submit_body())).status_code == 202


async def test_a_body_that_does_not_come_is_given_up(
    platform: Platform, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from flow_platform.api import body

    monkeypatch.setattr(body, "MAX_BODY_SECONDS", 0.05)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    async with serving(platform.app) as base_url:
        url = f"{base_url}{tenant.path}/code-blocks/echo/executions"
        host, port = base_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {url.removeprefix(base_url)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant.token()}\r\n"
        writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 60)
        assert b"body_timeout" in answer
        writer.close()
        await writer.wait_closed()


async def test_health_and_metrics(platform: Platform, tenant: Tenant) -> None:
    await tenant.publish()
    await tenant.submit()
    async with platform.client() as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        refused(await client.get("/readyz"), 503, "not_ready")  # There is no NATS here.
        text = (await client.get("/metrics")).text
    path = "/api/v1/orgs/{org_id}/workspaces/{workspace_id}/code-blocks/{component_id}/executions"
    assert f'flow_http_requests_total{{method="POST",route="{path}",status="202"}}' in text
    assert 'flow_executions_unfinished{status="queued"}' in text
    assert tenant.workspace.org_id not in text


async def test_ready_when_nats_is_there(tmp_path: Any) -> None:
    nats = NatsServer(tmp_path / "nats")
    await nats.start()
    engine = Engine(open_store(f"sqlite:///{tmp_path / 'flow.db'}"), nats.url)
    await engine.start()
    try:
        transport = httpx.ASGITransport(create_app(engine))
        async with httpx.AsyncClient(transport=transport, base_url="http://flow.test") as client:

            async def status() -> int:
                return (await client.get("/readyz")).status_code

            await eventually(status, lambda found: found == 200)
            assert (await client.get("/readyz")).json() == {"status": "ready", "runners": 0}
            await engine._heartbeats.register(Register(runner_id="r", instance="1", slots=1))
            assert (await client.get("/readyz")).json()["runners"] == 1
    finally:
        await engine.stop()
        await nats.stop()


async def test_the_api_describes_itself(platform: Platform) -> None:
    async with platform.client() as client:
        document = (await client.get("/api/v1/openapi.json")).json()
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert references <= schemas.keys()
    assert {"StatusDocument", "Handle", "ErrorBody", "PublishRequest", "SubmitBody"} <= schemas.keys()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all("default" in operation["responses"] for operation in operations)

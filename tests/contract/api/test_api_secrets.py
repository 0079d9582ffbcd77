"""Secrets over HTTP: written and named, never read; each tenant's and each role's own."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from flow_platform.domain.principal import Role
from flow_platform.engine.master_keys import MasterKeys, new_key, parse_key
from tests.contract.api.hands import Platform, Tenant, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARY = "canary-0a1b2c3d-value"


@pytest.fixture(autouse=True)
def with_master_key(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform.engine.secrets, "_master_keys", MasterKeys(parse_key(new_key(), "a test")))


async def test_a_secret_is_set_listed_and_deleted(tenant: Tenant, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ring = tenant.rings["production"]
    async with tenant.client(Role.BUILDER) as client:
        first = await client.put("/secrets/TOKEN", json={"value": CANARY})
        second = await client.put("/secrets/TOKEN", json={"value": CANARY + "2"})
        of_ring = await client.put("/secrets/TOKEN", json={"value": CANARY + "3", "ring_id": ring})
        listed = await client.get("/secrets")
        gone = await client.delete("/secrets/TOKEN")
        left = await client.get("/secrets")

    assert (first.status_code, first.json()["version"], second.json()["version"]) == (200, 1, 2)
    assert of_ring.json().keys() == {"name", "ring_id", "version", "created_at", "created_by"}
    assert [(item["name"], item["ring_id"], item["version"]) for item in listed.json()["items"]] == [
        ("TOKEN", None, 2),
        ("TOKEN", ring, 1),
    ]
    assert listed.json()["items"][0]["created_by"] == "ada"
    assert (gone.status_code, gone.content) == (204, b"")
    assert [item["ring_id"] for item in left.json()["items"]] == [ring]
    answers = [first, second, of_ring, listed, gone, left]
    assert CANARY not in "".join(answer.text for answer in answers) + caplog.text


@pytest.mark.parametrize("name", ["1TOKEN", "A-B", "AUTH_TOKEN", "NATS_URL", "x" * 129, "%00", "a%20b"])
async def test_a_name_that_no_variable_has_is_refused(tenant: Tenant, name: str) -> None:
    async with tenant.client() as client:
        refused(await client.put(f"/secrets/{name}", json={"value": CANARY}), 422, "invalid_input")


@pytest.mark.parametrize(
    "body",
    [
        {"value": "tiny"},
        {"value": 123456789},
        {"value": [CANARY]},
        {"value": "with \0" + CANARY},
        {"value": None},
        {},
        {"value": CANARY, "ring": "dev"},
        {"value": CANARY, "ring_id": 5},
    ],
)
async def test_a_refusal_never_shows_the_value(tenant: Tenant, body: dict[str, Any]) -> None:
    async with tenant.client() as client:
        answer = await client.put("/secrets/TOKEN", json=body)

    refused(answer, 422, "invalid_input")
    assert CANARY not in answer.text
    assert "123456789" not in answer.text


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
async def test_no_method_reads_a_value(tenant: Tenant, method: str) -> None:
    async with tenant.client() as client:
        await client.put("/secrets/TOKEN", json={"value": CANARY})
        answer = await client.request(method, "/secrets/TOKEN")

    assert answer.status_code == 405
    assert CANARY not in answer.text


@pytest.mark.parametrize("role", [Role.VIEWER, Role.RUNNER])
async def test_who_may_not_deploy_sees_and_changes_nothing(tenant: Tenant, role: Role) -> None:
    async with tenant.client(role) as client:
        refused(await client.get("/secrets"), 403, "forbidden")
        refused(await client.put("/secrets/TOKEN", json={"value": CANARY}), 403, "forbidden")
        refused(await client.delete("/secrets/TOKEN"), 403, "forbidden")


async def test_an_execution_manages_no_secret(tenant: Tenant) -> None:
    assignment = await tenant.running()
    async with tenant.as_execution(assignment) as client:
        refused(await client.get("/secrets"), 403, "forbidden")
        refused(await client.put("/secrets/TOKEN", json={"value": CANARY}), 403, "forbidden")
        refused(await client.delete("/secrets/TOKEN"), 403, "forbidden")


async def test_another_tenant_finds_nothing(platform: Platform, tenant: Tenant, other: Tenant) -> None:
    async with tenant.client() as client:
        await client.put("/secrets/TOKEN", json={"value": CANARY})
        refused(
            await client.put("/secrets/TOKEN", json={"value": CANARY, "ring_id": other.rings["dev"]}), 404, "not_found"
        )
    async with other.client() as client:
        assert (await client.get("/secrets")).json()["items"] == []
        refused(await client.delete("/secrets/TOKEN"), 404, "not_found")
    async with platform.client(other.token()) as client:
        for method in ("GET", "PUT"):
            path = f"{tenant.path}/secrets" + ("/TOKEN" if method == "PUT" else "")
            refused(await client.request(method, path, json={"value": CANARY}), 404, "not_found")


async def test_deleting_the_last_value_of_a_ring_says_where_others_are(tenant: Tenant) -> None:
    ring = tenant.rings["dev"]
    async with tenant.client() as client:
        await client.put("/secrets/TOKEN", json={"value": CANARY, "ring_id": ring})
        body = refused(await client.delete("/secrets/TOKEN"), 404, "not_found")
        assert ring in body["message"]
        assert (await client.delete("/secrets/TOKEN", params={"ring_id": "dev"})).status_code == 204


async def test_a_server_without_a_master_key_says_so(
    platform: Platform, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform.engine.secrets, "_master_keys", MasterKeys())
    async with tenant.client() as client:
        answer = await client.put("/secrets/TOKEN", json={"value": CANARY})

    assert "FLOW_MASTER_KEY" in refused(answer, 503, "master_key_unavailable")["message"]
    assert CANARY not in json.dumps(answer.json())

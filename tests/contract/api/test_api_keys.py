"""API keys: scoped, expiring, revoked at once, and no way to more than they are."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest

from flow_platform.domain.api_key import ApiKey, digest_of
from flow_platform.domain.clock import ManualClock
from flow_platform.domain.principal import Role
from flow_platform.store.base import Store
from tests.contract.api.hands import Platform, Tenant, refused
from tests.support.eventually import eventually
from tests.support.store_records import NOW, SECOND
from tests.support.two_organizations import new_tenant

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def made(tenant: Tenant, role: Role = Role.BUILDER, **more: Any) -> dict[str, Any]:
    async with tenant.client() as client:
        answer = await client.post("/api-keys", json={"name": "ci", "role": role.value, **more})
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


@asynccontextmanager
async def asking(tenant: Tenant, key: str, header: str = "x-api-key") -> AsyncIterator[httpx.AsyncClient]:
    async with tenant.platform.client(None, f"http://flow.test{tenant.path}") as client:
        client.headers[header] = key if header == "x-api-key" else f"Bearer {key}"
        yield client


async def test_a_key_asks_as_its_role_in_its_workspace(tenant: Tenant, other: Tenant) -> None:
    key = await made(tenant, Role.VIEWER)
    assert key["key"].startswith(key["prefix"])
    for header in ("x-api-key", "authorization"):
        async with asking(tenant, key["key"], header) as client:
            assert (await client.get("/rings")).status_code == 200
            refused(await client.post("/rings", json={"name": "qa", "order": 1}), 403, "forbidden")
            refused(await client.get(f"http://flow.test{other.path}/rings"), 404, "not_found")
            identity = (await client.get("http://flow.test/api/v1/auth/whoami")).json()
        assert (identity["subject"], identity["role"]) == ("API key ci", "viewer")
        assert identity["workspace_id"] == tenant.workspace.workspace_id


async def test_a_key_for_the_whole_organization_reaches_all_of_its_workspaces_and_no_other(
    platform: Platform, tenant: Tenant, other: Tenant
) -> None:
    sibling = await new_tenant(platform, tenant.workspace.org_id)
    org_id = tenant.workspace.org_id
    path = f"http://flow.test/api/v1/orgs/{org_id}/api-keys"
    wide = platform.engine.tokens.for_user("root", org_id, None, Role.ADMIN, timedelta(hours=1), platform.now)
    own = await made(tenant, Role.ADMIN)
    async with platform.client(wide) as root, tenant.client() as admin, asking(tenant, own["key"]) as program:
        for one_workspace in (admin, program):  # Administrators of one workspace.
            refused(await one_workspace.post(path, json={"name": "all", "role": "viewer"}), 403, "forbidden")
            refused(await one_workspace.get(path), 403, "forbidden")
            refused(await one_workspace.delete(f"{path}/{own['id']}"), 403, "forbidden")
        refused(await root.post(path, json={"name": "all", "role": "no-such"}), 422, "invalid_input")
        refused(await root.delete(f"{path}/{own['id']}"), 404, "not_found")  # It is a workspace's.
        made_one = (await root.post(path, json={"name": "all", "role": "viewer"})).json()
        assert made_one["workspace_id"] is None
        assert [key["id"] for key in (await root.get(path)).json()["items"]] == [made_one["id"]]
        assert made_one["id"] not in [key["id"] for key in (await admin.get("/api-keys")).json()["items"]]
        refused(await admin.delete(f"/api-keys/{made_one['id']}"), 404, "not_found")
        async with platform.client(None) as anybody:
            anybody.headers["x-api-key"] = made_one["key"]
            for each in (tenant, sibling):
                assert (await anybody.get(f"{each.path}/rings")).status_code == 200
                refused(await anybody.post(f"{each.path}/rings", json={}), 403, "forbidden")
            refused(await anybody.get(f"{other.path}/rings"), 404, "not_found")
            exchanged = await anybody.post("/api/v1/auth/token", json={})
            identity = (await anybody.get("/api/v1/auth/whoami")).json()
            assert (identity["workspace_id"], identity["subject"]) == (None, "API key all")
            assert exchanged.status_code == 201
            assert (await root.delete(f"{path}/{made_one['id']}")).status_code == 204
            refused(await anybody.get(f"{tenant.path}/rings"), 401, "api_key_invalid")


async def test_a_key_wins_over_a_token(tenant: Tenant) -> None:
    key = await made(tenant, Role.VIEWER)
    async with tenant.client(Role.ADMIN) as client:
        refused(await client.get("/api-keys", headers={"x-api-key": key["key"]}), 403, "forbidden")
        refused(await client.get("/api-keys", headers={"x-api-key": key["key"][:-1]}), 401, "api_key_invalid")


async def test_a_revoked_key_is_of_no_use_from_that_moment(tenant: Tenant, other: Tenant) -> None:
    key = await made(tenant)
    async with other.client() as stranger:
        refused(await stranger.delete(f"/api-keys/{key['id']}"), 404, "not_found")
    async with tenant.client() as client, asking(tenant, key["key"]) as program:
        assert (await program.get("/rings")).status_code == 200
        assert (await client.delete(f"/api-keys/{key['id']}")).status_code == 204
        refused(await program.get("/rings"), 401, "api_key_invalid")
        refused(await client.delete(f"/api-keys/{key['id']}"), 404, "not_found")


async def test_a_key_ends(platform: Platform, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await made(tenant, ttl_seconds=60)
    clock = ManualClock(platform.now)
    monkeypatch.setattr(platform.engine.api_keys, "_clock", clock)
    async with asking(tenant, key["key"]) as program:
        clock.advance(timedelta(seconds=59))
        assert (await program.get("/rings")).status_code == 200
        clock.advance(timedelta(seconds=2))
        refused(await program.get("/rings"), 401, "api_key_invalid")


@pytest.mark.parametrize(
    "key", ["", "fl_", "fl_" + "A" * 43, "fl_" + "A" * 42, "fl_" + "é" * 43, "x" * 5000, "eyJhbGciOiJFZERTQSJ9.e30.x"]
)
async def test_what_is_no_key_is_refused_alike(tenant: Tenant, key: str) -> None:
    async with tenant.platform.client(None, f"http://flow.test{tenant.path}") as client:
        answer = await client.get("/rings", headers={b"x-api-key": key.encode()})
    body = refused(answer, 401, "api_key_invalid")
    assert body["message"] == "the API key is not valid"


async def test_nothing_that_is_kept_or_said_later_is_the_key(
    platform: Platform, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = await made(tenant)
    async with tenant.client() as client, asking(tenant, key["key"]) as program:
        await program.get("/rings")
        listed = await client.get("/api-keys")

    [item] = listed.json()["items"]
    assert (item["id"], item["name"], item["role"], item["key"]) == (key["id"], "ci", "builder", None)
    stored = await platform.engine.store.read(lambda tx: tx.api_keys.find_by_digest(digest_of(key["key"])))
    assert stored is not None
    assert key["key"] not in listed.text + caplog.text + repr(stored)
    assert stored.digest not in repr(stored)


async def test_its_last_use_is_noted_once_in_a_while(tenant: Tenant) -> None:
    key = await made(tenant)

    async def last_used() -> str | None:
        async with tenant.client() as client:
            return (await client.get("/api-keys")).json()["items"][0]["last_used_at"]

    assert await last_used() is None
    async with asking(tenant, key["key"]) as program:
        await program.get("/rings")
        first = await eventually(last_used, bool)
        await program.get("/rings")
    assert await last_used() == first


async def test_a_key_is_exchanged_for_a_short_token_like_itself(tenant: Tenant) -> None:
    key = await made(tenant, Role.RUNNER, ttl_seconds=1800)
    url = "http://flow.test/api/v1/auth/token"
    async with asking(tenant, key["key"]) as program:
        answer = await program.post(url, json={})
        long = await program.post(url, json={"ttl_seconds": 30 * 24 * 3600})
        for more in ({"role": "admin"}, {"workspace_id": tenant.workspace.workspace_id}, {"subject": "root"}):
            refused(await program.post(url, json=more), 403, "forbidden")
    platform = tenant.platform
    for one, seconds in ((answer, 900), (long, 1800)):
        credential = platform.engine.tokens.inspect(one.json()["token"], platform.now)
        assert credential.principal.role is Role.RUNNER
        assert credential.principal.workspace_id == tenant.workspace.workspace_id
        assert credential.expires_at - platform.now <= timedelta(seconds=seconds + 1)


async def test_a_key_makes_no_keys_and_is_not_refreshed(tenant: Tenant) -> None:
    key = await made(tenant, Role.ADMIN)
    async with asking(tenant, key["key"]) as program:
        refused(await program.post("/api-keys", json={"name": "more", "role": "viewer"}), 403, "forbidden")
        refused(await program.post("http://flow.test/api/v1/auth/refresh"), 401, "api_key_invalid")
        assert (await program.get("/api-keys")).status_code == 200


@pytest.mark.parametrize("role", [Role.VIEWER, Role.RUNNER, Role.BUILDER])
async def test_only_admins_manage_keys(tenant: Tenant, role: Role) -> None:
    async with tenant.client(role) as client:
        refused(await client.get("/api-keys"), 403, "forbidden")
        refused(await client.post("/api-keys", json={"name": "x", "role": "viewer"}), 403, "forbidden")
        refused(await client.delete("/api-keys/x"), 403, "forbidden")


async def test_an_execution_manages_no_keys(tenant: Tenant) -> None:
    async with tenant.as_execution(await tenant.running()) as client:
        refused(await client.get("/api-keys"), 403, "forbidden")
        refused(await client.post("/api-keys", json={"name": "x", "role": "viewer"}), 403, "forbidden")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x"},
        {"name": "", "role": "viewer"},
        {"name": "a\nb", "role": "viewer"},
        {"name": "x", "role": "execution"},
        {"name": "x", "role": "viewer", "ttl_seconds": 59},
        {"name": "x", "role": "viewer", "ttl_seconds": 367 * 86400},
        {"name": "x", "role": "viewer", "expires_at": None},
    ],
)
async def test_what_makes_no_key_is_refused(tenant: Tenant, body: dict[str, Any]) -> None:
    async with tenant.client() as client:
        refused(await client.post("/api-keys", json=body), 422, "invalid_input")


@pytest.mark.asyncio(loop_scope="function")
async def test_keys_in_the_store(store: Store) -> None:
    """The contract of `ApiKeyTable`, on both databases."""
    key = ApiKey("k1", "org", "workspace", "ci", Role.VIEWER, "fl_abc", "d1", NOW, "ada", NOW + SECOND)
    newer = ApiKey("k2", "org", "workspace", "cd", Role.ADMIN, "fl_def", "d2", NOW + SECOND, "ada", NOW + SECOND)
    for one in (key, newer):
        await store.write(lambda tx, one=one: tx.api_keys.insert(one))

    assert await store.read(lambda tx: tx.api_keys.find_by_digest("d1")) == key
    assert await store.read(lambda tx: tx.api_keys.find_by_digest("none")) is None
    assert await store.read(lambda tx: tx.api_keys.of_workspace("org", "workspace")) == [newer, key]
    assert await store.read(lambda tx: tx.api_keys.of_workspace("stranger", "workspace")) == []
    assert await store.read(lambda tx: tx.api_keys.count("org", "workspace")) == 2
    await store.write(lambda tx: tx.api_keys.note_use("k1", NOW))
    noted = await store.read(lambda tx: tx.api_keys.find_by_digest("d1"))
    assert noted is not None
    assert noted.last_used_at == NOW
    assert not await store.write(lambda tx: tx.api_keys.delete("stranger", "workspace", "k1"))
    assert await store.write(lambda tx: tx.api_keys.delete("org", "workspace", "k1"))
    assert await store.read(lambda tx: tx.api_keys.of_workspace("org", "workspace")) == [newer]

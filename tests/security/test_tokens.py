"""Tokens of users: keys that change while they are used, what is revoked, and roles of one's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio

from flow_platform.api.app import create_app
from flow_platform.domain.clock import ManualClock
from flow_platform.domain.principal import Role
from flow_platform.engine.service import Engine
from flow_platform.store import open_store
from tests.contract.api.hands import HOUR, NO_NATS, Builds, Platform, Tenant, refused
from tests.support.two_organizations import new_tenant

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY = timedelta(days=1)
KEYS, REVOKE = "/api/v1/auth/keys", "/api/v1/auth/revoke"


@pytest_asyncio.fixture(loop_scope="module")
async def platform(tmp_path: Any) -> AsyncIterator[Platform]:
    engine = Engine(open_store(f"sqlite:///{tmp_path}/flow.db"), NO_NATS, clock=ManualClock())
    await engine.start()
    yield Platform(engine, Builds(), create_app(engine))
    await engine.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def tenant(platform: Platform) -> Tenant:
    return await new_tenant(platform)


def operator(platform: Platform, ttl: timedelta = HOUR) -> str:
    engine = platform.engine
    return engine.tokens.for_user("root", engine.workspace.org_id, None, Role.ADMIN, ttl, engine.clock.now())


def wide(tenant: Tenant, subject: str = "ada", ttl: timedelta = HOUR) -> str:
    engine = tenant.platform.engine
    return engine.tokens.for_user(subject, tenant.workspace.org_id, None, Role.ADMIN, ttl, engine.clock.now())


async def ask(platform: Platform, tenant: Tenant, token: str) -> httpx.Response:
    async with platform.client(token) as client:
        return await client.get(f"{tenant.path}/rings")


async def post(platform: Platform, token: str, path: str, body: Any) -> httpx.Response:
    async with platform.client(token) as client:
        return await client.post(path, json=body)


def kid(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


async def test_a_new_key_signs_and_the_one_before_is_believed_until_its_tokens_are_gone(
    platform: Platform, tenant: Tenant
) -> None:
    clock = platform.engine.clock
    assert isinstance(clock, ManualClock)
    before = tenant.token(ttl=timedelta(days=30))
    clock.advance(timedelta(seconds=1))
    answer = await post(platform, operator(platform), KEYS, {})
    assert answer.status_code == 201, answer.text
    newest, old = answer.json()["items"]
    assert newest["retired_at"] is None
    assert old["retired_at"]
    after = tenant.token()
    assert kid(after) == newest["kid"] != kid(before) == old["kid"]
    async with platform.client() as client:
        published = (await client.get("/.well-known/jwks.json")).json()["keys"]
    assert {key["kid"] for key in published} == {newest["kid"], old["kid"]}
    assert {key["kid"]: len(key) for key in published} == {newest["kid"]: 6, old["kid"]: 6}, "nothing private"
    for token in (before, after):
        assert (await ask(platform, tenant, token)).status_code == 200
    clock.advance(30 * DAY - HOUR - timedelta(seconds=1))
    assert (await ask(platform, tenant, before)).status_code == 200
    clock.advance(HOUR)
    refused(await ask(platform, tenant, before), 401, "token_expired")
    clock.advance(timedelta(seconds=1))
    async with platform.client() as client:
        assert len((await client.get("/.well-known/jwks.json")).json()["keys"]) == 1


async def test_a_key_that_got_out_is_retired_at_once(platform: Platform, tenant: Tenant) -> None:
    stolen = tenant.token()
    answer = await post(platform, operator(platform), KEYS, {"retire_after_seconds": 0})
    assert answer.status_code == 201
    refused(await ask(platform, tenant, stolen), 401, "token_invalid")
    refused(await post(platform, stolen, "/api/v1/auth/refresh", None), 401, "token_invalid")
    assert (await ask(platform, tenant, tenant.token())).status_code == 200


async def test_keys_are_the_operators(platform: Platform, tenant: Tenant) -> None:
    refused(await post(platform, wide(tenant), KEYS, {}), 403, "forbidden")
    narrow = platform.engine.workspace
    token = platform.engine.tokens.for_user(
        "root", narrow.org_id, narrow.workspace_id, Role.ADMIN, HOUR, platform.engine.clock.now()
    )
    refused(await post(platform, token, KEYS, {}), 403, "forbidden")
    async with platform.client(operator(platform)) as client:
        listed = (await client.get(KEYS)).json()["items"]
    assert "PRIVATE" not in str(listed)


async def test_a_revoked_token_is_of_no_more_use(platform: Platform, tenant: Tenant) -> None:
    token, other = tenant.token(), tenant.token()
    assert (await post(platform, token, REVOKE, {})).status_code == 200
    refused(await ask(platform, tenant, token), 401, "token_revoked")
    refused(await post(platform, token, REVOKE, {}), 401, "token_revoked")
    assert (await ask(platform, tenant, other)).status_code == 200
    viewer = tenant.token(Role.VIEWER)
    assert (await post(platform, other, REVOKE, {"token": viewer})).status_code == 200
    refused(await ask(platform, tenant, viewer), 401, "token_revoked")


async def test_a_revocation_outlives_the_server(platform: Platform, tenant: Tenant) -> None:
    token = tenant.token()
    await post(platform, token, REVOKE, {})
    await platform.engine.credentials.start()
    with pytest.raises(Exception, match="revoked"):
        platform.engine.credentials.tokens.inspect(token, platform.engine.clock.now())


async def test_all_tokens_of_a_subject_are_revoked_until_now(platform: Platform, tenant: Tenant) -> None:
    clock = platform.engine.clock
    assert isinstance(clock, ManualClock)
    leaver, colleague = wide(tenant, "leaver"), wide(tenant, "colleague")
    refused(await post(platform, tenant.token(), REVOKE, {"subject": "leaver"}), 403, "forbidden")
    assert (await post(platform, colleague, REVOKE, {"subject": "leaver"})).status_code == 200
    refused(await ask(platform, tenant, leaver), 401, "token_revoked")
    assert (await ask(platform, tenant, colleague)).status_code == 200
    clock.advance(timedelta(seconds=2))
    assert (await ask(platform, tenant, wide(tenant, "leaver"))).status_code == 200, "of later"


async def test_nobody_revokes_what_is_not_theirs(platform: Platform, tenant: Tenant) -> None:
    stranger = await new_tenant(platform)
    victim = wide(tenant)
    assert (await post(platform, wide(stranger), REVOKE, {"token": victim})).status_code == 404
    token_id = jwt.decode(victim, options={"verify_signature": False})["jti"]
    await post(platform, wide(stranger), REVOKE, {"token_id": token_id})
    await post(platform, wide(stranger), REVOKE, {"subject": "ada"})
    assert (await ask(platform, tenant, victim)).status_code == 200
    refused(await post(platform, tenant.token(Role.VIEWER), REVOKE, {"token": wide(tenant, "eve")}), 403, "forbidden")
    refused(await post(platform, tenant.token(), REVOKE, {"token": wide(tenant, "eve")}), 403, "forbidden")


async def test_tokens_of_another_platform(platform: Platform, tenant: Tenant, tmp_path: Any) -> None:
    """Its first key has the same id as ours: what counts is the signature."""
    other = Engine(open_store(f"sqlite:///{tmp_path}/other.db"), NO_NATS, clock=platform.engine.clock)
    await other.start()
    try:
        now = other.clock.now()
        token = other.tokens.for_user("ada", tenant.workspace.org_id, None, Role.ADMIN, HOUR, now)
        assert kid(token) == kid(tenant.token())
        refused(await ask(platform, tenant, token), 401, "token_invalid")
    finally:
        await other.stop()


@pytest.mark.parametrize(
    "name",
    [
        "../../../dev/null",
        "' OR 1=1 --",
        "http://127.0.0.1/jwks",
        "x" * 3000,
        "first\0",
        "FIRST",
        "",
        None,
        1,
        ["first"],
    ],
)
async def test_key_ids_are_looked_up_and_nothing_else(platform: Platform, tenant: Tenant, name: Any) -> None:
    engine = platform.engine
    claims = jwt.decode(tenant.token(), options={"verify_signature": False})
    try:
        token = jwt.encode(claims, engine.tokens._signing_key, algorithm="EdDSA", headers={"kid": name})
    except jwt.InvalidTokenError:  # The library that makes it is stricter than an attacker's.
        return
    refused(await ask(platform, tenant, token), 401, "token_invalid")


# Roles of one's own


async def role(tenant: Tenant, name: str, actions: list[str]) -> httpx.Response:
    async with tenant.client() as client:
        return await client.put(f"/roles/{name}", json={"actions": actions})


async def test_a_custom_role_may_what_it_says_from_the_next_request_on(platform: Platform, tenant: Tenant) -> None:
    assert (await role(tenant, "deployer", ["deploy"])).status_code == 200
    body = {"role": "deployer", "workspace_id": tenant.workspace.workspace_id}
    token = (await post(platform, wide(tenant), "/api/v1/auth/token", body)).json()["token"]
    async with tenant.client() as client:
        key = (await client.post("/api-keys", json={"name": "ci", "role": "deployer"})).json()
    assert key["role"] == "deployer"
    for headers in ({"Authorization": f"Bearer {token}"}, {"X-API-Key": key["key"]}):
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(platform.app), base_url=f"http://t{tenant.path}", headers=headers
        ) as client:
            await role(tenant, "deployer", ["deploy"])
            assert (await client.get("/secrets")).status_code == 200
            refused(await client.get("/rings"), 403, "forbidden")
            refused(await client.post("/api-keys", json={}), 403, "forbidden")
            assert (await client.get("http://t/api/v1/auth/whoami")).json()["role"] == "deployer"
            await role(tenant, "deployer", ["read"])
            refused(await client.get("/secrets"), 403, "forbidden")
            assert (await client.get("/rings")).status_code == 200
    async with tenant.client() as client:
        assert (await client.delete("/roles/deployer")).status_code == 204
    refused(await ask(platform, tenant, token), 403, "forbidden")


async def test_a_custom_role_is_of_its_workspace(platform: Platform, tenant: Tenant) -> None:
    sibling = await new_tenant(platform, tenant.workspace.org_id)
    await role(tenant, "all", ["read", "administer"])
    for body in ({"role": "all"}, {"role": "all", "workspace_id": sibling.workspace.workspace_id}):
        refused(await post(platform, wide(tenant), "/api/v1/auth/token", body), 422, "invalid_input")
    await role(sibling, "all", ["read"])
    body = {"role": "all", "workspace_id": sibling.workspace.workspace_id}
    token = (await post(platform, wide(tenant), "/api/v1/auth/token", body)).json()["token"]
    assert (await ask(platform, sibling, token)).status_code == 200
    refused(await ask(platform, tenant, token), 404, "not_found")


@pytest.mark.parametrize("name", ["admin", "execution", "custom", "A", "-", "a" * 64, "%2e%2e"])
async def test_names_that_no_role_has(tenant: Tenant, name: str) -> None:
    assert (await role(tenant, name, ["read"])).status_code in (404, 422)
    assert (await role(tenant, "fine", ["everything"])).status_code == 422
    assert (await role(tenant, "fine", [])).status_code == 422


async def test_a_token_says_no_other_actions_than_its_role(platform: Platform, tenant: Tenant) -> None:
    """What a custom role may is not in the token, so nothing there can be changed or be stale."""
    engine = platform.engine
    token = engine.tokens.for_user(
        "eve", tenant.workspace.org_id, tenant.workspace.workspace_id, Role.CUSTOM, HOUR, engine.clock.now(), "none"
    )
    refused(await ask(platform, tenant, token), 403, "forbidden")

"""Two servers over one database: a new key and a revocation of the one are known to the other."""

from __future__ import annotations

import httpx

from flow_platform.api.app import create_app
from flow_platform.domain.principal import Role
from flow_platform.engine.service import Engine
from flow_platform.store import open_store
from tests.contract.api.hands import HOUR, NO_NATS, Builds, Platform, Tenant, refused
from tests.support.eventually import eventually
from tests.support.two_organizations import new_tenant


async def test_a_server_of_the_same_database_knows_the_new_key_at_once(postgresql_url: str) -> None:
    """Without NATS between them, and before it looks again by itself."""
    one, two = (Engine(open_store(postgresql_url), NO_NATS) for _ in range(2))
    await one.start()
    await two.start()
    try:
        first, second = Platform(one, Builds(), create_app(one)), Platform(two, Builds(), create_app(two))
        tenant = await new_tenant(first)
        operator = one.tokens.for_user("root", one.workspace.org_id, None, Role.ADMIN, HOUR, one.clock.now())
        async with first.client(operator) as client:
            answer = await client.post("/api/v1/auth/keys", json={"retire_after_seconds": 0})
        assert answer.status_code == 201
        token = tenant.token()
        assert (await _ask(second, tenant, token)).status_code == 200
        async with first.client(token) as client:
            assert (await client.post("/api/v1/auth/revoke", json={})).status_code == 200
        refused(
            await eventually(lambda: _ask(second, tenant, token), lambda answer: answer.status_code == 401),
            401,
            "token_revoked",
        )
    finally:
        await one.stop()
        await two.stop()


async def _ask(platform: Platform, tenant: Tenant, token: str) -> httpx.Response:
    async with platform.client(token) as client:
        return await client.get(f"{tenant.path}/rings")

"""Signing in with a browser: who gets a session, and what a page of somebody else's cannot do with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import pytest_asyncio

from flow_platform.api.app import create_app
from flow_platform.domain.clock import ManualClock
from flow_platform.domain.errors import SettingsError
from flow_platform.engine.issuer_settings import read_issuers
from flow_platform.engine.login import Logins
from flow_platform.engine.service import Engine
from flow_platform.store import open_store
from tests.contract.api.hands import NO_NATS, Builds, Platform, Tenant, refused
from tests.support.identity_provider import IdentityProvider
from tests.support.two_organizations import new_tenant

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "http://127.0.0.1:8420"
OURS = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    made = IdentityProvider()
    yield made
    made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    engine = Engine(open_store(f"sqlite:///{tmp_path_factory.mktemp('login')}/flow.db"), NO_NATS, clock=ManualClock())
    await engine.start()
    yield Platform(engine, Builds(), create_app(engine))
    await engine.stop()


def settings(folder: Path, provider: IdentityProvider, tenant: Tenant, login: str = "", origin: str = ORIGIN) -> Path:
    path = folder / "issuers.toml"
    path.write_text(
        f"""
        [[issuers]]
        name = "corp"
        issuer = "{provider.issuer}"
        audience = "flow"
        [issuers.login]
        client_id = "flow-console"
        redirect_url = "{origin}/login/corp/callback"
        {login}
        [[issuers.rules]]
        claim = "groups"
        value = "builders"
        role = "builder"
        org_id = "{tenant.workspace.org_id}"
        """
    )
    return path


@pytest_asyncio.fixture(loop_scope="module")
async def tenant(platform: Platform, provider: IdentityProvider, tmp_path: Path) -> Tenant:
    tenant = await new_tenant(platform)
    trust(platform, settings(tmp_path, provider, tenant))
    return tenant


def trust(platform: Platform, path: Path) -> None:
    engine = platform.engine
    engine.logins = Logins(read_issuers(path), engine.clock, lambda: engine.tokens)


def browser(platform: Platform, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(platform.app), base_url=ORIGIN, headers=headers)


async def begun(client: httpx.AsyncClient) -> str:
    answer = await client.get("/login/corp")
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def came_back(
    client: httpx.AsyncClient, provider: IdentityProvider, platform: Platform, **claims: Any
) -> httpx.Response:
    address = await begun(client)
    code = provider.signed_in(address, platform.engine.clock.now(), **claims)
    state = dict(parse_qsl(urlsplit(address).query))["state"]
    return await client.get("/login/corp/callback", params={"code": code, "state": state})


async def test_who_signs_in_is_whom_the_rules_say(
    platform: Platform, provider: IdentityProvider, tenant: Tenant
) -> None:
    async with browser(platform) as client:
        assert (await client.get("/login")).headers["location"] == "/login/corp"
        answer = await came_back(client, provider, platform)

        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookies = answer.headers.get_list("set-cookie")
        session = next(one for one in cookies if one.startswith("flow_session="))
        assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=28800"} <= set(session.split("; "))
        told = (await client.get("/api/v1/auth/whoami")).json()
        assert (told["subject"], told["role"], told["org_id"]) == ("corp/ada", "builder", tenant.workspace.org_id)
        page = await client.get("/")
        assert "Signed in as corp/ada" in page.text
        assert "form-action 'self'" in page.headers["content-security-policy"]


async def test_the_issuer_is_asked_with_pkce_and_a_secret(
    platform: Platform, provider: IdentityProvider, tenant: Tenant, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("client-s-own\n")
    trust(platform, settings(tmp_path, provider, tenant, f'client_secret_file = "{tmp_path}/secret"'))
    provider.client_secret = "client-s-own"
    async with browser(platform) as client:
        asked = dict(parse_qsl(urlsplit(await begun(client)).query))
        assert asked["code_challenge_method"] == "S256"
        assert asked["redirect_uri"] == f"{ORIGIN}/login/corp/callback"
        assert (await came_back(client, provider, platform)).status_code == 303

        provider.client_secret = "another"
        body = refused(await came_back(client, provider, platform), 401, "login_failed")
        assert "did not take the code" in body["message"]


@pytest.mark.parametrize(
    ("claims", "status", "code"),
    [
        ({"nonce": "another"}, 401, "login_failed"),
        ({"aud": "flow"}, 401, "token_invalid"),
        ({"azp": "another-program"}, 401, "login_failed"),
        ({"iss": "https://elsewhere.example"}, 401, "token_invalid"),
        ({"exp": 1}, 401, "token_expired"),
        ({"groups": ["guests"]}, 403, "no_role"),
    ],
)
async def test_a_token_that_is_not_for_this_sign_in_gives_no_session(
    platform: Platform, provider: IdentityProvider, tenant: Tenant, claims: dict[str, Any], status: int, code: str
) -> None:
    async with browser(platform) as client:
        answer = await came_back(client, provider, platform, **claims)
        refused(answer, status, code)
        assert "flow_session" not in client.cookies


async def test_the_answer_to_another_browser_is_not_taken(
    platform: Platform, provider: IdentityProvider, tenant: Tenant
) -> None:
    """Nobody is signed in as somebody else by a link."""
    async with browser(platform) as attacker, browser(platform) as victim:
        address = await begun(attacker)
        answer = {
            "code": provider.signed_in(address, platform.engine.clock.now()),
            "state": dict(parse_qsl(urlsplit(address).query))["state"],
        }
        refused(await victim.get("/login/corp/callback", params=answer), 401, "login_failed")
        await begun(victim)
        refused(await victim.get("/login/corp/callback", params=answer), 401, "login_failed")
        refused(await victim.get("/login/corp/callback", params={"error": "access_denied"}), 401, "login_failed")


async def test_who_takes_too_long_begins_again(platform: Platform, provider: IdentityProvider, tenant: Tenant) -> None:
    async with browser(platform) as client:
        address = await begun(client)
        ticket = client.cookies["flow_login"]
        clock = platform.engine.clock
        assert isinstance(clock, ManualClock)
        clock.advance(timedelta(minutes=11))
        answer = {
            "code": provider.signed_in(address, clock.now()),
            "state": dict(parse_qsl(urlsplit(address).query))["state"],
        }
        sent = await client.get("/login/corp/callback", params=answer, headers={"Cookie": f"flow_login={ticket}"})
        refused(sent, 401, "login_failed")


async def test_a_ticket_is_no_credential_and_a_token_is_no_ticket(
    platform: Platform, provider: IdentityProvider, tenant: Tenant
) -> None:
    async with browser(platform) as client:
        await begun(client)
        ticket = client.cookies["flow_login"]
        client.cookies.clear()
        for headers in ({"Authorization": f"Bearer {ticket}"}, {"Cookie": f"flow_session={ticket}"}):
            assert (await client.get("/api/v1/auth/whoami", headers=headers)).status_code == 401
        await came_back(client, provider, platform)
        token = client.cookies["flow_session"]
        client.cookies.clear()
        answer = await client.get(
            "/login/corp/callback", params={"code": "x", "state": "y"}, headers={"Cookie": f"flow_login={token}"}
        )
        refused(answer, 401, "login_failed")


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("GET", OURS, 200),
        ("GET", {"Sec-Fetch-Site": "none"}, 200),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", {"Sec-Fetch-Site": "same-site"}, 403),
        ("GET", {"Origin": "http://evil.test"}, 403),
        ("POST", OURS, 201),
        ("POST", {"Origin": ORIGIN}, 201),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, 201),
        ("POST", {}, 403),
        ("POST", {"Sec-Fetch-Site": "none"}, 403),
        ("POST", {"Origin": "null", "Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", {"Origin": "http://127.0.0.1:8421", "Sec-Fetch-Site": "same-site"}, 403),
        ("POST", {"Origin": "http://evil.test", "Sec-Fetch-Site": "same-origin"}, 403),
    ],
)
async def test_a_session_counts_for_our_own_pages_alone(
    platform: Platform, provider: IdentityProvider, tenant: Tenant, method: str, headers: dict[str, str], status: int
) -> None:
    where = f"/api/v1/orgs/{tenant.workspace.org_id}/workspaces/{tenant.workspace.workspace_id}/services"
    async with browser(platform) as client:
        await came_back(client, provider, platform)
        if method == "GET":
            answer = await client.get(where, headers=headers)
        else:
            answer = await client.post(where, json={"slug": "pages"}, headers=headers)
        assert answer.status_code == status, answer.text
        if status == 403:
            refused(answer, 403, "cross_site")


async def test_who_signs_out_is_out_also_with_a_copy_of_the_cookie(
    platform: Platform, provider: IdentityProvider, tenant: Tenant
) -> None:
    async with browser(platform) as client:
        await came_back(client, provider, platform)
        copy = client.cookies["flow_session"]
        refused(await client.post("/logout", headers={"Sec-Fetch-Site": "cross-site"}), 403, "cross_site")
        assert (await client.get("/api/v1/auth/whoami")).status_code == 200

        assert (await client.post("/logout", headers=OURS)).status_code == 303

        assert "flow_session" not in client.cookies
        answer = await client.get("/api/v1/auth/whoami", headers={"Cookie": f"flow_session={copy}"})
        refused(answer, 401, "token_revoked")
        assert "Sign in" in (await client.get("/")).text


async def test_signing_in_and_out_is_in_the_audit_log(
    platform: Platform, provider: IdentityProvider, tenant: Tenant
) -> None:
    async with browser(platform) as client:
        await came_back(client, provider, platform)
        assert (await client.post("/logout", headers=OURS)).status_code == 303
    await platform.engine.audit.refusals.flush()
    entries = await platform.engine.store.read(lambda tx: tx.audit.after(tenant.workspace.org_id, 0, 10))
    said = [entry.document for entry in entries]
    assert [one["action"] for one in said] == ["GET /login/{name}/callback", "POST /logout"]
    assert {one["who"]["role"] for one in said} == {"builder"}
    assert len({one["who"]["credential"] for one in said}) == 1  # The session, which was made and revoked.
    assert said[0]["target"] == {"name": "corp"}
    assert said[1]["after"]["kind"] == "token"


async def test_a_header_wins_over_a_session(platform: Platform, provider: IdentityProvider, tenant: Tenant) -> None:
    async with browser(platform) as client:
        await came_back(client, provider, platform)
        refused(await client.get("/api/v1/auth/whoami", headers={"Authorization": "Bearer x"}), 401, "token_invalid")


async def test_over_https_no_other_host_can_set_the_cookie(
    platform: Platform, provider: IdentityProvider, tenant: Tenant, tmp_path: Path
) -> None:
    trust(platform, settings(tmp_path, provider, tenant, origin="https://flow.example.com"))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(platform.app), base_url="https://flow.example.com"
    ) as client:
        answer = await came_back(client, provider, platform)
        session = next(one for one in answer.headers.get_list("set-cookie") if "session" in one)
        assert session.startswith("__Host-flow_session=")
        assert "Secure" in session
        assert (await client.get("/api/v1/auth/whoami")).status_code == 200
        value = client.cookies["__Host-flow_session"]
        client.cookies.clear()
        answer = await client.get("/api/v1/auth/whoami", headers={"Cookie": f"flow_session={value}"})
        assert answer.status_code == 401


async def test_without_an_issuer_there_is_nothing_to_sign_in_to(platform: Platform) -> None:
    engine = platform.engine
    engine.logins = Logins((), engine.clock, lambda: engine.tokens)
    async with browser(platform) as client:
        for path in ("/login", "/login/corp", "/login/corp/callback"):
            refused(await client.get(path), 404, "not_found")
        assert "Sign in" not in (await client.get("/")).text


@pytest.mark.parametrize(
    ("login", "origin", "words"),
    [
        ("", "http://flow.example.com", "expected a URL with https://"),
        ('client_secret_file = "/nowhere"', ORIGIN, "/nowhere: expected the client's secret"),
        ("session_hours = 48", ORIGIN, "less than or equal to 24"),
    ],
)
async def test_settings_that_cannot_work_stop_the_start(
    platform: Platform, provider: IdentityProvider, tenant: Tenant, tmp_path: Path, login: str, origin: str, words: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        trust(platform, settings(tmp_path, provider, tenant, login, origin))
    assert words in refusal.value.message

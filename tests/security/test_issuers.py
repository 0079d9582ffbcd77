"""Tokens of outside issuers: what is believed, and everything that is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from flow_platform.api.app import create_app
from flow_platform.domain import errors
from flow_platform.domain.clock import ManualClock
from flow_platform.engine import issuers
from flow_platform.engine.issuer_settings import read_issuers
from flow_platform.engine.issuers import Issuers
from flow_platform.engine.service import Engine
from flow_platform.store import open_store
from tests.contract.api.hands import NO_NATS, Builds, Platform, Tenant, refused
from tests.support.identity_provider import RSA_KEY, IdentityProvider, elliptic_key, public_key
from tests.support.two_organizations import new_tenant

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR = timedelta(hours=1)


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    made = IdentityProvider()
    yield made
    made.close()


@pytest_asyncio.fixture(loop_scope="module")
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    engine = Engine(open_store(f"sqlite:///{tmp_path}/flow.db"), NO_NATS, clock=ManualClock())
    await engine.start()
    yield Platform(engine, Builds(), create_app(engine))
    await engine.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def tenant(platform: Platform, provider: IdentityProvider, tmp_path: Path) -> Tenant:
    tenant = await new_tenant(platform)
    platform.engine.issuers = trusted(tmp_path, provider, tenant)
    return tenant


def trusted(folder: Path, provider: IdentityProvider, tenant: Tenant, more: str = "") -> Issuers:
    org_id, workspace_id = tenant.workspace.org_id, tenant.workspace.workspace_id
    path = folder / "issuers.toml"
    path.write_text(
        f"""
        [[issuers]]
        name = "corp"
        issuer = "{provider.issuer}"
        audience = "flow"
        {more}
        [[issuers.rules]]
        claim = "groups"
        value = "admins"
        role = "admin"
        org_id = "{org_id}"
        [[issuers.rules]]
        claim = "groups"
        value = "builders"
        role = "builder"
        org_id = "{org_id}"
        workspace_id = "{workspace_id}"
        [[issuers.rules]]
        claim = "groups"
        value = "own"
        role = "deployer"
        org_id = "{org_id}"
        workspace_id = "{workspace_id}"
        """
    )
    return Issuers(read_issuers(path))


async def ask(platform: Platform, tenant: Tenant, token: str, path: str = "/rings") -> httpx.Response:
    async with platform.client(token) as client:
        return await client.get(f"{tenant.path}{path}")


async def whoami(platform: Platform, token: str) -> dict[str, Any]:
    async with platform.client(token) as client:
        return (await client.get("/api/v1/auth/whoami")).json()


async def test_claims_become_a_role_of_an_organization_or_workspace(
    platform: Platform, tenant: Tenant, provider: IdentityProvider
) -> None:
    token = provider.token(platform.now)
    assert (await ask(platform, tenant, token)).status_code == 200
    refused(await ask(platform, tenant, token, "/api-keys"), 403, "forbidden")
    who = await whoami(platform, token)
    assert (who["subject"], who["role"], who["workspace_id"]) == ("corp/ada", "builder", tenant.workspace.workspace_id)
    admin = provider.token(platform.now, groups=["x", "admins", "builders"])
    assert (await ask(platform, tenant, admin, "/api-keys")).status_code == 200
    assert (await whoami(platform, admin))["workspace_id"] is None
    refused(await ask(platform, tenant, provider.token(platform.now, groups=["strangers"])), 403, "no_role")
    refused(await ask(platform, tenant, provider.token(platform.now, groups=None)), 403, "no_role")
    assert provider.requests == ["/.well-known/openid-configuration", "/keys"], "fetched once, for all"


async def test_another_tenant_is_not_found(platform: Platform, tenant: Tenant, provider: IdentityProvider) -> None:
    stranger = await new_tenant(platform)
    refused(await ask(platform, stranger, provider.token(platform.now, groups=["admins"])), 404, "not_found")


async def test_a_custom_role_by_a_claim(platform: Platform, tenant: Tenant, provider: IdentityProvider) -> None:
    token = provider.token(platform.now, groups="own")
    refused(await ask(platform, tenant, token), 403, "forbidden")
    async with tenant.client() as client:
        await client.put("/roles/deployer", json={"actions": ["read"]})
    assert (await ask(platform, tenant, token)).status_code == 200


async def test_forged_tokens(platform: Platform, tenant: Tenant, provider: IdentityProvider) -> None:
    now, seconds = platform.now, int(platform.now.timestamp())
    good = provider.token(now)
    claims = jwt.decode(good, options={"verify_signature": False})
    pem = RSA_KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    stranger = rsa.generate_private_key(65537, 2048)
    head, body, _ = good.split(".")
    forged = {
        "alg none": jwt.encode(claims, None, algorithm="none", headers={"kid": "one"}),
        "public key as a secret": _hmac(claims, pem),
        "another key": provider.token(now, key=stranger),
        "the stranger's key in the header": provider.token(
            now, key=stranger, header={"jwk": public_key("one", stranger)}
        ),
        "the stranger's address in the header": provider.token(now, key=stranger, header={"jku": provider.issuer}),
        "another kind of key": provider.token(now, key=elliptic_key(), algorithm="ES256"),
        "an algorithm that is not allowed": provider.token(now, algorithm="RS384"),
        "an unknown key": provider.token(now, header={"kid": "../../keys"}),
        "a critical extension": provider.token(now, header={"crit": ["b64"], "b64": False}),
        "wrong audience": provider.token(now, aud="elsewhere"),
        "no audience": provider.token(now, aud=None),
        "wrong issuer": provider.token(now, iss="http://127.0.0.1:1"),
        "no expiry": provider.token(now, exp=None),
        "no time of issue": provider.token(now, iat=None),
        "expiry as text": provider.token(now, exp=str(seconds + 60)),
        "expiry without end": provider.token(now, exp=10**20),
        "not yet": provider.token(now, nbf=seconds + 3600),
        "no subject": provider.token(now, sub=None),
        "a subject that is no text": provider.token(now, sub="a\nb"),
        "no signature": f"{head}.{body}.",
        "a longer body": f"{head}.{body}AAAA.{good.rpartition('.')[2]}",
        "oversize": provider.token(now, padding="x" * issuers.MAX_TOKEN_LENGTH),
    }
    for name, token in forged.items():
        answer = await ask(platform, tenant, token)
        assert answer.status_code == 401, f"{name}: {answer.text}"
        refused(answer, 401, "token_invalid")
    refused(await ask(platform, tenant, provider.token(now, exp=seconds - 1)), 401, "token_expired")
    assert (await ask(platform, tenant, good)).status_code == 200
    assert set(provider.requests) == {"/.well-known/openid-configuration", "/keys"}, "no address of a header is asked"


def _hmac(claims: dict[str, Any], key: bytes) -> str:
    """By hand: the library refuses to sign with a public key."""

    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    signed = part(b'{"alg":"HS256","kid":"one"}') + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(hmac.new(key, signed, hashlib.sha256).digest())).decode()


async def test_a_symmetric_key_of_the_issuer_is_not_taken(
    platform: Platform, tenant: Tenant, provider: IdentityProvider
) -> None:
    provider.publishes({"kty": "oct", "kid": "one", "k": base64.urlsafe_b64encode(b"s" * 32).decode()})
    claims = jwt.decode(provider.token(platform.now), options={"verify_signature": False})
    refused(await ask(platform, tenant, _hmac(claims, b"s" * 32)), 401, "token_invalid")


async def test_a_short_rsa_key_is_not_believed(platform: Platform, tenant: Tenant, provider: IdentityProvider) -> None:
    short = rsa.generate_private_key(65537, 1024)  # noqa: S505 - what is to be refused.
    provider.publishes(public_key("one", short))
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        token = provider.token(platform.now, key=short)
    refused(await ask(platform, tenant, token), 401, "token_invalid")


async def test_a_token_ends_when_it_says_and_when_it_is_revoked(
    platform: Platform, tenant: Tenant, provider: IdentityProvider
) -> None:
    clock = platform.engine.clock
    assert isinstance(clock, ManualClock)
    token, other = provider.token(platform.now), provider.token(platform.now)
    assert (await ask(platform, tenant, token)).status_code == 200
    async with platform.client(token) as client:
        assert (await client.post("/api/v1/auth/revoke", json={})).status_code == 200
    refused(await ask(platform, tenant, token), 401, "token_revoked")
    assert (await ask(platform, tenant, other)).status_code == 200
    clock.advance(HOUR)
    refused(await ask(platform, tenant, other), 401, "token_expired")


async def test_the_issuer_rotates_its_keys(
    platform: Platform, tenant: Tenant, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = provider.token(platform.now)
    assert (await ask(platform, tenant, before)).status_code == 200
    key = elliptic_key()
    provider.publishes(public_key("two", key))
    after = provider.token(platform.now, key=key, algorithm="ES256", header={"kid": "two"})
    refused(await ask(platform, tenant, after), 401, "token_invalid")  # Looked for a moment ago.
    asked = len(provider.requests)
    for number in range(20):
        await ask(platform, tenant, provider.token(platform.now, header={"kid": f"made-up-{number}"}))
    assert len(provider.requests) == asked, "who makes up key ids makes us ask nobody"
    monkeypatch.setattr(issuers, "FETCH_AGAIN_SECONDS", 0.0)
    assert (await ask(platform, tenant, after)).status_code == 200
    refused(await ask(platform, tenant, before), 401, "token_invalid")


@pytest.mark.parametrize(
    "wrong",
    ["gone", "text", "list", "endless", "other issuer", "file", "metadata", "plain http", "redirect", "too many"],
)
async def test_what_cannot_be_keys(platform: Platform, tenant: Tenant, provider: IdentityProvider, wrong: str) -> None:
    match wrong:
        case "gone":
            del provider.documents["/keys"]
        case "text":
            provider.documents["/keys"] = b"<html>"
        case "list":
            provider.documents["/keys"] = b"[]"
        case "endless":
            provider.documents["/keys"] = b"[" * (issuers.MAX_DOCUMENT_BYTES + 1)
        case "other issuer":
            provider.discovers("https://elsewhere.example", f"{provider.issuer}/keys")
        case "file":
            provider.discovers(provider.issuer, "file:///etc/passwd")
        case "metadata":
            provider.discovers(provider.issuer, "http://169.254.169.254/keys")
        case "plain http":
            provider.discovers(provider.issuer, "http://keys.example/keys")
        case "redirect":
            provider.documents["/elsewhere"] = provider.documents["/keys"]
            provider.documents["/keys"] = f"{provider.issuer}/elsewhere".encode()
        case _:
            provider.publishes(*(public_key(str(number), RSA_KEY) for number in range(101)))
    refused(await ask(platform, tenant, provider.token(platform.now)), 401, "issuer_unavailable")
    assert "/elsewhere" not in provider.requests


async def test_keys_from_a_file(platform: Platform, tenant: Tenant, provider: IdentityProvider, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_bytes(provider.documents["/keys"])
    platform.engine.issuers = trusted(tmp_path, provider, tenant, f'jwks_file = "{keys}"')
    assert (await ask(platform, tenant, provider.token(platform.now))).status_code == 200
    assert provider.requests == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("http://127.0.0.1", "http://id.example"), "https://"),
        (('audience = "flow"', 'audience = "flow"\nalgorithms = ["HS256"]'), "expected one of RS256"),
        (('audience = "flow"', 'audience = "flow"\nalgorithms = ["none"]'), "expected one of RS256"),
        (('role = "admin"', 'role = "execution"'), "expected one of"),
        (('role = "admin"', 'role = "root"'), "custom role and its workspace_id"),
        (('audience = "flow"', 'audience = "flow"\nsecret = "x"'), "Extra inputs"),
        (("[[issuers.rules]]", "[[issuers.other]]"), "Field required"),
    ],
)
async def test_settings_that_have_no_meaning(
    tenant: Tenant, provider: IdentityProvider, tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    trusted(tmp_path, provider, tenant)
    path = tmp_path / "issuers.toml"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(errors.SettingsError, match=said):
        read_issuers(path)

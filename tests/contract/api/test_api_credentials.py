"""Who may ask for what: forged, expired and foreign credentials, and those of executions."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flow_platform.domain.principal import Role
from flow_platform.engine.tokens import Tokens, new_signing_key
from tests.contract.api.hands import CODE, Platform, Tenant, refused, submit_body

pytestmark = pytest.mark.asyncio(loop_scope="module")

PUBLIC = {"/healthz", "/readyz", "/metrics", "/.well-known/jwks.json", "/api/v1/auth/refresh"}


def _claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def _unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    return ".".join((part(json.dumps(header).encode()), part(json.dumps(claims).encode()), part(signature)))


async def test_another_tenants_ids_answer_as_unknown_ones(tenant: Tenant, other: Tenant) -> None:
    published = await other.publish()
    execution_id = await other.submit()
    async with other.client() as client:
        deployment = (await client.get("/deployments")).json()["items"][0]["deployment_id"]
    unknown = str(uuid.uuid4())
    paths = {
        "/executions/{}": execution_id,
        "/executions/{}/tree": execution_id,
        "/executions/{}/events": execution_id,
        "/code-blocks/{}": published["id"],
        "/code-blocks/{}/versions": published["id"],
        "/code-blocks/{}/versions/1": published["id"],
        "/deployments/{}": deployment,
    }
    async with tenant.client() as client:
        for path, theirs in paths.items():
            foreign = await client.get(path.format(theirs))
            absent = await client.get(path.format(unknown))
            assert foreign.status_code == absent.status_code == 404
            same = json.loads(json.dumps(refused(foreign, 404, "not_found")).replace(theirs, unknown))
            assert same == refused(absent, 404, "not_found")
        for path, body in (
            (f"/code-blocks/{published['id']}/executions", submit_body()),
            (f"/executions/{execution_id}/cancel", None),
            ("/deployments", {"component_id": published["id"], "ring_id": tenant.rings["dev"]}),
        ):
            refused(await client.post(path, json=body), 404, "not_found")
        await tenant.publish()
        for ring_field in ({"ring_id": other.rings["dev"]}, {"caller_deployment_id": deployment}):
            answer = await client.post("/code-blocks/echo/executions", json=submit_body(**ring_field))
            refused(answer, 404, "not_found")
        for name in ("component_id", "parent_id", "ring_id"):
            for value in (published["id"], execution_id, other.rings["dev"]):
                foreign = await client.get("/executions", params={name: value})
                absent = await client.get("/executions", params={name: unknown})
                if foreign.status_code == 200:
                    assert foreign.json()["items"] == absent.json()["items"] == []
                else:
                    same = json.loads(json.dumps(refused(foreign, 404, "not_found")).replace(value, unknown))
                    assert same == refused(absent, 404, "not_found")
    async with other.client() as client:
        assert (await client.get(f"/executions/{execution_id}")).json()["status"] == "queued"


async def test_an_unknown_workspace_of_ones_own_organization_is_not_found(platform: Platform, tenant: Tenant) -> None:
    now, org_id = platform.now, tenant.workspace.org_id
    wide = platform.engine.tokens.for_user("ada", org_id, None, Role.ADMIN, timedelta(hours=1), now)
    base = f"/api/v1/orgs/{org_id}/workspaces/{uuid.uuid4()}"
    async with platform.client(wide) as client:
        for method, path, body in (
            ("GET", "/rings", None),
            ("POST", "/rings", {"name": "x", "order": 1}),
            ("GET", "/code-blocks", None),
            ("POST", "/code-blocks", {"slug": "x", "code": CODE}),
            ("GET", "/deployments", None),
            ("GET", f"/executions/{uuid.uuid4()}", None),
            ("POST", "/code-blocks/x/executions", submit_body()),
        ):
            refused(await client.request(method, base + path, json=body), 404, "not_found")
        assert (await client.get(tenant.path + "/rings")).status_code == 200


async def test_forged_tokens(platform: Platform, tenant: Tenant) -> None:
    good = tenant.token()
    claims, kid = _claims(good), jwt.get_unverified_header(good)["kid"]
    stranger = Ed25519PrivateKey.generate()
    public = platform.engine.tokens.jwks()["keys"][0]["x"]
    ours = platform.engine.tokens._signing_key
    head, _, signature = good.rpartition(".")

    def signed(changes: dict[str, Any], key: Any = ours, **header: Any) -> str:
        changed = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(changed, key, algorithm="EdDSA", headers={"kid": kid, **header})

    forged = {
        "alg none": _unsigned({"alg": "none", "kid": kid}, claims),
        "alg None in capitals": _unsigned({"alg": "NONE", "kid": kid}, claims),
        "public key as HMAC secret": jwt.encode(claims, public, algorithm="HS256", headers={"kid": kid}),
        "another key": signed({}, stranger),
        "unknown kid": signed({}, kid="other"),
        "kid that is no text": _unsigned({"alg": "EdDSA", "kid": {"a": 1}}, claims, b"x" * 64),
        "header names a key": signed({}, stranger, jwk={"kty": "OKP", "crv": "Ed25519", "x": public}),
        "header names a url": signed({}, jku="http://127.0.0.1/keys"),
        "critical extension": signed({}, crit=["b64"], b64=False),
        "changed claims": f"{_unsigned({'alg': 'EdDSA', 'kid': kid}, claims | {'role': 'viewer'})[:-1]}.{signature}",
        "changed signature": f"{head}.{'A' * len(signature)}",
        "no signature": head + ".",
        "wrong audience": signed({"aud": "elsewhere"}),
        "no audience": signed({"aud": None}),
        "wrong issuer": signed({"iss": "someone"}),
        "no expiry": signed({"exp": None}),
        "expiry as text": signed({"exp": str(claims["exp"])}),
        "expiry far beyond": signed({"exp": 10**18}),
        "no id": signed({"jti": None}),
        "not yet": signed({"nbf": claims["nbf"] + 3600}),
        "unknown role": signed({"role": "root"}),
        "execution without its claims": signed({"role": "execution"}),
        "org is no text": signed({"org": ["*"]}),
        "text": "nonsense",
        "three dots": "a.b.c",
        "endless": "a" * 10_000,
    }
    async with platform.client() as client:
        for name, token in forged.items():
            answer = await client.get(f"{tenant.path}/rings", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 401, name
            refused(answer, 401, "token_invalid")
        assert (
            await client.get(f"{tenant.path}/rings", headers={"Authorization": f"bearer {signed({})}"})
        ).status_code == 200


async def test_expired_tokens_and_other_schemes(platform: Platform, tenant: Tenant) -> None:
    expired = tenant.token(ttl=timedelta(minutes=1), ago=timedelta(minutes=2))
    async with platform.client() as client:

        async def ask(**headers: str) -> httpx.Response:
            return await client.get(
                f"{tenant.path}/rings", headers={n.replace("_", "-"): v for n, v in headers.items()}
            )

        refused(await ask(authorization=f"Bearer {expired}"), 401, "token_expired")
        refused(await ask(authorization="Bearer "), 401, "unauthenticated")
        refused(await ask(authorization="Basic YTpi"), 401, "unauthenticated")
        # An API key wins over a token; there are none yet.
        both = await ask(authorization=f"Bearer {tenant.token()}", x_api_key="fl_abc")
        refused(both, 401, "api_key_invalid")


async def test_a_container_reaches_its_own_descendants_and_nothing_else(tenant: Tenant) -> None:
    assignment = await tenant.running()
    await tenant.publish("code-blocks", "child")
    neighbour = await tenant.submit("code-blocks", "child")
    async with tenant.as_execution(assignment) as client:
        handle = await client.post("/code-blocks/child/executions", json=submit_body())
        assert handle.status_code == 202
        child = handle.json()["execution_id"]
        assert handle.json()["ring_id"] == tenant.rings["dev"]
        for own in (child, assignment.execution_id):
            assert (await client.get(f"/executions/{own}")).status_code == 200
        own_ring = await client.post("/code-blocks/child/executions", json=submit_body(ring_id=tenant.rings["dev"]))
        assert own_ring.status_code == 202
        for path in ("/executions/{}", "/executions/{}/tree", "/executions/{}/events"):
            theirs = refused(await client.get(path.format(neighbour)), 404, "not_found")
            unknown = str(uuid.uuid4())
            nobodys = refused(await client.get(path.format(unknown)), 404, "not_found")
            assert json.dumps(theirs).replace(neighbour, unknown) == json.dumps(nobodys)
        refused(await client.post(f"/executions/{neighbour}/cancel"), 404, "not_found")
        other_ring = submit_body(ring_id=tenant.rings["production"])
        refused(await client.post("/code-blocks/child/executions", json=other_ring), 403, "other_ring")
        assert (await client.post(f"/executions/{child}/cancel")).json()["status"] == "cancelled"


async def test_who_am_i_names_what_a_token_reaches(platform: Platform, tenant: Tenant, other: Tenant) -> None:
    org_id, workspace = tenant.workspace.org_id, {"id": tenant.workspace.workspace_id, "name": tenant.workspace.name}
    for role in (Role.ADMIN, Role.BUILDER, Role.RUNNER, Role.VIEWER):
        async with platform.client(tenant.token(role)) as client:
            answer = await client.get("/api/v1/auth/whoami")
        assert answer.status_code == 200
        assert {name: value for name, value in answer.json().items() if name != "expires_at"} == {
            "subject": "ada",
            "role": role.value,
            "org_id": org_id,
            "workspace_id": workspace["id"],
            "workspaces": [workspace],
        }
    wide = platform.engine.tokens.for_user("ada", org_id, None, Role.ADMIN, timedelta(hours=1), platform.now)
    gone = platform.engine.tokens.for_user("ada", org_id, "gone", Role.ADMIN, timedelta(hours=1), platform.now)
    foreign = other.workspace.workspace_id
    crossed = platform.engine.tokens.for_user("ada", org_id, foreign, Role.ADMIN, timedelta(hours=1), platform.now)
    for token, workspace_id, workspaces in (
        (wide, None, [workspace]),
        (gone, "gone", []),
        (crossed, foreign, []),
    ):
        async with platform.client(token) as client:
            document = (await client.get("/api/v1/auth/whoami")).json()
        assert (document["workspace_id"], document["workspaces"]) == (workspace_id, workspaces)


async def test_the_page_at_the_root_is_public_and_inert(platform: Platform) -> None:
    async with platform.client() as client:
        answer = await client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    style = re.search(r"<style>(.*?)</style>", answer.text)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy["style-src"] == f"'sha256-{digest}'"
    assert "<script" not in answer.text
    assert "://" not in answer.text, "nothing comes from elsewhere"
    async with platform.client() as client:
        for target in re.findall(r'href="([^"]+)"', answer.text):
            assert (await client.get(target)).status_code in (200, 503), target


async def test_a_token_dies_with_its_attempt(tenant: Tenant) -> None:
    assignment = await tenant.running()
    await tenant.publish("code-blocks", "child")
    await tenant.platform.finish(assignment, 1)
    async with tenant.as_execution(assignment) as client:
        path = f"/executions/{assignment.execution_id}"
        refused(await client.get(path), 401, "token_revoked")
        refused(await client.post(f"{path}/cancel"), 401, "token_revoked")
        refused(await client.post("/code-blocks/child/executions", json=submit_body()), 409, "parent_ended")
        refused(await client.post("http://flow.test/api/v1/auth/refresh"), 401, "token_revoked")


async def test_a_container_gets_a_newer_token_in_time(platform: Platform, tenant: Tenant) -> None:
    assignment = await tenant.running()
    execution = await platform.engine.store.read(lambda tx: tx.executions.find(assignment.execution_id))
    assert execution is not None
    path = f"{tenant.path}/executions/{assignment.execution_id}"
    # Its deadline is five minutes away: half of the token's life is over after 165 seconds.
    old = platform.engine.tokens.for_execution(execution, platform.now - timedelta(seconds=200))
    async with platform.client(assignment.token) as client:
        assert "x-auth-token" not in (await client.get(path)).headers
    async with platform.client(tenant.token(ttl=timedelta(hours=1), ago=timedelta(minutes=50))) as client:
        assert "x-auth-token" not in (await client.get(path)).headers
    long_lived = execution.__class__(**{**vars(execution), "deadline_at": platform.now + timedelta(hours=5)})
    old = platform.engine.tokens.for_execution(long_lived, platform.now - timedelta(minutes=8))
    async with platform.client(old) as client:
        newer = (await client.get(path)).headers["x-auth-token"]
    assert _claims(newer)["exp"] > _claims(old)["exp"]
    assert {n: _claims(newer)[n] for n in ("exe", "epoch", "ring", "org")} == {
        n: _claims(old)[n] for n in ("exe", "epoch", "ring", "org")
    }
    async with platform.client(newer) as client:
        assert (await client.get(path)).status_code == 200
    await platform.finish(assignment, 1)
    async with platform.client(old) as client:
        refused(await client.get(path), 401, "token_revoked")


async def test_refreshing(platform: Platform, tenant: Tenant) -> None:
    assignment = await tenant.running()
    execution = await platform.engine.store.read(lambda tx: tx.executions.find(assignment.execution_id))
    assert execution is not None
    long_lived = execution.__class__(**{**vars(execution), "deadline_at": platform.now + timedelta(hours=5)})
    tokens, now = platform.engine.tokens, platform.now

    async def refresh(token: str) -> httpx.Response:
        async with platform.client(token) as client:
            return await client.post("/api/v1/auth/refresh")

    expired = tokens.for_execution(long_lived, now - timedelta(minutes=20))
    async with platform.client(expired) as client:
        refused(await client.get(f"{tenant.path}/executions/{assignment.execution_id}"), 401, "token_expired")
    answer = await refresh(expired)
    assert answer.status_code == 200
    newer = answer.json()["token"]
    assert answer.headers["x-auth-token"] == newer
    async with platform.client(newer) as client:
        assert (await client.get(f"{tenant.path}/executions/{assignment.execution_id}")).status_code == 200
    assert (await refresh(assignment.token)).status_code == 200
    refused(await refresh(tokens.for_execution(long_lived, now - timedelta(minutes=31))), 401, "token_expired")
    refused(await refresh(tenant.token()), 403, "forbidden")
    refused(await refresh(tenant.token(ttl=timedelta(minutes=1), ago=timedelta(minutes=2))), 401, "token_expired")
    refused(await refresh("nonsense"), 401, "token_invalid")
    async with platform.client() as client:
        refused(await client.post("/api/v1/auth/refresh"), 401, "unauthenticated")
    # An earlier attempt's token is nobody's.
    earlier = execution.__class__(**{**vars(long_lived), "lease_epoch": execution.lease_epoch - 1})
    refused(await refresh(tokens.for_execution(earlier, now)), 401, "token_revoked")


async def test_admins_make_tokens_that_reach_no_further_than_theirs(
    platform: Platform, tenant: Tenant, other: Tenant
) -> None:
    async with platform.client(tenant.token()) as client:

        async def make(**body: Any) -> httpx.Response:
            return await client.post("/api/v1/auth/token", json=body)

        made = await make(role="viewer", ttl_seconds=60, subject="dashboard")
        assert made.status_code == 201
        claims = _claims(made.json()["token"])
        assert (claims["role"], claims["sub"]) == ("viewer", "dashboard")
        assert (claims["org"], claims["ws"]) == (tenant.workspace.org_id, tenant.workspace.workspace_id)
        assert claims["exp"] - claims["iat"] in (60, 61)
        for wrong in ({"role": "execution"}, {"role": "root"}, {"ttl_seconds": 0}, {"ttl_seconds": 10**9}, {"x": 1}):
            refused(await make(**wrong), 422, "invalid_input")
        refused(await make(org_id=other.workspace.org_id), 404, "not_found")
        refused(await make(workspace_id=other.workspace.workspace_id), 404, "not_found")
    async with platform.client(made.json()["token"]) as client:
        assert (await client.get(f"{tenant.path}/rings")).status_code == 200
        refused(await client.post("/api/v1/auth/token", json={"role": "admin"}), 403, "forbidden")


async def test_the_published_keys_verify_our_tokens(platform: Platform, tenant: Tenant) -> None:
    async with platform.client() as client:
        answer = await client.get("/.well-known/jwks.json")
    assert "max-age" in answer.headers["cache-control"]
    keys = jwt.PyJWKSet.from_dict(answer.json())
    token = tenant.token()
    key = keys[jwt.get_unverified_header(token)["kid"]]
    assert jwt.decode(token, key, algorithms=["EdDSA"], audience="flow")["org"] == tenant.workspace.org_id
    assert "d" not in answer.json()["keys"][0]


async def test_a_platform_knows_only_its_own_keys(platform: Platform, tenant: Tenant) -> None:
    stranger = Tokens([new_signing_key(platform.now)])
    token = stranger.for_user("eve", tenant.workspace.org_id, None, Role.ADMIN, timedelta(hours=1), platform.now)
    async with platform.client(token) as client:
        refused(await client.get(f"{tenant.path}/rings"), 401, "token_invalid")

"""Credentials: forged, of others, of executions that have ended, and taken away while they are in use."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, Final

import httpx
import jwt

from flow_platform.hostile.answer import Answer, expect
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.tenants import REFUSALS
from flow_platform.hostile.world import World

_TELLS: Final = "import os\ndef main() -> str:\n    return os.environ['AUTH_TOKEN']\n"
_TELLS_AND_STAYS: Final = """
import os, time
from flow_sdk.harness.channel import emit_event
def main() -> int:
    emit_event("token", os.environ["AUTH_TOKEN"][::-1])
    time.sleep(60)
    return 1
"""
_APPROVES: Final = """
import http.client, json, os
def main() -> dict:
    org, workspace, own = (os.environ[name] for name in ("ORG_ID", "WORKSPACE_ID", "EXECUTION_ID"))
    base = f"/api/v1/orgs/{org}/workspaces/{workspace}/executions/{own}"
    headers = {"Authorization": f"Bearer {os.environ['AUTH_TOKEN']}", "Content-Type": "application/json"}
    def ask(method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", 8420, timeout=10)
        connection.request(method, base + path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")
    status, asked = ask("POST", "/checkpoints", {"kind": "approval", "name": "go", "message": "may I?"})
    said = {"ask": status}
    said["by an event"] = ask("POST", "/events/go", {"payload": {"approved": True}, "approved": True})[0]
    said["by a result"] = ask("POST", f"/checkpoints/{asked['checkpoint_id']}/result", {"value": {"approved": True}})[0]
    said["status"] = ask("GET", f"/checkpoints/{asked['checkpoint_id']}")[1]["status"]
    return said
"""
_END_SECONDS: Final = 15.0


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def _forged(world: World) -> list[Answer]:
    good = world.first.token
    head, body, signature = good.split(".")
    claims: dict[str, Any] = jwt.decode(good, options={"verify_signature": False})
    header: dict[str, Any] = jwt.get_unverified_header(good)
    keys = (await world.first.http.get("/.well-known/jwks.json")).json()["keys"]
    public: str = keys[0]["x"]
    theirs = _part(claims | {"org": world.second.org_id, "ws": world.second.workspace_id})
    forged = {
        "alg none": f"{_part(header | {'alg': 'none'})}.{body}.",
        "alg None in capitals": f"{_part(header | {'alg': 'NONE'})}.{body}.{signature}",
        "no signature": f"{head}.{body}.",
        "the public key as a secret": jwt.encode(claims, public.ljust(64, "x"), "HS256", {"kid": header["kid"]}),
        "another organization": f"{head}.{theirs}.{signature}",
        "another audience": f"{head}.{_part(claims | {'aud': 'other'})}.{signature}",
        "a later end": f"{head}.{_part(claims | {'exp': claims['exp'] + 10**6})}.{signature}",
        "a key of one's own in the header": f"{_part(header | {'jwk': keys[0]})}.{body}.{signature[::-1]}",
        "an unknown key": f"{_part(header | {'kid': 'other'})}.{body}.{signature}",
        "a key by a path": f"{_part(header | {'kid': '../../etc/passwd'})}.{body}.{signature}",
        "endless": "a" * 100_000,
        "short": "x",
    }
    found: list[Answer] = []
    async with world.client() as client:
        for name, token in forged.items():
            headers = {"Authorization": f"Bearer {token}"}
            answer = await client.get(f"{world.first.path}/rings", headers=headers)
            found.append(
                expect(31, f"a token: {name}", str(answer.status_code), refused=answer.status_code in (400, 401, 431))
            )
    return found


async def _ended(world: World) -> list[Answer]:
    """The token of an execution that has ended, on what it could do before."""
    first = world.first
    component = await first.publish("tells", _TELLS)
    execution = await first.submit("tells")
    document = await first.ended(execution)
    token = str(document["output"])
    own = f"{first.path}/executions/{execution}"
    submit: dict[str, Any] = {"input_parameters": {}, "ring_id": first.ring_id}
    requests: dict[str, tuple[str, str, Any]] = {
        "read itself": ("GET", own, None),
        "read its events": ("GET", f"{own}/events", None),
        "start another": ("POST", f"{first.path}/code-blocks/{component}/executions", submit),
        "ask for a checkpoint": ("POST", f"{own}/checkpoints", {"kind": "event", "name": "x"}),
        "call a model": (
            "POST",
            "/api/v1/gateway/chat/completions",
            {"model": "test/echo", "messages": [{"role": "user", "content": "x"}]},
        ),
        "be renewed": ("POST", "/api/v1/auth/refresh", {}),
        "become an administrator": ("POST", "/api/v1/auth/token", {"role": "admin"}),
    }
    found: list[Answer] = []
    async with world.client(token) as client:
        for name, (method, path, body) in requests.items():
            answer = await client.request(method, path, json=body)
            refused = answer.status_code in REFUSALS or answer.status_code == 409
            found.append(expect(31, f"an ended execution's token: {name}", str(answer.status_code), refused=refused))
    inside = await first.run_inside("calls", {"requests": {"itself": ["GET", own, None, token]}})
    status = inside["itself"][0]
    return [*found, expect(31, "an ended execution's token, from another", str(status), refused=status in REFUSALS)]


async def _held(world: World) -> list[Answer]:
    """A stream that an execution's token holds open ends with the execution; so do its further requests."""
    first = world.first
    await first.publish("stays", _TELLS_AND_STAYS)
    execution = await first.submit("stays")
    own = f"{first.path}/executions/{execution}"
    token = await _told_token(first.http, own)
    async with world.client(token) as thief, thief.stream("GET", f"{own}/events") as stream:
        if stream.status_code != 200:
            raise RuntimeError(f"the token of a running execution was refused: {stream.status_code}")
        reading = asyncio.ensure_future(_read_all(stream))
        await first.http.post(f"{own}/cancel")
        await first.ended(execution)
        done, _ = await asyncio.wait({reading}, timeout=_END_SECONDS)
        reading.cancel()
        later = await thief.get(own)
    return [
        expect(34, "a stream after the execution ended", "closed" if done else "OK still open", refused=bool(done)),
        expect(
            34, "a request after the execution ended", str(later.status_code), refused=later.status_code in REFUSALS
        ),
    ]


async def _told_token(http: httpx.AsyncClient, own: str) -> str:
    async with http.stream("GET", f"{own}/events") as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data:") and '"token"' in line:
                return str(json.loads(line.removeprefix("data:"))["event_data"])[::-1]
    raise RuntimeError("the execution said nothing")


async def _read_all(stream: httpx.Response) -> None:
    try:
        async for _ in stream.aiter_raw():
            pass
    except httpx.HTTPError:
        return


async def _revoked(world: World) -> list[Answer]:
    """An API key that is revoked while it is in use."""
    first = world.first
    made = await first.http.post(f"{first.path}/api-keys", json={"name": "hostile", "role": "viewer"})
    key: dict[str, Any] = made.json()
    headers = {"X-API-Key": key["key"]}
    async with world.client() as client:
        before = await client.get(f"{first.path}/executions", headers=headers)
        await first.http.delete(f"{first.path}/api-keys/{key['id']}")
        after = await client.get(f"{first.path}/executions", headers=headers)
    refused = before.status_code == 200 and after.status_code == 401
    return [expect(34, "a revoked API key", f"{before.status_code}, then {after.status_code}", refused=refused)]


async def _approvals(world: World) -> list[Answer]:
    """An execution that asks for an approval and answers it itself; and a stranger who guesses it."""
    first = world.first
    await first.publish("approves", _APPROVES, kind="workflows")
    execution = await first.submit("approves", kind="workflows")
    said: dict[str, Any] = (await first.ended(execution))["output"]
    own = f"{first.path}/executions/{execution}/events/go"
    stranger = await world.second.http.post(own, json={"payload": {"approved": True}})
    return [
        expect(45, "approve oneself by an event", str(said["by an event"]), refused=said["by an event"] >= 400),
        expect(45, "approve oneself by a result", str(said["by a result"]), refused=said["by a result"] >= 400),
        expect(
            45, "be approved after that", str(said["status"]), refused=said["ask"] == 200 and said["status"] == "open"
        ),
        expect(45, "approve another organization's", str(stranger.status_code), refused=stranger.status_code == 404),
    ]


ATTEMPTS: Final = (
    Attempt("forged tokens", (31,), _forged),
    Attempt("tokens of ended executions", (31,), _ended),
    Attempt("rights that end while in use", (34,), _held),
    Attempt("a revoked key", (34,), _revoked),
    Attempt("approvals", (45,), _approvals),
)

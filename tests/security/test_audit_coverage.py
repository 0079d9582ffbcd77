"""Whatever the route: changes and refusals are entered, and what changed nothing is not. From the route table."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

import pytest
import pytest_asyncio
from starlette.requests import Request
from starlette.responses import Response

from flow_platform.api.app import create_app
from flow_platform.api.audit_scope import RECORDED_ELSEWHERE
from flow_platform.domain import audit
from flow_platform.domain.audit import AuditEntry
from flow_platform.domain.rate_limit import RateLimit
from flow_platform.engine import refusals
from flow_platform.engine.service import Engine
from tests.contract.api.serving import serving
from tests.security.test_authorisation import ask, nobodys, theirs_of
from tests.support.authorisation import WORKSPACE, Row, read_table
from tests.support.two_organizations import World, two_organizations

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS: Final = read_table()
OF_SERVICES: Final = "/api/v1/orgs/{org_id}/services/"
REFRESH: Final = "POST /api/v1/auth/refresh"
"""Checks its token itself: whose it is, is known where it is valid."""

CANARY: Final = "canary-7f3a9c"


def changes() -> dict[str, Row]:
    """The routes whose use is an entry."""
    return {
        name: row
        for name, row in ROWS.items()
        if row.method not in ("GET", "HEAD")
        and name not in RECORDED_ELSEWHERE
        and not row.path.startswith(OF_SERVICES)
        and "execution" not in row.may[:1]
        and not row.is_public  # Signing out: `test_login`.
    }


def shown(name: str) -> str:
    """An action, as entries have it."""
    return name.replace(WORKSPACE, "W")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with two_organizations(tmp_path_factory.mktemp("two")) as made:
        yield made


async def log(engine: Engine, org_id: str) -> list[AuditEntry]:
    await engine.audit.refusals.flush()
    return await engine.store.read(lambda tx: tx.audit.after(org_id, 0, 100_000))


async def documents_since(world: World, sequence: int, org_id: str | None = None) -> list[dict[str, Any]]:
    entries = await log(world.platform.engine, org_id or world.own.workspace.org_id)
    return [entry.document for entry in entries if entry.sequence > sequence]


async def head(world: World, org_id: str | None = None) -> int:
    entries = await log(world.platform.engine, org_id or world.own.workspace.org_id)
    return entries[-1].sequence if entries else 0


@pytest_asyncio.fixture(loop_scope="module")
async def hollow(world: World) -> AsyncIterator[str]:
    """The same routes, access and onion, whose endpoints only read their body and write something."""
    engine = world.platform.engine
    app: Any = create_app(engine)

    async def endpoint(request: Request) -> Response:
        await request.body()
        await engine.store.write(lambda tx: tx.credentials.forget_revocations(engine.clock.now()))
        return Response(status_code=204)

    for _, methods in app._router._paths:
        for method, route in methods.items():
            methods[method] = dataclasses.replace(route, endpoint=endpoint)
    async with serving(app) as base_url:
        yield base_url


async def test_each_route_that_changes_something_writes_one_entry(world: World, hollow: str) -> None:
    wrong: list[str] = []
    org_id, workspace_id = world.own.workspace.org_id, world.own.workspace.workspace_id
    async with world.client() as client:
        for name, row in changes().items():
            before = await head(world)
            ids = nobodys()
            sent = row.request(org_id, workspace_id, ids, ids["component"])
            sent["url"] = hollow + sent["url"]
            answer = await ask(client, world, "admin", sent)
            if answer.status_code == 403:  # For administrators of the whole organization.
                answer = await ask(client, world, "wide admin", sent)
            found = [entry for entry in await documents_since(world, before) if entry["kind"] == "change"]
            if answer.status_code != 204 or [entry["action"] for entry in found] != [shown(name)]:
                wrong.append(f"{name}: {answer.status_code} {answer.text[:100]}: {[one['action'] for one in found]}")
                continue
            entry = found[0]
            assert entry["from"]["address"] == "127.0.0.1"
            assert entry["who"]["credential"].startswith("token:")
            assert entry["who"]["role"] == "admin"
            if row.names_a_workspace:
                assert entry["workspace_id"] == workspace_id
    assert len(changes()) > 45
    assert not wrong, "\n".join(wrong)


async def test_what_is_its_own_record_is_named_and_writes_none(world: World, hollow: str) -> None:
    before = await head(world)
    ids = nobodys()
    async with world.client() as client:
        for name, row in ROWS.items():
            if row.method in ("GET", "HEAD") or name in changes():
                continue
            sent = row.request(world.own.workspace.org_id, world.own.workspace.workspace_id, ids, ids["component"])
            sent["url"] = hollow + sent["url"]
            await ask(client, world, "admin", sent)
    assert [one["action"] for one in await documents_since(world, before) if one["kind"] == "change"] == []
    assert not RECORDED_ELSEWHERE - set(ROWS), "routes that do not exist"


async def test_a_request_that_failed_is_no_change(world: World) -> None:
    """The rows of the table name things that nobody has, so that nearly all are refused or find nothing."""
    wrong: list[str] = []
    org_id, workspace_id = world.own.workspace.org_id, world.own.workspace.workspace_id
    async with world.client() as client:
        for name, row in changes().items():
            before = await head(world)
            ids = nobodys()
            answer = await ask(client, world, "admin", row.request(org_id, workspace_id, ids, ids["component"]))
            found = [one for one in await documents_since(world, before) if one["kind"] == "change"]
            if len(found) != (1 if answer.is_success else 0):
                wrong.append(f"{name}: {answer.status_code}: {[one['action'] for one in found]}")
    assert not wrong, "\n".join(wrong)


async def test_each_refusal_of_each_route_is_entered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody (401), who may not (403), and another tenant's (404), in the log of who asked."""
    monkeypatch.setattr(refusals, "ENTRIES", RateLimit(count=10_000, period=timedelta(hours=1), burst=10_000))
    engine, own, stranger = world.platform.engine, world.own.workspace, world.stranger.workspace
    engine.audit.refusals._buckets.clear()
    begun = {org_id: await head(world, org_id) for org_id in (own.org_id, engine.workspace.org_id)}
    expected: dict[str, set[tuple[str, int]]] = defaultdict(set)
    ids, theirs = nobodys(), theirs_of(world, "stranger")
    async with world.client() as client:
        for name, row in ROWS.items():
            if row.is_public:
                continue
            mine = row.request(own.org_id, own.workspace_id, ids, ids["component"])
            other = row.request(stranger.org_id, stranger.workspace_id, theirs, theirs["component"])
            for credential, sent in (("none", mine), ("viewer", mine), ("execution", mine), ("admin", other)):
                if credential == "admin" and "{org_id}" not in row.path:
                    continue
                answer = await ask(client, world, credential, sent)
                in_body = answer.status_code == 404 and credential != "admin"
                if answer.status_code in (401, 403, 404) and not in_body:
                    is_nobody = credential == "none" or name == REFRESH
                    org_id = engine.workspace.org_id if is_nobody else own.org_id
                    expected[org_id].add((shown(name), answer.status_code))
    for org_id, wanted in expected.items():
        found = await documents_since(world, begun[org_id], org_id)
        entered = {(one["action"], one["status"]) for one in found if one["kind"] == "refusal"}
        assert sorted(wanted - entered) == []
    assert len(expected[engine.workspace.org_id]) > 120
    assert {status for _, status in expected[own.org_id]} >= {403, 404}
    assert len(expected[own.org_id]) > 150
    assert not [one for one in await log(engine, stranger.org_id) if one.document["kind"] == "refusal"]


async def test_no_value_that_a_body_brings_is_shown_where_it_may_be_secret(world: World, hollow: str) -> None:
    """Each string of each body that the API describes, under each name that it has there."""
    paths = await world.platform.described()
    engine = world.platform.engine
    names: set[str] = set()

    def gather(schema: Any) -> None:
        if isinstance(schema, dict):
            names.update(schema.get("properties", {}))
            for each in schema.values():
                gather(each)
        elif isinstance(schema, list):
            for each in schema:
                gather(each)

    async with world.platform.client() as client:
        gather((await client.get("/api/v1/openapi.json")).json()["components"])
    assert paths
    secretive = [name for name in sorted(names - audit._PLAIN) if re.search("secret|password|token|key$|^value$", name)]
    assert secretive
    before = await head(world)
    path = f"{hollow}/api/v1/orgs/{world.own.workspace.org_id}/workspaces/{world.own.workspace.workspace_id}/schedules"
    body = dict.fromkeys(secretive, CANARY) | {
        "deep": {"list": [{"db_password": CANARY, "Authorization": CANARY, "X-API-Key": CANARY}]},
        "url": f"postgres://user:{CANARY}@db/x",
        "note": f"Bearer {CANARY}",
        "plain": "visible",
        "token_of_ours": engine.tokens.jwks(),
    }
    async with world.client() as client:
        answer = await client.post(path, json=body, headers=world.headers["admin"])
        assert answer.status_code == 204, answer.text
    (entry,) = await documents_since(world, before)
    assert CANARY not in json.dumps(entry)
    assert entry["request"]["plain"] == "visible"

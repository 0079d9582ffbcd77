"""Every route of the API, as everybody, in one's own workspace and in others': what `authorisation.toml` says."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
import pytest_asyncio

from flow_platform.store.query import Query
from flow_platform.store.sqlite import SqliteConnection
from tests.support.authorisation import IDS, PATH, document, read_table
from tests.support.two_organizations import World, two_organizations

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS = read_table()
DOCUMENTATION = PATH.parents[2] / "docs" / "authorisation.md"
STRANGERS = ("admin", "key runner", "wide admin", "execution", "none")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with two_organizations(tmp_path_factory.mktemp("two")) as made:
        yield made


def nobodys() -> dict[str, str]:
    return {name: str(uuid.uuid4()) for name in IDS}


async def ask(client: httpx.AsyncClient, world: World, credential: str, request: Mapping[str, Any]) -> httpx.Response:
    return await client.request(**request, headers=world.headers[credential])


def masked(answer: httpx.Response, ids: Mapping[str, str]) -> tuple[int, str]:
    """What an answer says besides the ids that were asked with, and its own."""
    text = answer.text.replace(answer.headers["x-request-id"], "REQUEST")
    for value in ids.values():
        text = text.replace(value, "ID")
    return answer.status_code, text


async def test_every_route_has_a_row(world: World) -> None:
    paths = await world.platform.described()
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert not routes - set(ROWS), "routes without a row in tests/security/authorisation.toml"
    assert not set(ROWS) - routes, "rows without a route"


async def test_the_documentation_says_the_same() -> None:
    assert DOCUMENTATION.read_text() == document(), "run: python -m tests.support.authorisation"


async def test_in_ones_own_workspace(world: World) -> None:
    wrong: list[str] = []
    org_id, workspace_id = world.own.workspace.org_id, world.own.workspace.workspace_id
    async with world.client() as client:
        for name, row in ROWS.items():
            for credential in world.headers:
                ids = nobodys()
                request = row.request(org_id, workspace_id, ids, ids["component"])
                answer = await ask(client, world, credential, request)
                if not row.allows(credential, answer.status_code):
                    wrong.append(f"{name} as {credential}: {row.expected(credential)} expected: {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("whose", ["sibling", "stranger"])
async def test_in_the_workspace_of_others(world: World, whose: str) -> None:
    """Not found, for everybody who has a credential, and exactly as in a workspace that does not exist."""
    wrong: list[str] = []
    there = getattr(world, whose).workspace
    theirs, unknown = theirs_of(world, whose), nobodys()
    nowhere = (there.org_id if whose == "sibling" else str(uuid.uuid4()), str(uuid.uuid4()))
    async with world.client() as client:
        for name, row in ROWS.items():
            if "{org_id}" not in row.path or (whose == "sibling" and not row.names_a_workspace):
                continue
            for credential in STRANGERS:
                if whose == "sibling" and credential.startswith("wide "):
                    continue  # It is one's own workspace then.
                component = world.theirs[whose].components[row.kind or "code-blocks"]
                sent = row.request(there.org_id, there.workspace_id, theirs, component)
                answer = await ask(client, world, credential, sent)
                absent = await ask(client, world, credential, row.request(*nowhere, unknown, unknown["component"]))
                expected = 401 if credential == "none" else 404
                if answer.status_code != expected or masked(answer, {}) != masked(absent, {}):
                    wrong.append(f"{name} as {credential}: {answer.text[:200]} / {absent.text[:200]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("whose", ["sibling", "stranger"])
@pytest.mark.parametrize("credential", ["admin", "execution"])
async def test_ids_of_others_are_answered_as_unknown_ones(
    world: World, whose: str, credential: str, statements: Statements
) -> None:
    """With the same status and body, and after the same statements: nothing takes longer because it exists."""
    wrong: list[str] = []
    org_id, workspace_id = world.own.workspace.org_id, world.own.workspace.workspace_id
    async with world.client() as client:
        for name, row in ROWS.items():
            if not row.has_ids or credential not in row.may:
                continue
            said: list[Any] = []
            component = world.theirs[whose].components[row.kind or "code-blocks"]
            for ids in (nobodys(), {**theirs_of(world, whose), "component": component}):
                statements.of = set(ids.values())
                statements.names.clear()
                answer = await ask(client, world, credential, row.request(org_id, workspace_id, ids, ids["component"]))
                said.append((masked(answer, ids), tuple(statements.names)))
            if said[0] != said[1]:
                wrong.append(f"{name} as {credential}: {said[0]} / {said[1]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("whose", ["sibling", "stranger"])
async def test_a_header_reaches_no_other_workspace(world: World, whose: str) -> None:
    """The model gateway takes the workspace of a wide token from a header."""
    request = {"method": "GET", "url": "/api/v1/gateway/models"}
    there = getattr(world, whose).workspace.workspace_id
    said = []
    async with world.client() as client:
        for credential in ("admin", "execution", "key runner") if whose == "sibling" else ("admin", "wide admin"):
            for workspace_id in (there, str(uuid.uuid4())):
                headers = {**world.headers[credential], "X-Flow-Workspace": workspace_id}
                said.append(masked(await client.request(**request, headers=headers), {"workspace": workspace_id}))
    assert {status for status, _ in said} == {404}
    assert len(set(said)) == 1


async def test_what_was_tried_changed_nothing(world: World) -> None:
    """The things of the others are as they were."""
    for whose in ("sibling", "stranger"):
        tenant, theirs = getattr(world, whose), theirs_of(world, whose)
        async with tenant.client() as client:
            assert (await client.get(f"/executions/{theirs['execution']}")).json()["status"] == "running"
            assert (await client.get(f"/schedules/{theirs['schedule']}")).json()["paused"] is False
            assert (await client.get(f"/deployments/{theirs['deployment']}")).json()["state"] == "active"
            assert theirs["key"] in [key["id"] for key in (await client.get("/api-keys")).json()["items"]]
            assert [one["concurrency"] for one in (await client.get("/policies")).json()["items"]] == [5]
            assert {ring["order"] for ring in (await client.get("/rings")).json()["items"]} == {10, 20, 30}


def theirs_of(world: World, whose: str) -> dict[str, str]:
    return nobodys() | world.theirs[whose].ids


class Statements:
    """The statements that a request had run which name one of its ids."""

    def __init__(self) -> None:
        self.of: set[str] = set()
        self.names: list[str] = []


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    seen = Statements()
    run = SqliteConnection._execute

    def counted(connection: SqliteConnection, query: Query, parameters: Mapping[str, Any]) -> Any:
        if seen.of & {value for value in parameters.values() if isinstance(value, str)}:
            seen.names.append(query.name)
        return run(connection, query, parameters)

    monkeypatch.setattr(SqliteConnection, "_execute", counted)
    return seen

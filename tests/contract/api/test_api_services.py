"""Services over HTTP: drafts, publishing them, and what there is to read of a version."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from flow_platform.domain.principal import Role
from flow_platform.domain.service import checksum
from tests.contract.api.hands import Tenant, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORDER = {
    "type": "object",
    "properties": {"order_id": {"type": "integer"}, "note": {"$ref": "#/$defs/Note"}, "tags": {"type": "array"}},
    "required": ["order_id", "note"],
    "$defs": {"Note": {"type": "string", "minLength": 2, "pattern": "^[a-z ]+$"}},
}


def endpoint(name: str = "note-order", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "method": "POST",
        "path": f"/orders/{{order_id}}/{name}",
        "component": {"kind": "code_block", "slug": "echo"},
        "request_schema": ORDER,
        **more,
    }


async def draft(tenant: Tenant, *endpoints: dict[str, Any], slug: str | None = None) -> dict[str, Any]:
    await tenant.publish()
    async with tenant.client() as client:
        body = {"slug": slug or f"shop-{tenant.workspace.workspace_id[:8]}", "name": "Shop", "ring_id": "dev"}
        made = await client.post("/services", json=body)
        assert made.status_code == 201, made.text
        for each in endpoints:
            added = await client.post(f"/services/{made.json()['id']}/endpoints", json=each)
            assert added.status_code == 201, added.text
    return made.json()


async def published(tenant: Tenant, *endpoints: dict[str, Any], slug: str | None = None) -> dict[str, Any]:
    service = await draft(tenant, *(endpoints or (endpoint(),)), slug=slug)
    async with tenant.client() as client:
        answer = await client.post(f"/services/{service['id']}/publish")
    assert answer.status_code == 201, answer.text
    return answer.json() | {"slug": service["slug"], "base": service["base_path"]}


def at(tenant: Tenant, role: Role | None = Role.RUNNER) -> httpx.AsyncClient:
    return tenant.platform.client(tenant.token(role) if role else None)


async def test_a_draft_is_made_changed_and_read(tenant: Tenant) -> None:
    service = await draft(tenant, endpoint())

    async with tenant.client() as client:
        path = f"/services/{service['slug']}"
        changed = await client.patch(path, json={"name": "Store", "ring_id": "staging"})
        added = await client.patch(f"{path}/endpoints/note-order", json={"path": "/notes/{order_id}", "tags": ["a"]})
        await client.post(f"{path}/endpoints", json=endpoint("other"))
        gone = await client.delete(f"{path}/endpoints/other")
        whole = (await client.get(path)).json()
        listed = (await client.get("/services")).json()["items"]

    assert (service["status"], service["latest_version"]) == ("draft", 0)
    assert (changed.json()["name"], changed.json()["ring_id"]) == ("Store", tenant.rings["staging"])
    assert (added.json()["path"], added.json()["tags"], added.json()["method"]) == ("/notes/{order_id}", ["a"], "POST")
    assert gone.status_code == 204
    assert [each["name"] for each in whole["endpoints"]] == ["note-order"]
    assert [each["id"] for each in listed] == [service["id"]]


async def test_what_a_draft_may_not_hold(tenant: Tenant) -> None:
    service = await draft(tenant, endpoint())

    async def add(**more: Any) -> httpx.Response:
        async with tenant.client() as client:
            return await client.post(f"/services/{service['id']}/endpoints", json=endpoint("second", **more))

    assert refused(await add(path="no-slash"), 422, "invalid_input")["details"][0]["field"] == "path"
    for path in ("/a//b", "/{a}/{a}", "/x{a}", "/../a", "/async/a", "/v1/a", "/skills.json", "/a/{a-b}"):
        assert refused(await add(path=path), 422, "invalid_input")["details"][0]["field"] == "path"
    for field, value in (
        ("request_schema", {"type": "nothing"}),
        ("request_schema", {"properties": {"a": {"pattern": "(?=a)"}}}),
        ("component", {"kind": "code_block", "slug": "unknown"}),
        ("method", "TRACE"),
        ("timeout_seconds", 0),
        ("auth", "nobody"),
    ):
        assert refused(await add(**{field: value}), 422, "invalid_input")["details"][0]["field"] == field
    refused(await add(request_schema={"description": "x" * 70_000}), 413, "payload_too_large")
    refused(await add(path="/orders/{another_id}/note-order"), 409, "endpoint_exists")
    async with tenant.client() as client:
        same_name = await client.post(f"/services/{service['id']}/endpoints", json=endpoint("note_order", path="/b"))
        same_slug = await client.post("/services", json={"slug": service["slug"]})
        bad_slug = await client.post("/services", json={"slug": "Shop!"})
    refused(same_name, 409, "endpoint_exists")
    refused(same_slug, 409, "service_exists")
    refused(bad_slug, 422, "invalid_input")


async def test_a_publish_freezes_the_draft_and_makes_its_skills_once(tenant: Tenant) -> None:
    service = await draft(tenant, endpoint())

    async with tenant.client() as client:
        path = f"/services/{service['id']}"
        answers = await asyncio.gather(*(client.post(f"{path}/publish") for _ in range(4)))
        first = next(answer for answer in answers if answer.status_code == 201).json()
        again = await client.post(f"{path}/publish")
        await client.patch(f"{path}/endpoints/note-order", json={"title": "Another"})
        second = await client.post(f"{path}/publish")
        whole = (await client.get(path)).json()
    async with at(tenant) as client:
        pinned = await client.get(f"{service['base_path']}/v1/skills.json")
        newest = await client.get(f"{service['base_path']}/skills.json")

    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert {json.dumps(answer.json()) for answer in answers} == {json.dumps(first)}
    assert (again.status_code, again.json()) == (200, first)
    assert (second.status_code, second.json()["version"]) == (201, 2)
    assert [each["version"] for each in whole["versions"]] == [2, 1]
    assert pinned.json() == first["skills"]
    assert newest.json() == second.json()["skills"]
    assert [each["title"] for each in newest.json()["skills"]] == ["Another"]


async def test_checksums_are_those_of_the_canonical_json(tenant: Tenant) -> None:
    bundle = (await published(tenant))["skills"]

    for whole in (bundle, *bundle["skills"]):
        assert whole["checksum"] == checksum({name: part for name, part in whole.items() if name != "checksum"})


async def test_an_endpoint_takes_from_its_component_what_it_does_not_say(tenant: Tenant) -> None:
    service = await published(tenant, endpoint(request_schema=None, path="/echo"))

    skill = service["skills"]["skills"][0]
    assert skill["request_schema"] == {"type": "object"}
    assert skill["description"] == "From the docstring."


async def test_drafts_and_unknown_versions_have_no_skills(tenant: Tenant, other: Tenant) -> None:
    service = await draft(tenant, endpoint())
    async with tenant.client() as client:
        empty = await client.post(f"/services/{(await draft(tenant, slug='empty-one'))['id']}/publish")

    async with at(tenant) as client:
        refused(await client.get(f"{service['base_path']}/skills.json"), 404, "not_found")
        refused(await client.post(f"{service['base_path']}/orders/1/note-order", json={}), 404, "not_found")
    public = await published(tenant, slug="with-one")
    async with at(tenant) as client:
        for version in ("v2", "v0", "v-1", "vx", "v99999999999"):
            refused(await client.get(f"{public['base']}/{version}/skills.json"), 404, "not_found")
    async with at(other) as client:
        refused(await client.get(f"{public['base']}/skills.json"), 404, "not_found")
    async with at(tenant, None) as client:
        refused(await client.get(f"{public['base']}/skills.json"), 401, "unauthenticated")
        refused(await client.get(f"{public['base']}x/skills.json"), 401, "unauthenticated")
    refused(empty, 422, "no_endpoints")


async def test_a_client_that_has_the_artifact_gets_304(tenant: Tenant) -> None:
    service = await published(tenant)

    async with at(tenant) as client:
        for path in ("skills.json", "v1/skills.json", "openapi.json", "skills.zip"):
            first = await client.get(f"{service['base']}/{path}")
            known = {"If-None-Match": f'W/"other", {first.headers["etag"]}'}
            again = await client.get(f"{service['base']}/{path}", headers=known)
            other = await client.get(f"{service['base']}/{path}", headers={"If-None-Match": '"other"'})
            assert (first.status_code, again.status_code, other.status_code) == (200, 304, 200)
            assert (again.content, again.headers["etag"]) == (b"", first.headers["etag"])
    assert first.headers["content-type"] == "application/zip"


async def test_the_openapi_document_is_valid_and_says_what_is_there(tenant: Tenant) -> None:
    recursive = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    service = await published(
        tenant,
        endpoint(),
        endpoint("find", method="GET", path="/orders", auth="public"),
        endpoint("chain", path="/chain", request_schema=recursive, auth="service_token"),
    )

    async with at(tenant) as client:
        document = (await client.get(f"{service['base']}/openapi.json")).json()

    OpenAPIV31SpecValidator(document).validate()
    noted = document["paths"]["/orders/{order_id}/note-order"]["post"]
    assert [(each["name"], each["in"], each["schema"]["type"]) for each in noted["parameters"]] == [
        ("order_id", "path", "integer")
    ]
    body = noted["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["note"] == {"$ref": "#/components/schemas/note-order.request.Note"}
    assert (body["required"], "$defs" in body) == (["note"], False)
    found = document["paths"]["/orders"]["get"]
    assert {each["name"] for each in found["parameters"] if each["in"] == "query"} == {"order_id", "note", "tags"}
    assert (found["security"], "requestBody" in found) == ([], False)
    assert document["servers"] == [{"url": f"{service['base']}/v1"}]


async def test_skills_are_folders_that_agents_read(tenant: Tenant) -> None:
    service = await published(tenant, endpoint("note_order", description='Notes: "a"\nthing.', async_eligible=True))
    folder = f"{service['slug']}-note-order"

    async with at(tenant) as client:
        archive = zipfile.ZipFile(io.BytesIO((await client.get(f"{service['base']}/skills.zip")).content))
        text = (await client.get(f"{service['base']}/v1/skills/{folder}/SKILL.md")).text
        refused(await client.get(f"{service['base']}/skills/other/SKILL.md"), 404, "not_found")

    assert archive.namelist() == [f"{folder}/SKILL.md"]
    assert archive.read(f"{folder}/SKILL.md").decode() == text
    head = text.split("---\n")[1].splitlines()
    assert head[0] == f"name: {folder}"
    assert json.loads(head[1].removeprefix("description: ")).startswith('Notes: "a" thing.')
    assert "X-HSL-Target-Method" in text


async def test_who_may_do_what_with_drafts(tenant: Tenant, other: Tenant) -> None:
    service = await draft(tenant, endpoint())
    path = f"/services/{service['id']}"

    for role in (Role.VIEWER, Role.RUNNER):
        async with tenant.client(role) as client:
            refused(await client.post("/services", json={"slug": "x"}), 403, "forbidden")
            refused(await client.post(f"{path}/publish"), 403, "forbidden")
            refused(await client.post(f"{path}/endpoints", json=endpoint("b")), 403, "forbidden")
            refused(await client.delete(path), 403, "forbidden")
            assert (await client.get(path)).status_code == 200
    async with tenant.client(Role.BUILDER) as client:
        refused(await client.post(f"{path}/tokens", json={"name": "x"}), 403, "forbidden")
    async with other.client() as client:
        for answer in (await client.get(path), await client.post(f"{path}/publish"), await client.delete(path)):
            refused(answer, 404, "not_found")


async def test_a_deleted_service_is_gone_with_its_tokens(tenant: Tenant) -> None:
    service = await published(tenant, endpoint(auth="service_token"))

    async with tenant.client() as client:
        path = f"/services/{service['service_id']}"
        token = (await client.post(f"{path}/tokens", json={"name": "crm"})).json()["token"]
        assert (await client.delete(path)).status_code == 204
        refused(await client.get(path), 404, "not_found")
    async with tenant.platform.client(token) as client:
        refused(await client.get(f"{service['base']}/skills.json"), 401, "service_token_invalid")

"""Publishing over HTTP, and looking at components, rings and deployments."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from flow_platform.domain.component import MAX_CODE_BYTES
from flow_platform.domain.principal import Role
from tests.contract.api.hands import CODE, Tenant, refused, submit_body

pytestmark = pytest.mark.asyncio(loop_scope="module")

KINDS = ("code-blocks", "transforms", "workflows")


@pytest.mark.parametrize("kind", KINDS)
async def test_publishing_makes_versions(tenant: Tenant, kind: str) -> None:
    async with tenant.client() as client:
        first = await client.post(f"/{kind}", json={"slug": "echo", "code": CODE})
        assert first.status_code == 201
        body = first.json()
        assert (body["version"], body["slug"], body["input_schema"]) == (1, "echo", {"type": "object"})
        assert body["digest"].startswith("sha256:")
        again = await client.post(f"/{kind}", json={"slug": "echo", "code": CODE})
        assert (again.status_code, again.json()) == (200, body)
        second = await client.post(f"/{kind}", json={"slug": "echo", "code": CODE + "#"})
        assert (second.status_code, second.json()["version"], second.json()["id"]) == (201, 2, body["id"])
        back = await client.post(f"/{kind}", json={"slug": "echo", "code": CODE})
        assert (back.status_code, back.json()["version"]) == (200, 1)

        one = (await client.get(f"/{kind}/echo")).json()
        assert one == (await client.get(f"/{kind}/{body['id']}")).json()
        assert (one["latest_version"], one["newest"]["version"]) == (2, 2)
        assert one["description"] == "From the docstring."
        versions = (await client.get(f"/{kind}/echo/versions", params={"limit": 1})).json()
        assert [version["version"] for version in versions["items"]] == [2]
        assert versions["items"][0]["code"] is None
        rest = await client.get(f"/{kind}/echo/versions", params={"cursor": versions["next_cursor"]})
        assert [version["version"] for version in rest.json()["items"]] == [1]
        assert (await client.get(f"/{kind}/echo/versions/1")).json()["code"] == CODE
        refused(await client.get(f"/{kind}/echo/versions/3"), 404, "not_found")
        refused(await client.get(f"/{kind}/absent"), 404, "not_found")
        listed = (await client.get(f"/{kind}")).json()
        assert [item["slug"] for item in listed["items"]] == ["echo"]


async def test_what_was_published_last_is_what_runs_in_dev(tenant: Tenant) -> None:
    await tenant.publish(code="def main(): return 1\n")
    await tenant.publish(code="def main(): return 2\n")
    assert (await tenant.platform.claim(await tenant.submit())).version == 2
    await tenant.publish(code="def main(): return 1\n")  # Back to what it was: no new version, but the active one.
    assert (await tenant.platform.claim(await tenant.submit())).version == 1
    async with tenant.client() as client:
        deployments = (await client.get("/deployments")).json()["items"]
    assert [(one["version"], one["state"]) for one in deployments] == [
        (1, "active"),
        (2, "superseded"),
        (1, "superseded"),
    ]
    assert {one["ring_id"] for one in deployments} == {tenant.rings["dev"]}


async def test_publishing_at_the_same_time_numbers_each_version_once(tenant: Tenant) -> None:
    async with tenant.client() as client:
        bodies = [{"slug": "echo", "code": f"{CODE}# {n % 5}"} for n in range(15)]
        answers = await asyncio.gather(*(client.post("/code-blocks", json=body) for body in bodies))
        made = [answer.json()["version"] for answer in answers if answer.status_code == 201]
        assert sorted(made) == [1, 2, 3, 4, 5]
        assert {answer.status_code for answer in answers} == {200, 201}
        active = [one for one in (await client.get("/deployments")).json()["items"] if one["state"] == "active"]
    assert len(active) == 1


async def test_everything_declared_reaches_the_build_and_the_container(tenant: Tenant) -> None:
    declared = {
        "entry_point": "run",
        "name": "Echo",
        "description": "Says it again.",
        "tags": ["text", "demo"],
        "language": "python",
        "dependencies": ["python-slugify>=8", "requests[socks]==2.32.3; python_version >= '3.11'"],
        "timeout_seconds": 20,
        "retry": {"max_attempts": 3, "non_retryable_errors": ["ValueError"]},
        "limits": {"memory_bytes": 128 << 20, "cpus": 0.5},
        "network": ["api.example.com", "*.example.org:443"],
        "secrets": ["OPENAI_API_KEY"],
        "examples": [{"input": {"a": 1}, "output": None}],
        "requires_context": True,
    }
    await tenant.publish("transforms", **declared)
    request = tenant.platform.builds.requests[-1]
    assert request.dependencies == declared["dependencies"]
    assert request.examples == declared["examples"]
    assert request.entry_point == "run"
    assignment = await tenant.platform.claim(await tenant.submit("transforms", timeout_seconds=None))
    assert (assignment.entry_point, assignment.timeout_seconds) == ("run", 20)
    assert assignment.limits.memory_bytes == 128 << 20
    async with tenant.client() as client:
        one = (await client.get("/transforms/echo")).json()
    assert {name: one[name] for name in ("name", "description", "tags")} == {
        name: declared[name] for name in ("name", "description", "tags")
    }
    newest = one["newest"]
    assert newest["retry"]["max_attempts"] == 3
    assert newest["network"] == declared["network"]
    assert newest["secrets"] == declared["secrets"]


async def test_a_name_changes_without_a_new_version(tenant: Tenant) -> None:
    await tenant.publish(name="Old", tags=["a"])
    changed = await tenant.publish(name="New")
    assert (changed["version"], changed["name"]) == (1, "New")
    async with tenant.client() as client:
        assert (await client.get("/code-blocks/echo")).json()["tags"] == ["a"]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("code-blocks", {"slug": "Not A Slug"}, "slug"),
    ("code-blocks", {"slug": "x" * 64}, "slug"),
    ("code-blocks", {"slug": None}, "slug"),
    ("code-blocks", {"code": ""}, "code"),
    ("code-blocks", {"code": 1}, "code"),
    ("code-blocks", {"code": "x = '\0'"}, "code"),
    ("code-blocks", {"code": "#" * (MAX_CODE_BYTES + 1)}, "code"),
    ("code-blocks", {"code": "ü" * (MAX_CODE_BYTES // 2 + 1)}, "code"),
    ("code-blocks", {"entry_point": "a b"}, "entry_point"),
    ("code-blocks", {"entry_point": "class"}, "entry_point"),
    ("code-blocks", {"language": "javascript"}, "language"),
    ("code-blocks", {"dependencies": "requests"}, "dependencies"),
    ("code-blocks", {"dependencies": ["requests", "not a requirement!"]}, "dependencies.1"),
    ("code-blocks", {"dependencies": ["./local"]}, "dependencies.0"),
    ("code-blocks", {"dependencies": ["x @ file:///etc/passwd"]}, "dependencies.0"),
    ("code-blocks", {"dependencies": ["x @ https://example.com/x.whl"]}, "dependencies.0"),
    ("code-blocks", {"dependencies": ["-r requirements.txt"]}, "dependencies.0"),
    ("code-blocks", {"dependencies": ["requests\n--index-url http://x"]}, "dependencies.0"),
    ("code-blocks", {"dependencies": ["a"] * 201}, "dependencies"),
    ("code-blocks", {"timeout_seconds": 0}, "timeout_seconds"),
    ("code-blocks", {"timeout_seconds": "5"}, "timeout_seconds"),
    ("transforms", {"timeout_seconds": 301}, "timeout_seconds"),
    ("transforms", {"timeout_seconds": 0.5}, "timeout_seconds"),
    ("workflows", {"timeout_seconds": 1e9}, "timeout_seconds"),
    ("code-blocks", {"retry": {"max_attempts": 0}}, "retry.max_attempts"),
    ("code-blocks", {"retry": {"attempts": 3}}, "retry.attempts"),
    ("code-blocks", {"retry": 3}, "retry"),
    ("code-blocks", {"limits": {"memory_bytes": 1}}, "limits.memory_bytes"),
    ("code-blocks", {"limits": {"memory": 1}}, "limits.memory"),
    ("code-blocks", {"network": ["http://example.com/x"]}, "network.0"),
    ("code-blocks", {"network": ["example.com:99999"]}, "network.0"),
    ("code-blocks", {"secrets": ["with space"]}, "secrets.0"),
    ("code-blocks", {"secrets": ["AUTH_TOKEN"]}, "secrets.0"),
    ("code-blocks", {"tags": [1]}, "tags.0"),
    ("code-blocks", {"name": "x" * 201}, "name"),
    ("code-blocks", {"description": "a\0b"}, "description"),
    ("code-blocks", {"examples": [{"input": 1, "output": 1}]}, "examples"),
    ("workflows", {"requires_context": True}, "requires_context"),
    ("transforms", {"examples": [{"input": 1}]}, "examples.0.output"),
    ("code-blocks", {"dependancies": ["requests"]}, "dependancies"),
    ("workflows", {"nodes": [], "edges": []}, "code"),
]


@pytest.mark.parametrize(("kind", "wrong", "field"), REFUSED, ids=range(len(REFUSED)))
async def test_a_wrong_field_is_named(tenant: Tenant, kind: str, wrong: dict[str, Any], field: str) -> None:
    builds = len(tenant.platform.builds.requests)
    async with tenant.client() as client:
        answer = await client.post(f"/{kind}", json={"slug": "echo", "code": CODE} | wrong)
        body = refused(answer, 422, "invalid_input")
        assert field in [detail["field"] for detail in body["details"]], body
        assert len(body["message"]) < 1000
        assert (await client.get(f"/{kind}")).json()["items"] == []
    assert len(tenant.platform.builds.requests) == builds


async def test_all_problems_are_told_together(tenant: Tenant) -> None:
    async with tenant.client() as client:
        answer = await client.post("/code-blocks", json={"code": "", "language": "cobol", "tags": 1})
    fields = {detail["field"] for detail in refused(answer, 422, "invalid_input")["details"]}
    assert fields == {"slug", "code", "language", "tags"}


async def test_a_refused_build_says_where(tenant: Tenant) -> None:
    async with tenant.client() as client:
        answer = await client.post("/code-blocks", json={"slug": "echo", "code": "refuse this"})
        body = refused(answer, 422, "syntax_error")
        assert body["details"] == [{"field": "code", "message": "line 1: invalid syntax"}]
        refused(await client.get("/code-blocks/echo"), 404, "not_found")
        later = await client.post("/code-blocks", json={"slug": "echo", "code": "# offline"})
        refused(later, 503, "index_unavailable")  # Not the component's fault: the same request can succeed later.
        assert later.headers["retry-after"] == "1"


async def test_rings(tenant: Tenant) -> None:
    async with tenant.client() as client:
        rings = (await client.get("/rings")).json()
        assert [(ring["name"], ring["auto_deploy"]) for ring in rings["items"]] == [
            ("dev", True),
            ("staging", False),
            ("production", False),
        ]
        assert rings["next_cursor"] is None
        canary = await client.post("/rings", json={"name": "canary", "order": 25, "env": {"LEVEL": "low"}})
        assert canary.status_code == 201
        assert [ring["name"] for ring in (await client.get("/rings")).json()["items"]][2] == "canary"
        refused(await client.post("/rings", json={"name": "canary", "order": 1}), 409, "ring_exists")
        for wrong, field in (
            ({"name": "No!", "order": 1}, "name"),
            ({"name": "x", "order": -1}, "order"),
            ({"name": "x"}, "order"),
            ({"name": "x", "order": 1, "env": {"AUTH_TOKEN": "x"}}, "env.AUTH_TOKEN.[key]"),
            ({"name": "x", "order": 1, "env": {"A": 1}}, "env.A"),
            ({"name": "x", "order": 1, "autodeploy": True}, "autodeploy"),
        ):
            body = refused(await client.post("/rings", json=wrong), 422, "invalid_input")
            assert body["details"][0]["field"] == field
        await tenant.publish()
        deployed = {"component_id": "echo", "ring_id": canary.json()["id"]}
        await client.post("/deployments", json=deployed)
        assignment = await tenant.platform.claim(await tenant.submit(ring_id=canary.json()["id"]))
        assert assignment.env == {"LEVEL": "low"}
    async with tenant.client(Role.VIEWER) as client:
        assert all(ring["env"] == {} for ring in (await client.get("/rings")).json()["items"])
    async with tenant.client(Role.BUILDER) as client:
        refused(await client.post("/rings", json={"name": "x", "order": 1}), 403, "forbidden")


async def test_deployments(tenant: Tenant) -> None:
    await tenant.publish(code=CODE)
    published = await tenant.publish(code=CODE + "#")
    ring = tenant.rings["production"]
    async with tenant.client() as client:

        async def deploy(**body: Any) -> Any:
            return await client.post("/deployments", json={"component_id": published["id"], "ring_id": ring, **body})

        first = await deploy(version=1)
        assert (first.status_code, first.json()["state"], first.json()["version"]) == (201, "active", 1)
        newest = await deploy()
        assert (newest.status_code, newest.json()["version"]) == (201, 2)
        same = await deploy(version=2)
        assert (same.status_code, same.json()) == (200, newest.json())
        earlier = await client.get(f"/deployments/{first.json()['deployment_id']}")
        assert earlier.json()["state"] == "superseded"
        listed = await client.get("/deployments", params={"ring_id": ring, "component_id": published["id"]})
        assert [one["version"] for one in listed.json()["items"]] == [2, 1]
        refused(await deploy(version=3), 404, "not_found")
        refused(await deploy(ring_id=str(uuid.uuid4())), 404, "not_found")
        refused(await deploy(component_id="absent"), 404, "not_found")
        refused(await deploy(version=0), 422, "invalid_input")
        refused(await deploy(version="1"), 422, "invalid_input")
        answer = await client.post("/code-blocks/echo/executions", json=submit_body(ring_id=ring))
        assert answer.json()["deployment_id"] == newest.json()["deployment_id"]
        await tenant.publish("workflows", "echo")
        assert (
            "code_block and a workflow" in refused(await deploy(component_id="echo"), 422, "invalid_input")["message"]
        )

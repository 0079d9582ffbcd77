"""The audit log: every change and every refusal, by whom, from where, what before and after, in a chain."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from flow_platform.api.app import create_app
from flow_platform.domain import errors
from flow_platform.domain.audit import AuditEntry, verify
from flow_platform.domain.principal import Role
from flow_platform.engine import refusals
from flow_platform.engine.audited import Origin
from flow_platform.engine.catalog import Catalog
from flow_platform.engine.executions import CANCEL_BATCH
from flow_platform.engine.master_keys import MasterKeys, new_key, parse_key
from flow_platform.engine.retry import RETRY_BATCH
from flow_platform.engine.service import Engine
from flow_platform.store import open_store
from flow_platform.store.audit import AuditRows
from tests.contract.api.hands import CODE, HOUR, NO_NATS, Builds, Platform, Tenant, refused, submit_body
from tests.support.two_organizations import new_tenant

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    path: Path = tmp_path_factory.mktemp("audit")
    keys = MasterKeys(parse_key(new_key(), "a test"))
    engine = Engine(open_store(f"sqlite:///{path}/flow.db"), NO_NATS, master_keys=keys)
    with pytest.MonkeyPatch.context() as patch:
        # Refusals are entered when a test says so, and what a flood used up stays used up: so they can be counted.
        patch.setattr(refusals, "FLUSH_SECONDS", 3600.0)
        patch.setattr(refusals, "ENTRIES", dataclasses.replace(refusals.ENTRIES, period=timedelta(days=3650)))
        await engine.start()
        builds = Builds()
        engine.catalog = Catalog(engine.store, engine.clock, builds, engine.rollouts)
        yield Platform(engine, builds, create_app(engine))
        await engine.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def tenant(platform: Platform) -> Tenant:
    return await new_tenant(platform)


def wide(tenant: Tenant) -> str:
    engine = tenant.platform.engine
    return engine.tokens.for_user("boss", tenant.workspace.org_id, None, Role.ADMIN, HOUR, engine.clock.now())


async def entries(tenant: Tenant, token: str | None = None, **query: Any) -> list[dict[str, Any]]:
    await tenant.platform.engine.audit.refusals.flush()
    async with tenant.platform.client(token or wide(tenant)) as client:
        answer = await client.get(f"/api/v1/orgs/{tenant.workspace.org_id}/audit", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def exported(tenant: Tenant, after: int = 0) -> list[AuditEntry]:
    await tenant.platform.engine.audit.refusals.flush()
    async with tenant.platform.client(wide(tenant)) as client:
        answer = await client.get(f"/api/v1/orgs/{tenant.workspace.org_id}/audit/export", params={"after": after})
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [AuditEntry(**json.loads(line)) for line in answer.text.splitlines()]


async def test_a_change_says_who_from_where_what_before_and_after(tenant: Tenant) -> None:
    async with tenant.client() as client:
        headers = {"X-Request-ID": "req-1", "User-Agent": "curl/8\x1b"}
        ring = tenant.rings["staging"]
        answer = await client.patch(
            f"/rings/{ring}", json={"order": 21, "env": {"DATABASE": "postgres://u:hunter2@db"}}, headers=headers
        )
        assert answer.status_code == 200
    (entry,) = await entries(tenant)
    assert (entry["kind"], entry["action"], entry["subject"]) == ("change", "PATCH W/rings/{ring_id}", "ada")
    assert entry["who"]["role"] == "admin"
    assert entry["who"]["credential"].startswith("token:")
    assert entry["from"] == {"request_id": "req-1", "address": "127.0.0.1", "user_agent": "curl/8"}
    assert (entry["workspace_id"], entry["target"]) == (tenant.workspace.workspace_id, {"ring_id": ring})
    assert (entry["before"]["order"], entry["after"]["order"]) == (20, 21)
    assert entry["changed"] == ["env.DATABASE", "order"]
    assert entry["after"]["env"] == entry["request"]["env"] == {"DATABASE": "(hidden)"}
    assert "hunter2" not in json.dumps(entry)
    assert entry["previous"] == "0" * 64


async def test_every_change_of_a_workspace_is_entered(platform: Platform, tenant: Tenant) -> None:
    """Whatever the route: asked for as an admin, with real things."""
    await tenant.publish()
    secret = "s3cret-canary-0123456789"
    async with tenant.client() as client:

        async def done(method: str, path: str, body: Any = None) -> Any:
            answer = await client.request(method, path, json=body)
            assert answer.status_code < 300, answer.text
            return answer.json() if answer.content else None

        key = await done("POST", "/api-keys", {"name": "ci", "role": "viewer"})
        await done("DELETE", f"/api-keys/{key['id']}")
        await done("PUT", "/secrets/DB_PASSWORD", {"value": secret})
        await done("DELETE", "/secrets/DB_PASSWORD")
        await done("PUT", "/variables", {"env": {"NAME": secret}})
        await done("PUT", "/policies", {"component_id": "echo", "concurrency": 3})
        await done("DELETE", "/policies?component_id=echo")
        await done("PUT", "/roles/own", {"actions": ["read"]})
        await done("DELETE", "/roles/own")
        schedule = {"component_id": "echo", "interval_seconds": 3600, "input_data": {"password": secret}}
        made = await done("POST", "/schedules", schedule)
        await done("PATCH", f"/schedules/{made['id']}", {"paused": True})
        await done("DELETE", f"/schedules/{made['id']}")
        await done("PUT", "/model-settings", {})
        await done("POST", "/deployments", {"component_id": "echo", "ring_id": tenant.rings["dev"]})
        execution_id = await tenant.submit()
        await done("POST", f"/executions/{execution_id}/cancel")
        await done("POST", "http://flow.test/api/v1/auth/token", {"role": "viewer"})
    found = await entries(tenant, limit=200)
    actions = [entry["action"] for entry in reversed(found)]
    assert actions == [
        "POST W/code-blocks",
        "POST W/api-keys",
        "DELETE W/api-keys/{key_id}",
        "PUT W/secrets/{name}",
        "DELETE W/secrets/{name}",
        "PUT W/variables",
        "PUT W/policies",
        "DELETE W/policies",
        "PUT W/roles/{name}",
        "DELETE W/roles/{name}",
        "POST W/schedules",
        "PATCH W/schedules/{schedule_id}",
        "DELETE W/schedules/{schedule_id}",
        "PUT W/model-settings",
        "POST W/deployments",
        "POST W/executions/{execution_id}/cancel",
        "POST /api/v1/auth/token",
    ]
    text = json.dumps(found)
    assert secret not in text
    assert key["key"] not in text
    assert CODE not in text
    assert platform.engine.tokens.jwks()["keys"][0]["x"] not in text
    assert verify(await exported(tenant)) == (len(found), found[0]["hash"])


async def test_a_change_that_failed_is_none(tenant: Tenant) -> None:
    async with tenant.client() as client:
        refused(await client.post("/rings", json={"name": "dev", "order": 1}), 409, "ring_exists")
        refused(await client.post("/rings", json={}), 422, "invalid_input")
        assert (await client.get("/rings")).status_code == 200
    assert await entries(tenant) == []


async def test_a_change_and_its_entry_are_one_transaction(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise errors.StorageFull("no room")

    monkeypatch.setattr("flow_platform.store.audit.AuditRows.append", broken)
    async with tenant.client() as client:
        refused(await client.put("/variables", json={"env": {"A": "1"}}), 507, "storage_full")
        assert (await client.get("/variables")).json()["env"] == {}


async def test_a_submit_is_its_own_record(tenant: Tenant) -> None:
    await tenant.publish()
    async with tenant.client(Role.RUNNER) as client:
        answer = await client.post("/code-blocks/echo/executions", json=submit_body(), headers={"X-Request-ID": "r-7"})
        document = (await client.get(f"/executions/{answer.json()['execution_id']}")).json()
    assert document["submitted_by"] == {
        "subject": "ada",
        "role": "runner",
        "request_id": "r-7",
        "address": "127.0.0.1",
    }
    assert [entry["action"] for entry in await entries(tenant)] == ["POST W/code-blocks"]


async def test_what_was_repeated_by_hand_says_by_whom(tenant: Tenant) -> None:
    await tenant.publish()
    execution_id = await tenant.submit()
    async with tenant.client() as client:
        await client.post(f"/executions/{execution_id}/cancel")
        answer = await client.post(f"/executions/{execution_id}/retry", headers={"X-Request-ID": "again"})
        new = (await client.get(f"/executions/{answer.json()['execution_id']}")).json()
    assert new["submitted_by"] == {"subject": "ada", "role": "admin", "request_id": "again", "address": "127.0.0.1"}
    entry = (await entries(tenant))[0]
    assert entry["action"] == "POST W/executions/{execution_id}/retry"
    assert entry["after"][0]["id"] == new["execution_id"]


async def _many(tenant: Tenant) -> list[str]:
    """More executions than one transaction cancels or retries; in the order in which they are."""
    await tenant.publish()
    return sorted([await tenant.submit() for _ in range(CANCEL_BATCH + 3)])


async def test_all_that_a_filter_cancels_and_retries_is_entered(tenant: Tenant) -> None:
    """Each transaction with what it did; and what nothing matches is an entry that says so."""
    ids = await _many(tenant)
    where = {"component_id": "echo"}
    async with tenant.client() as client:
        answer = (await client.post("/executions/cancel", json={"filter": where})).json()
        assert answer["execution_ids"] == ids
        assert (await client.post("/executions/cancel", json={"filter": where})).json()["matched"] == 0
        again = {"filter": {**where, "status": "cancelled"}}
        assert (await client.post("/executions/retry", json={**again, "dry_run": True})).json()["matched"] == len(ids)
        items = (await client.post("/executions/retry", json=again)).json()["items"]
    cancels = list(reversed(await entries(tenant, action="POST W/executions/cancel")))
    assert [entry["after"].get("cancelled") for entry in cancels] == [CANCEL_BATCH, 3, None]
    assert [each for entry in cancels[:2] for each in entry["after"]["execution_ids"]] == ids
    assert cancels[2]["after"]["matched"] == 0
    assert all(entry["request"] == {"filter": where} and entry["subject"] == "ada" for entry in cancels)
    retries = list(reversed(await entries(tenant, action="POST W/executions/retry")))
    assert [entry["after"]["retried"] for entry in retries] == [RETRY_BATCH, len(ids) - RETRY_BATCH]
    told = {old: new for entry in retries for old, new in entry["after"]["retried_as"].items()}
    assert told == {item["execution_id"]: item["retried_as_execution_id"] for item in items}
    assert all(entry["request"] == again and entry["after"]["refused"] == {} for entry in retries)
    assert verify(await exported(tenant))[0] == 1 + 3 + 2


async def test_of_a_filter_that_broke_off_is_entered_what_was_done(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry is in the transaction of what it tells, also when the next one fails."""
    ids = await _many(tenant)
    append, left = AuditRows.append, [1]

    def full_soon(rows: AuditRows, org_id: str, *content: Any) -> AuditEntry:
        if org_id == tenant.workspace.org_id:
            if not left:
                raise errors.StorageFull("no room")
            left.pop()
        return append(rows, org_id, *content)

    with monkeypatch.context() as patched:
        patched.setattr(AuditRows, "append", full_soon)
        async with tenant.client() as client:
            refused(await client.post("/executions/cancel", json={"filter": {}}), 507, "storage_full")
    (entry,) = await entries(tenant, action="POST W/executions/cancel")
    assert entry["after"] == {"cancelled": CANCEL_BATCH, "execution_ids": ids[:CANCEL_BATCH]}
    async with tenant.client() as client:
        queued = (await client.get("/executions", params={"status": "queued"})).json()["items"]
    assert {item["execution_id"] for item in queued} == set(ids[CANCEL_BATCH:])


# Refusals


async def test_refusals_are_entered_in_the_log_of_who_was_refused(platform: Platform, tenant: Tenant) -> None:
    stranger = await new_tenant(platform)
    async with tenant.client(Role.VIEWER) as client:
        refused(await client.put("/variables", json={}), 403, "forbidden")
        refused(await client.get(f"http://flow.test{stranger.path}/rings"), 404, "not_found")
        refused(await client.get("/code-blocks/nothing"), 404, "not_found")
    found = await entries(tenant, kind="refusal")
    assert [(entry["action"], entry["status"], entry["code"], entry["subject"]) for entry in reversed(found)] == [
        ("PUT W/variables", 403, "forbidden", "ada"),
        ("GET W/rings", 404, "not_found", "ada"),
    ]
    assert found[0]["target"]["workspace_id"] == stranger.workspace.workspace_id
    assert await entries(stranger) == []


async def test_strangers_are_entered_in_the_operators_log(platform: Platform, tenant: Tenant) -> None:
    before = await _operators(platform)
    async with platform.client() as client:
        refused(await client.get(f"{tenant.path}/rings"), 401, "unauthenticated")
        refused(
            await client.get(f"{tenant.path}/rings", headers={"Authorization": "Bearer x.y.z"}), 401, "token_invalid"
        )
        refused(await client.get(f"{tenant.path}/rings", headers={"X-API-Key": "fl_guess"}), 401, "api_key_invalid")
    assert await entries(tenant) == []
    after = await _operators(platform)
    codes = {entry["code"] for entry in after[: len(after) - len(before)]}
    assert codes == {"unauthenticated", "token_invalid", "api_key_invalid"}


async def _operators(platform: Platform) -> list[dict[str, Any]]:
    await platform.engine.audit.refusals.flush()
    org_id = platform.engine.workspace.org_id
    token = platform.engine.tokens.for_user("root", org_id, None, Role.ADMIN, HOUR, platform.now)
    async with platform.client(token) as client:
        answer = await client.get(f"/api/v1/orgs/{org_id}/audit", params={"kind": "refusal", "limit": 200})
    return answer.json()["items"]


async def test_a_flood_of_refusals_is_a_few_entries(tenant: Tenant) -> None:
    await tenant.platform.engine.audit.refusals.flush()
    async with tenant.client(Role.VIEWER) as client:
        await asyncio.gather(*(client.post("/rings", json={}) for _ in range(100)))
        await asyncio.gather(*(client.put(f"/secrets/NAME_{n}", json={}) for n in range(100)))
    found = await entries(tenant, kind="refusal")
    assert sum(entry["count"] for entry in found) == 200
    assert len(found) == 2, "one of each route"


async def test_what_is_entered_of_a_flood_is_bounded(platform: Platform, tenant: Tenant) -> None:
    """Also when each refusal is another one; what a stranger does hides nothing of what a member does."""
    org_id = tenant.workspace.org_id
    origin = Origin("r", "10.0.0.1", "")
    noted = platform.engine.audit.refusals

    def refusal(number: int, credential: str = "") -> refusals.Refusal:
        return refusals.Refusal(
            org_id, f"s{number}", "", credential, "10.0.0.1", "GET W/rings", None, 401, "unauthenticated"
        )

    for _ in range(3):
        for number in range(1000):
            noted.note(refusal(number), origin, {"workspace_id": "w"})
        await noted.flush()
    noted.note(refusal(1, "token:1"), origin, {})
    found = await exported(tenant)
    documents = [entry.document for entry in found]
    assert len(found) <= refusals.ENTRIES.burst + 3 + 1
    assert sum(document["count"] for document in documents) == 3001
    assert documents[-1]["who"]["credential"] == "token:1"
    assert verify(found)[0] == len(found)


# Reading


async def test_only_admins_read_and_of_a_workspace_only_its_own(platform: Platform, tenant: Tenant) -> None:
    sibling = await new_tenant(platform, tenant.workspace.org_id)
    for each in (tenant, sibling):
        async with each.client() as client:
            await client.put("/variables", json={"env": {}})
    path = f"/api/v1/orgs/{tenant.workspace.org_id}/audit"
    for role in (Role.BUILDER, Role.RUNNER, Role.VIEWER):
        async with platform.client(tenant.token(role)) as client:
            refused(await client.get(path), 403, "forbidden")
    async with platform.client(tenant.token()) as client:
        refused(await client.get(f"{path}/export"), 403, "forbidden")
        refused(await client.get(path, params={"workspace_id": sibling.workspace.workspace_id}), 404, "not_found")
    own = await entries(tenant, tenant.token())
    assert {entry["workspace_id"] for entry in own} == {tenant.workspace.workspace_id}
    assert {entry["workspace_id"] for entry in await entries(tenant, kind="change")} == {
        tenant.workspace.workspace_id,
        sibling.workspace.workspace_id,
    }
    stranger = await new_tenant(platform)
    async with platform.client(wide(stranger)) as client:
        refused(await client.get(path), 404, "not_found")


async def test_filters_and_pages(platform: Platform, tenant: Tenant) -> None:
    for number in range(5):
        async with tenant.client() as client:
            await client.put("/variables", json={"env": {"N": str(number)}})
    path = f"/api/v1/orgs/{tenant.workspace.org_id}/audit"
    async with platform.client(wide(tenant)) as client:
        seen: list[int] = []
        cursor = None
        while True:
            page = (await client.get(path, params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
            seen += [entry["sequence"] for entry in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == [5, 4, 3, 2, 1]
        for name, value in (("kind", "x"), ("since", "yesterday"), ("cursor", "abc"), ("limit", "0")):
            refused(await client.get(path, params={name: value}), 422, "invalid_input")
    assert len(await entries(tenant, action="PUT W/variables", subject="ada")) == 5
    assert await entries(tenant, subject="nobody") == []
    assert await entries(tenant, until="2020-01-01T00:00:00Z") == []
    assert len(await entries(tenant, since="2020-01-01T00:00:00Z")) == 5


async def test_the_export_is_csv_for_spreadsheets(tenant: Tenant) -> None:
    engine, org_id = tenant.platform.engine, tenant.workspace.org_id
    evil = engine.tokens.for_user("=cmd()", org_id, None, Role.VIEWER, HOUR, engine.clock.now())
    async with tenant.platform.client(evil) as client:
        refused(await client.put(f"http://flow.test{tenant.path}/variables", json={}), 403, "forbidden")
    await engine.audit.refusals.flush()
    path = f"/api/v1/orgs/{org_id}/audit/export"
    async with tenant.platform.client(wide(tenant)) as client:
        answer = await client.get(path, params={"format": "csv"})
        refused(await client.get(path, params={"format": "xml"}), 422, "invalid_input")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(answer.text.splitlines())
    assert (row["subject"], row["status"], row["code"], row["count"]) == ("'=cmd()", "403", "forbidden", "1")
    assert (row["action"], row["address"]) == ("PUT W/variables", "127.0.0.1")
    assert answer.headers["x-audit-head"] == f"1:{row['hash']}"


# The chain


async def _log(tenant: Tenant, count: int = 4) -> list[AuditEntry]:
    for number in range(count):
        async with tenant.client() as client:
            await client.put("/variables", json={"env": {"N": str(number)}})
    return await exported(tenant)


async def test_tampering_is_found_wherever_it_is(tenant: Tenant) -> None:
    log = await _log(tenant)
    assert verify(log)[0] == 4
    document = log[1].document

    def forged(**changes: Any) -> AuditEntry:
        text = json.dumps({**document, **changes}, sort_keys=True, separators=(",", ":"))
        return AuditEntry(log[1].org_id, log[1].sequence, text, log[1].hash)

    broken = {
        "changed": [log[0], forged(subject="eve"), *log[2:]],
        "removed": [log[0], *log[2:]],
        "first one removed": log[1:],
        "swapped": [log[0], log[2], log[1], log[3]],
        "repeated": [log[0], log[0], *log[1:]],
        "of another organization": [log[0], AuditEntry("other", 2, log[1].text, log[1].hash), *log[2:]],
        "no JSON": [log[0], AuditEntry(log[1].org_id, 2, "{", log[1].hash)],
    }
    for name, entries_ in broken.items():
        with pytest.raises(errors.Conflict, match=r"entry [12] of the audit log"):
            verify(entries_)
        assert name
    assert await exported(tenant, after=2) == log[2:]
    assert verify(log[2:], after=(2, log[1].hash)) == (4, log[3].hash)


async def test_writers_side_by_side_make_one_chain(tenant: Tenant) -> None:
    async with tenant.client() as client:
        answers: list[httpx.Response] = await asyncio.gather(
            *(client.put(f"/roles/r{number}", json={"actions": ["read"]}) for number in range(40))
        )
    assert {answer.status_code for answer in answers} == {200}
    assert verify(await exported(tenant))[0] == 40

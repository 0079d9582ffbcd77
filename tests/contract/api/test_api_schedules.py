"""Schedules over HTTP: made, looked at, changed, triggered, deleted; and submits that start later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flow_platform.domain.principal import Role
from tests.contract.api.hands import Tenant, refused, submit_body

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = {"component_id": "echo", "cron": "0 6 * * *", "time_zone": "Europe/Berlin", "input_data": {"a": 1}}


async def made(tenant: Tenant, **changes: Any) -> dict[str, Any]:
    await tenant.publish()
    async with tenant.client() as client:
        answer = await client.post("/schedules", json={**BODY, **changes})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_schedule_says_when_it_fires_next(tenant: Tenant) -> None:
    schedule = await made(tenant, name="Report", config={"k": 1}, timeout_seconds=60)
    async with tenant.client() as client:
        found = (await client.get(f"/schedules/{schedule['id']}")).json()
        listed = (await client.get("/schedules")).json()
    assert found == schedule
    assert len(schedule["next_firings"]) == 5
    assert schedule["next_firings"][0] == schedule["next_firing_at"]
    assert {datetime.fromisoformat(at).astimezone(UTC).minute for at in schedule["next_firings"]} == {0}
    assert schedule["component"] == {"kind": "code_block", "id": schedule["component"]["id"], "slug": "echo"}
    assert schedule["ring_id"] == tenant.rings["dev"]
    assert (schedule["overlap"], schedule["catch_up_seconds"], schedule["paused"]) == ("skip", 600, False)
    assert (schedule["created_by"], schedule["last_firing"]) == ("ada", None)
    without = {"input_data": None, "config": None, "next_firings": None}
    assert listed == {"items": [schedule | without], "next_cursor": None}


async def test_every_field_can_be_changed(tenant: Tenant) -> None:
    schedule = await made(tenant)
    changes = {
        "ring_id": "staging",
        "name": "Other",
        "cron": None,
        "interval_seconds": 90,
        "time_zone": "Asia/Tokyo",
        "input_data": {"b": 2},
        "config": {"c": 3},
        "timeout_seconds": 5,
        "overlap": "queue",
        "catch_up_seconds": 0,
        "paused": True,
        "starts_at": "2030-01-01T00:00:00+01:00",
        "ends_at": "2031-01-01T00:00:00Z",
    }
    async with tenant.client() as client:
        answer = await client.patch(f"/schedules/{schedule['id']}", json=changes)
        found = (await client.get(f"/schedules/{schedule['id']}")).json()
    assert answer.status_code == 200, answer.text
    assert answer.json() == found
    shown = changes | {"ring_id": tenant.rings["staging"], "starts_at": "2029-12-31T23:00:00Z"}
    assert {name: found[name] for name in changes} == shown
    assert (found["next_firing_at"], found["next_firings"]) == (None, [])


async def test_what_is_absent_stays(tenant: Tenant) -> None:
    schedule = await made(tenant)
    async with tenant.client() as client:
        changed = (await client.patch(f"/schedules/{schedule['id']}", json={"overlap": "cancel"})).json()
    assert changed == schedule | {"overlap": "cancel", "updated_at": changed["updated_at"]}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cron": "61 * * * *"}, "cron"),
        ({"cron": None}, "cron"),
        ({"interval_seconds": 60}, "cron"),
        ({"cron": None, "interval_seconds": 0.5}, "interval_seconds"),
        ({"cron": 5}, "cron"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"overlap": "party"}, "overlap"),
        ({"catch_up_seconds": -1}, "catch_up_seconds"),
        ({"catch_up_seconds": 1e8}, "catch_up_seconds"),
        ({"timeout_seconds": 1e8}, "timeout_seconds"),
        ({"input_data": [1]}, "input_data"),
        ({"starts_at": "2030-01-01T00:00:00"}, "starts_at"),
        ({"starts_at": 5}, "starts_at"),
        ({"starts_at": "2030-01-01T00:00:00Z", "ends_at": "2029-01-01T00:00:00Z"}, "ends_at"),
        ({"paused": "yes"}, "paused"),
        ({"name": "a\nb"}, "name"),
        ({"invented": 1}, "invented"),
    ],
)
async def test_what_is_not_valid_is_refused_with_its_field(tenant: Tenant, changes: dict[str, Any], field: str) -> None:
    schedule = await made(tenant)
    async with tenant.client() as client:
        for answer in (
            await client.post("/schedules", json={**BODY, **changes}),
            await client.patch(f"/schedules/{schedule['id']}", json=changes),
        ):
            body = refused(answer, 422, "invalid_input")
            assert [detail["field"] for detail in body["details"]] == [field], body
        assert (await client.get(f"/schedules/{schedule['id']}")).json() == schedule


async def test_an_input_has_a_limit(tenant: Tenant) -> None:
    await tenant.publish()
    async with tenant.client() as client:
        answer = await client.post("/schedules", json={**BODY, "input_data": {"a": "x" * (1 << 20)}})
    refused(answer, 413, "payload_too_large")


async def test_what_does_not_exist_is_not_found(tenant: Tenant, other: Tenant) -> None:
    schedule = await made(tenant)
    async with tenant.client() as client:
        refused(await client.post("/schedules", json={**BODY, "component_id": "absent"}), 404, "not_found")
        refused(await client.post("/schedules", json={**BODY, "kind": "workflow"}), 404, "not_found")
        refused(await client.post("/schedules", json={**BODY, "ring_id": "absent"}), 404, "not_found")
        refused(await client.get("/schedules/absent"), 404, "not_found")
        refused(await client.patch("/schedules/absent", json={"name": "x"}), 404, "not_found")
    one = f"/schedules/{schedule['id']}"
    async with other.client() as stranger:
        refused(await stranger.get(one), 404, "not_found")
        refused(await stranger.patch(one, json={"name": "x"}), 404, "not_found")
        refused(await stranger.post(f"{one}/trigger"), 404, "not_found")
        refused(await stranger.get(f"{one}/firings"), 404, "not_found")
        refused(await stranger.delete(one), 404, "not_found")
        assert (await stranger.get("/schedules")).json()["items"] == []


async def test_who_may_what(tenant: Tenant) -> None:
    schedule = await made(tenant)
    one = f"/schedules/{schedule['id']}"
    async with tenant.client(Role.VIEWER) as viewer:
        assert (await viewer.get(one)).status_code == 200
        assert (await viewer.get(f"{one}/firings")).status_code == 200
        refused(await viewer.post("/schedules", json=BODY), 403, "forbidden")
        refused(await viewer.patch(one, json={"paused": True}), 403, "forbidden")
        refused(await viewer.post(f"{one}/trigger"), 403, "forbidden")
        refused(await viewer.delete(one), 403, "forbidden")
    async with tenant.as_execution(await tenant.running()) as container:
        refused(await container.get("/schedules"), 403, "forbidden")
        refused(await container.post("/schedules", json=BODY), 403, "forbidden")


async def test_a_trigger_starts_one_execution_per_key(tenant: Tenant) -> None:
    schedule = await made(tenant, paused=True)
    one = f"/schedules/{schedule['id']}"
    async with tenant.client() as client:
        first = await client.post(f"{one}/trigger", headers={"Idempotency-Key": "k"})
        again = await client.post(f"{one}/trigger", headers={"Idempotency-Key": "k"})
        another = await client.post(f"{one}/trigger")
        refused(await client.post(f"{one}/trigger", headers={"Idempotency-Key": "k" * 256}), 422, "invalid_input")
        firings = (await client.get(f"{one}/firings", params={"limit": 1})).json()
        rest = (await client.get(f"{one}/firings", params={"cursor": firings["next_cursor"]})).json()
        by_execution = await client.get("/schedules", params={"execution_id": first.json()["execution_id"]})
        by_other = await client.get("/schedules", params={"execution_id": "absent"})
        by_component = await client.get("/schedules", params={"component_id": schedule["component"]["id"]})
    assert (first.status_code, again.json()) == (202, first.json())
    assert [item["number"] for item in firings["items"] + rest["items"]] == [2, 1]
    assert rest["items"][0] == first.json() | {"execution_status": "queued"}
    assert (first.json()["cause"], first.json()["status"]) == ("trigger", "started")
    assert another.json()["execution_id"] != first.json()["execution_id"]
    assert [item["id"] for item in by_execution.json()["items"]] == [schedule["id"]]
    assert by_other.json()["items"] == []
    listed = by_component.json()["items"]
    assert [(item["id"], item["last_firing"]["number"]) for item in listed] == [(schedule["id"], 2)]
    assignment = await tenant.platform.claim(first.json()["execution_id"])
    assert (assignment.input["input_data"], assignment.lifecycle_event) == ({"a": 1}, "workflow")


async def test_a_trigger_that_cannot_start_says_why(tenant: Tenant) -> None:
    schedule = await made(tenant, ring_id="production")
    async with tenant.client() as client:
        answer = await client.post(f"/schedules/{schedule['id']}/trigger")
        firings = (await client.get(f"/schedules/{schedule['id']}/firings")).json()
    refused(answer, 409, "not_deployed")
    assert firings["items"] == []


async def test_deleting_leaves_the_executions(tenant: Tenant) -> None:
    schedule = await made(tenant)
    one = f"/schedules/{schedule['id']}"
    async with tenant.client() as client:
        execution_id = (await client.post(f"{one}/trigger")).json()["execution_id"]
        deleted = await client.delete(one)
        refused(await client.get(one), 404, "not_found")
        refused(await client.delete(one), 404, "not_found")
        assert (await client.get(f"/executions/{execution_id}")).json()["status"] == "queued"
    assert (deleted.status_code, deleted.content) == (204, b"")


async def test_lists_have_pages(tenant: Tenant) -> None:
    ids = [(await made(tenant, name=str(number)))["id"] for number in range(3)]
    found: list[str] = []
    cursor: str | None = None
    async with tenant.client() as client:
        for _ in range(2):
            page = (
                await client.get("/schedules", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
            ).json()
            found += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
        refused(await client.get("/schedules", params={"cursor": "x"}), 422, "invalid_input")
    assert (sorted(found), cursor) == (sorted(ids), None)


async def test_a_submit_may_start_later(tenant: Tenant) -> None:
    await tenant.publish()
    later = (tenant.platform.now + timedelta(hours=2)).replace(microsecond=0)
    for given in ({"delay_seconds": 7200.5}, {"start_at": later.isoformat()}):
        execution_id = await tenant.submit(**given, timeout_seconds=60)
        async with tenant.client() as client:
            document = (await client.get(f"/executions/{execution_id}")).json()
            waiting = document["waiting_on"]
            assert (document["status"], waiting["reason"]) == ("queued", "start")
            starts_at = datetime.fromisoformat(waiting["until"])
            assert abs(starts_at - later) < timedelta(minutes=1)
            assert datetime.fromisoformat(document["deadline_at"]) == starts_at + timedelta(seconds=60)
            cancelled = (await client.post(f"/executions/{execution_id}/cancel")).json()
        assert (cancelled["status"], cancelled["waiting_on"]) == ("cancelled", None)


async def test_a_start_in_the_past_is_at_once(tenant: Tenant) -> None:
    await tenant.publish()
    for given in ({"delay_seconds": 0}, {"start_at": "2020-01-01T00:00:00+01:00"}, {"start_at": None}):
        assert (await tenant.platform.claim(await tenant.submit(**given))).attempt == 1


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"delay_seconds": -1}, "delay_seconds"),
        ({"delay_seconds": 30 * 86400 + 1}, "delay_seconds"),
        ({"delay_seconds": True}, "delay_seconds"),
        ({"delay_seconds": "10"}, "delay_seconds"),
        ({"start_at": "tomorrow"}, "start_at"),
        ({"start_at": "2030-01-01T00:00:00"}, "start_at"),
        ({"start_at": "9999-12-31T23:59:59Z"}, "start_at"),
        ({"start_at": "0001-01-01T00:00:00+14:00"}, "start_at"),
        ({"start_at": 5}, "start_at"),
        ({"start_at": "2026-01-01T00:00:00Z", "delay_seconds": 1}, "delay_seconds"),
    ],
)
async def test_a_start_that_is_not_valid_is_refused(tenant: Tenant, given: dict[str, Any], field: str) -> None:
    await tenant.publish()
    async with tenant.client() as client:
        answer = await client.post("/code-blocks/echo/executions", json=submit_body(**given))
    assert refused(answer, 422, "invalid_input")["details"][0]["field"] == field


async def test_calls_that_wait_cannot_start_later(tenant: Tenant) -> None:
    await tenant.publish("transforms")
    path = "/api/v1/component-execution/transforms/echo/execute"
    async with tenant.platform.client(tenant.token()) as client:
        answer = await client.post(path, json={"input_data": {}, "delay_seconds": 5})
    assert "executions" in refused(answer, 422, "delay_not_possible")["message"]

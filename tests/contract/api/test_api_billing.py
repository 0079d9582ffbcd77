"""Transactions, roll-ups and budgets over HTTP."""

from __future__ import annotations

import csv
from datetime import timedelta
from typing import Any

import pytest

from flow_platform.domain.principal import Role
from tests.contract.api.hands import Platform, Tenant, refused, submit_body

pytestmark = pytest.mark.asyncio(loop_scope="module")

CPU_MS = 100.0  # 1,000 micro-credits.


def billing(tenant: Tenant) -> str:
    return f"/api/v1/orgs/{tenant.workspace.org_id}/billing"


async def finished(tenant: Tenant, **more: Any) -> str:
    await tenant.publish()
    execution_id = await tenant.submit(**more)
    await tenant.platform.finish(await tenant.platform.claim(execution_id), 1, cpu_ms=CPU_MS)
    return execution_id


async def asked(tenant: Tenant, path: str, role: Role = Role.VIEWER, **params: str) -> Any:
    async with tenant.platform.client(tenant.token(role)) as client:
        return await client.get(f"{billing(tenant)}{path}", params=params)


async def test_a_transaction_has_its_tree_and_totals(platform: Platform, tenant: Tenant) -> None:
    caller = await tenant.running()
    await tenant.publish()
    async with tenant.as_execution(caller) as inside:
        child = (await inside.post("/code-blocks/echo/executions", json=submit_body())).json()["execution_id"]
    await platform.finish(await platform.claim(child), 1, cpu_ms=2 * CPU_MS)
    await platform.finish(caller, 1, cpu_ms=CPU_MS)

    document = (await asked(tenant, f"/transactions/{caller.execution_id}")).json()

    assert (document["own_micro_credits"], document["children_micro_credits"]) == (1_000, 2_000)
    assert (document["total_micro_credits"], document["truncated"]) == (3_000, False)
    (below,) = document["children"]
    assert (below["transaction_id"], below["total_micro_credits"], below["children"]) == (child, 2_000, [])
    (entry,) = document["entries"]
    expected = {"source": "attempt:1", "cpu_ms": CPU_MS, "micro_credits": 1_000, "rate_version": "standard-1"}
    assert {name: entry[name] for name in expected} == expected
    async with tenant.client() as client:
        whole = (await client.get(f"/executions/{caller.execution_id}")).json()["billing"]
        listed = (await client.get("/executions")).json()["items"]
    assert (whole["credits"], whole["own_credits"]) == (3_000, 1_000)
    assert {one["execution_id"]: one["billing"]["own_credits"] for one in listed} == {
        caller.execution_id: 1_000,
        child: 2_000,
    }
    assert {one["billing"]["credits"] for one in listed} == {None}


@pytest.mark.parametrize("transaction_id", ["nobody", "a%00b", "x" * 200, "%2e%2e"])
async def test_an_unknown_transaction_is_not_found(tenant: Tenant, transaction_id: str) -> None:
    refused(await asked(tenant, f"/transactions/{transaction_id}"), 404, "not_found")


async def test_transactions_and_usage_of_others_are_not_found(tenant: Tenant, other: Tenant) -> None:
    execution_id = await finished(tenant)
    async with other.platform.client(other.token()) as client:
        for path in (f"/transactions/{execution_id}", "/usage", "/usage.csv"):
            refused(await client.get(f"{billing(tenant)}{path}"), 404, "not_found")
        refused(await client.get(f"{billing(other)}/transactions/{execution_id}"), 404, "not_found")
        refused(
            await client.get(f"{billing(other)}/usage?workspace_id={tenant.workspace.workspace_id}"), 404, "not_found"
        )
        assert (await client.get(f"{billing(other)}/usage")).json()["items"] == []


async def test_usage_is_told_as_json_and_as_csv(tenant: Tenant) -> None:
    await finished(tenant)
    await finished(tenant)

    by_day = (await asked(tenant, "/usage", by="day")).json()
    answer = await asked(tenant, "/usage.csv")

    today = tenant.platform.now.strftime("%Y-%m-%d")
    assert [(row["key"], row["entries"], row["micro_credits"]) for row in by_day["items"]] == [(today, 2, 2_000)]
    assert by_day["total_micro_credits"] == 2_000
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(answer.text.splitlines())
    assert (row["name"], row["entries"], row["cpu_seconds"], row["micro_credits"]) == ("echo", "2", "0.2", "2000")


async def test_no_cell_of_the_csv_is_a_formula(tenant: Tenant) -> None:
    engine = tenant.platform.engine
    from flow_platform.domain.model_call import ModelCall
    from flow_platform.gateway.metering import StoredCalls

    meter = StoredCalls(engine.store, engine.clock, engine.rates)
    where = (tenant.workspace.org_id, tenant.workspace.workspace_id)
    for number, provider in enumerate(("=1+2", "+x", "@SUM(1)", "-1")):
        await meter.record(ModelCall(f"{where[1]}-{number}", *where, "chat", provider, "m", engine.clock.now()))

    rows = list(csv.DictReader((await asked(tenant, "/usage.csv", by="model")).text.splitlines()))

    assert sorted(row["model"] for row in rows) == ["'+x/m", "'-1/m", "'=1+2/m", "'@SUM(1)/m"]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"by": "colour"}, "by"),
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-02-30"}, "from"),
        ({"to": "2026-11-22T10:00:00"}, "to"),
        ({"from": "2026-11-22", "to": "2026-11-01"}, "to"),
        ({"from": "2020-01-01", "to": "2026-11-01"}, "to"),
    ],
)
async def test_what_usage_does_not_understand_is_named(tenant: Tenant, params: dict[str, str], field: str) -> None:
    body = refused(await asked(tenant, "/usage", **params), 422, "invalid_input")

    assert body["details"][0]["field"] == field


async def test_a_day_named_as_the_end_is_included(tenant: Tenant) -> None:
    await finished(tenant)
    today = tenant.platform.now.strftime("%Y-%m-%d")
    tomorrow = (tenant.platform.now + timedelta(days=1)).strftime("%Y-%m-%d")

    assert len((await asked(tenant, "/usage", **{"from": today, "to": today})).json()["items"]) == 1
    assert (await asked(tenant, "/usage", **{"from": tomorrow, "to": tomorrow})).json()["items"] == []


async def test_a_budget_warns_then_refuses(tenant: Tenant) -> None:
    async with tenant.client() as client:
        nothing = (await client.get("/budget")).json()
        assert (nothing["daily_micro_credits"], nothing["periods"]) == (None, [])
        await finished(tenant)
        saved = (await client.put("/budget", json={"daily_micro_credits": 2_000, "warn_percent": 50})).json()
        assert [(one["period"], one["spent_micro_credits"], one["warns"]) for one in saved["periods"]] == [
            ("day", 1_000, True),
            ("month", 1_000, False),
        ]
        answer = await client.post("/code-blocks/echo/executions", json=submit_body())
        assert answer.status_code == 202
        assert answer.headers["x-budget-warning"].startswith("1000 of 2000 micro-credits of day")
        await tenant.platform.finish(await tenant.platform.claim(answer.json()["execution_id"]), 1, cpu_ms=CPU_MS)

        body = refused(await client.post("/code-blocks/echo/executions", json=submit_body()), 402, "budget_exhausted")

        detail = body["details"][0]
        assert (detail["field"], detail["spent_micro_credits"], detail["limit_micro_credits"]) == ("day", 2_000, 2_000)
        chat = {"model": "test/echo", "messages": [{"role": "user", "content": "hello"}]}
        async with tenant.platform.client(tenant.token()) as caller:
            refused(await caller.post("/api/v1/gateway/chat/completions", json=chat), 402, "budget_exhausted")
        assert (await client.put("/budget", json={})).json()["periods"] == []
        answer = await client.post("/code-blocks/echo/executions", json=submit_body())
        assert (answer.status_code, "x-budget-warning" in answer.headers) == (202, False)


@pytest.mark.parametrize(
    "body",
    [
        {"daily_micro_credits": -1},
        {"daily_micro_credits": 1.5},
        {"daily_micro_credits": "5"},
        {"monthly_micro_credits": 10**19},
        {"warn_percent": 0},
        {"refuses": "no"},
        {"weekly_micro_credits": 5},
    ],
)
async def test_a_budget_is_checked(tenant: Tenant, body: dict[str, Any]) -> None:
    async with tenant.client() as client:
        refused(await client.put("/budget", json=body), 422, "invalid_input")


async def test_only_admins_set_budgets(tenant: Tenant) -> None:
    for role in (Role.BUILDER, Role.RUNNER, Role.VIEWER):
        async with tenant.client(role) as client:
            refused(await client.put("/budget", json={"daily_micro_credits": 5}), 403, "forbidden")
            assert (await client.get("/budget")).status_code == 200

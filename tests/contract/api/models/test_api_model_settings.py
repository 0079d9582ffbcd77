"""What a workspace configures of the model gateway: aliases, limits, scripts, providers within bounds."""

from __future__ import annotations

from typing import Any

import pytest

from flow_platform.domain.principal import Role
from tests.contract.api.hands import Tenant, refused
from tests.contract.api.models.asking import chat, message

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    return {
        "aliases": {"fast": ["test/echo"]},
        "limits": {"test/limited": {"requests_per_minute": 2}},
        "scripts": {"limited": {"turns": [{"text": "ok"}]}},
    }


async def configure(tenant: Tenant, **settings: Any) -> Any:
    async with tenant.client() as client:
        return await client.put("/model-settings", json=settings)


async def test_settings_are_replaced_and_hold_from_the_next_call_on(tenant: Tenant, other: Tenant) -> None:
    refused(await chat(tenant, model="alias/mine"), 404, "model_not_found")
    settings = {
        "aliases": {"mine": ["test/said"], "fast": ["test/said"]},
        "scripts": {"said": {"turns": [{"text": "mine"}], "then": "repeat"}},
    }

    answer = await configure(tenant, **settings)

    assert (answer.status_code, answer.json()) == (200, settings)
    async with tenant.client(Role.VIEWER) as client:
        assert (await client.get("/model-settings")).json() == settings
    assert message(await chat(tenant, model="alias/mine"))["content"] == "mine"
    assert message(await chat(tenant, model="alias/fast"))["content"] == "mine"
    assert message(await chat(other, model="alias/fast"))["content"] == "hello big world"
    refused(await chat(other, model="alias/mine"), 404, "model_not_found")
    await configure(tenant)
    assert message(await chat(tenant, model="alias/fast"))["content"] == "hello big world"


async def test_only_admins_configure(tenant: Tenant, other: Tenant) -> None:
    for role in (Role.VIEWER, Role.RUNNER, Role.BUILDER):
        async with tenant.client(role) as client:
            refused(await client.put("/model-settings", json={}), 403, "forbidden")
    async with tenant.client() as client:
        refused(await client.put(f"http://flow.test{other.path}/model-settings", json={}), 404, "not_found")


@pytest.mark.parametrize(
    "wrong",
    [
        {"prices": {}},
        {"providers": {"test": {}}},
        {"providers": {"mine": {}}},
        {"providers": {"mine": {"base_url": "http://example.org/v1"}}},
        {"providers": {"mine": {"base_url": "https://127.0.0.1/v1"}}},
        {"providers": {"mine": {"base_url": "https://169.254.169.254/v1"}}},
        {"providers": {"mine": {"base_url": "https://[::1]/v1"}}},
        {"providers": {"mine": {"base_url": "https://localhost/v1"}}},
        {"providers": {"mine": {"base_url": "https://user:pass@example.org/v1"}}},
        {"providers": {"ollama": {}}},
        {"aliases": {"a": ["alias/b"]}},
        {"aliases": {"a": []}},
        {"aliases": {"a": ["gpt"]}},
        {"limits": {"*": {"requests_per_minute": 0}}},
        {"limits": {"nonsense": {}}},
        {"scripts": {"x": {"turns": []}}},
        {"unknown": 1},
    ],
)
async def test_what_has_no_meaning_or_is_not_a_tenants_to_say_is_refused(tenant: Tenant, wrong: Any) -> None:
    refused(await configure(tenant, **wrong), 422, "invalid_input")
    async with tenant.client() as client:
        assert (await client.get("/model-settings")).json() == {}


async def test_settings_that_are_too_large_are_refused(tenant: Tenant) -> None:
    scripts = {"x": {"turns": [{"text": "x" * 300_000}]}}

    refused(await configure(tenant, scripts=scripts), 413, "payload_too_large")


async def test_a_name_that_leads_inside_is_not_called_and_gets_no_key_of_the_platform(tenant: Tenant) -> None:
    # `up` is the operator's, with a key in the platform's environment; now it is another address of the same name.
    providers = {
        "up": {"base_url": "https://up.invalid.example/v1"},
        "inside": {"base_url": "https://127.0.0.1.nip.example/v1", "key": ""},
    }
    assert (await configure(tenant, providers=providers)).status_code == 200

    refused(await chat(tenant, model="up/m"), 422, "model_key_missing")
    # No such name can be resolved here.
    refused(await chat(tenant, model="inside/m"), 502, "upstream_failed")


async def test_limits_of_platform_and_workspace_both_hold(tenant: Tenant, other: Tenant) -> None:
    for _ in range(2):
        assert (await chat(tenant, model="test/limited")).status_code == 200
    answer = await chat(tenant, model="test/limited")
    said = refused(answer, 429, "model_limit")["message"]
    assert "the platform's limit 'test/limited' of 2 requests per minute" in said
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert (await chat(other, model="test/limited")).status_code == 200, "each workspace has its own"

    await configure(other, limits={"*": {"tokens_per_minute": 6}, "test/limited": {"requests_per_minute": 50}})
    assert (await chat(other)).status_code == 200
    assert "'*' of 6 tokens per minute" in refused(await chat(other), 429, "model_limit")["message"]
    # The other model of a chain may have room.
    await configure(other, limits={"test/limited": {"concurrent": 10, "requests_per_minute": 1}})
    for _ in range(2):
        assert (await chat(other, model="test/limited", models=["test/echo"])).status_code == 200
    refused(await chat(other, model="test/limited"), 429, "model_limit")

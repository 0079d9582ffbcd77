"""The client contract, section 1: parameters, environment, attributes, headers."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from uuid import UUID

import httpx
import pytest

import flow_sdk.platform_client
from flow_sdk import PlatformClient, errors
from tests.contract.client.recording_server import RecordingServer, Reply

URL = "http://127.0.0.1:1"
NO_URL = "Platform API URL not provided. Pass base_url parameter or set PLATFORM_API_URL environment variable."
NO_TOKEN = "Authentication token not provided. Pass auth_token parameter or set AUTH_TOKEN environment variable."

# Name -> the parameters after `self` with their defaults, as the contract writes them.
SIGNATURES = {
    "__init__": "base_url=None, auth_token=None, org_id=None, workspace_id=None, timeout=None, "
    "on_auth_token_refresh=None",
    "get_service_skills": "service_id, *, version=None",
    "submit_code_block_execution": "code_block_id, input_parameters, config=None, lifecycle_event='workflow', "
    "ring_id=None, timeout_seconds=300",
    "submit_workflow_execution": "workflow_id, input_data, config=None, lifecycle_event='workflow', ring_id=None, "
    "timeout_seconds=300",
    "submit_agent_execution": "agent_id, input_data, config=None, lifecycle_event='agent_run', ring_id=None, "
    "timeout_seconds=300",
    "get_execution_status": "execution_id",
    "cancel_execution": "execution_id",
    "execute_code_block": "code_block_id, input_parameters, context, scope='workspace', lifecycle_event='workflow', "
    "timeout_seconds=300, caller_deployment_id=None, ring_id=None",
    "execute_workflow": "workflow_id, input_data, context=None, config=None, auto_deploy=True, "
    "lifecycle_event='workflow', caller_deployment_id=None, ring_id=None, timeout_seconds=None",
    "execute_agent": "agent_id, input_data, context, execution_mode='inline', caller_deployment_id=None, "
    "ring_id=None, timeout_seconds=300",
    "execute_transform": "transform_id, input_data, context, caller_deployment_id=None",
    "await_execution_result": "execution_id, *, timeout_seconds=300, poll_interval_seconds=0.5, "
    "not_found_retry_seconds=30.0",
    "fetch_execution_input": "deployment_id, execution_id",
    "push_execution_output": "deployment_id, execution_id, output, usage=None, messages=None, state=None, error=None",
    "push_execution_event": "deployment_id, execution_id, event_type, event_data",
    "publish_execution_status": "execution_id, status",
    "close": "",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_the_contracts(name: str) -> None:
    method = getattr(PlatformClient, name)
    signature = inspect.signature(method)
    bare = [p.replace(annotation=p.empty) for p in list(signature.parameters.values())[1:]]
    assert str(inspect.Signature(bare)) == f"({SIGNATURES[name]})"
    assert name == "__init__" or inspect.iscoroutinefunction(method)


def test_both_import_paths_give_the_same_class() -> None:
    assert flow_sdk.PlatformClient is flow_sdk.platform_client.PlatformClient
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = flow_sdk.Nothing


@pytest.mark.parametrize("url", [None, ""])
def test_url_is_checked_before_the_token(url: str | None) -> None:
    with pytest.raises(ValueError, match="not provided") as caught:
        PlatformClient(base_url=url)
    assert str(caught.value) == NO_URL


@pytest.mark.parametrize("token", [None, ""])
def test_token_is_required(token: str | None) -> None:
    with pytest.raises(ValueError, match="not provided") as caught:
        PlatformClient(base_url=URL, auth_token=token)
    assert str(caught.value) == NO_TOKEN


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://host:port"])
def test_a_url_that_cannot_be_one_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="is not valid") as caught:
        PlatformClient(base_url=url, auth_token="t")
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize("empty", [None, ""])
async def test_url_and_token_fall_through_to_the_environment(
    empty: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATFORM_API_URL", URL)
    monkeypatch.setenv("AUTH_TOKEN", "from-env")
    async with PlatformClient(base_url=empty, auth_token=empty) as client:
        assert (client.base_url, client.auth_token) == (URL, "from-env")
    async with PlatformClient(base_url="http://other", auth_token="mine") as client:
        assert (client.base_url, client.auth_token) == ("http://other", "mine")


UUID_TEXT = "0192f0c1-2222-7333-8444-555566667777"


@pytest.mark.parametrize(
    ("given", "variable", "expected"),
    [
        (None, None, None),
        (None, "env", "env"),
        (None, "  env ", "env"),
        (None, "", None),
        ("mine", "env", "mine"),
        (" mine\n", "env", "mine"),
        ("", "env", None),
        ("   ", "env", None),
        (UUID(UUID_TEXT), "env", UUID_TEXT),
    ],
)
async def test_ids(
    given: str | UUID | None, variable: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("ORG_ID", variable)
        monkeypatch.setenv("WORKSPACE_ID", variable)
    async with PlatformClient(base_url=URL, auth_token="t", org_id=given, workspace_id=given) as client:
        assert (client.org_id, client.workspace_id) == (expected, expected)


@pytest.mark.parametrize(
    ("given", "variable", "expected"), [(None, None, 300.0), (None, "12.5", 12.5), (7, "12.5", 7.0), (None, "", 300.0)]
)
async def test_timeout(
    given: float | None, variable: str | None, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("PLATFORM_API_TIMEOUT", variable)
    async with PlatformClient(base_url=URL, auth_token="t", timeout=given) as client:
        assert client.client.timeout.read == expected


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan"])
def test_a_timeout_without_meaning_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_API_TIMEOUT", value)
    with pytest.raises(ValueError, match=f"PLATFORM_API_TIMEOUT '{value}' is not valid"):
        PlatformClient(base_url=URL, auth_token="t")


async def test_headers_of_every_request(
    server: RecordingServer, make_client: Callable[..., PlatformClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARENT_BILLING_TXN_ID", "txn-1")
    monkeypatch.setenv("LIFECYCLE_EVENT", "test")
    client = make_client()
    server.answer(Reply(200, {"status": "running"}), Reply(200, {}), Reply(200, {}))
    await client.get_execution_status("e1")
    await client.cancel_execution("e1")
    await client.client.get("/own")  # A program's own request through the attribute.
    for request in server.requests:
        assert request.header("Authorization") == "Bearer t0ken"
        assert request.header("X-Parent-Billing-Txn-Id") == "txn-1"
        assert request.header("X-Lifecycle-Event") == "test"
    assert server.requests[2].line == "GET /own HTTP/1.1"


async def test_billing_headers_only_when_set(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(Reply(200, {"status": "running"}))
    await client.get_execution_status("e1")
    assert server.requests[0].header("X-Parent-Billing-Txn-Id") is None
    assert server.requests[0].header("X-Lifecycle-Event") is None


async def test_setting_the_token_changes_the_next_request(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(Reply(200, {}))
    client.auth_token = "other"
    await client.get_execution_status("e1")
    assert server.requests[0].header("Authorization") == "Bearer other"


async def test_another_http_client_may_take_the_place(client: PlatformClient) -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"status": "completed"})

    await client.client.aclose()
    client.client = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    assert await client.get_execution_status("e1") == {"status": "completed"}
    assert seen[0].headers["Authorization"] == "Bearer t0ken"


async def test_closing_is_idempotent_and_final(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(Reply(200, {}))
    await client.get_execution_status("e1")
    await client.close()
    await client.close()
    with pytest.raises(errors.PlatformClientError, match="the client is closed"):
        await client.get_execution_status("e1")


async def test_base_url_with_a_path_and_a_slash(
    server: RecordingServer, make_client: Callable[..., PlatformClient]
) -> None:
    server.answer(Reply(200, {}))
    await make_client(base_url=server.url + "/behind/proxy/").get_execution_status("e1")
    assert server.requests[0].path == "/behind/proxy/api/v1/orgs/o1/workspaces/w1/executions/e1"


def test_import_loads_neither_http_library_nor_pydantic_nats_logfire() -> None:
    script = (
        "import sys, flow_sdk; print([m for m in ('httpx', 'pydantic', 'nats', 'logfire_api') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    script = script.replace("import sys, flow_sdk;", "import sys; from flow_sdk import PlatformClient;")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['httpx']"

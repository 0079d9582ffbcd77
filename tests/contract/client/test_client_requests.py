"""The client contract, section 2: each request to the byte."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from flow_sdk import PlatformClient, errors
from tests.contract.client.recording_server import RecordingServer, Reply

W = "/api/v1/orgs/o1/workspaces/w1"
RING = UUID("0192f0c1-2222-7333-8444-555566667777")
ID = UUID("0192f0c1-0000-7000-8000-000000000001")
DONE = Reply(200, {"execution_id": "e1", "status": "completed", "output": 1})
ACCEPTED = Reply(202, {"execution_id": "e1", "status": "queued"})

Action = Callable[[PlatformClient], Awaitable[Any]]


@dataclass(frozen=True)
class Case:
    name: str
    action: Action
    line: str
    body: str
    reply: Reply


CASES = [
    Case(
        "submit code block, defaults",
        lambda c: c.submit_code_block_execution("cb", {"a": 1}, ring_id="r"),
        f"POST {W}/code-blocks/cb/executions",
        '{"input_parameters":{"a":1},"config":{},"lifecycle_event":"workflow","ring_id":"r","timeout_seconds":300}',
        ACCEPTED,
    ),
    Case(
        "submit code block, everything, ids as UUID",
        lambda c: c.submit_code_block_execution(ID, {}, {"k": "v"}, "test", RING, 12.5),
        f"POST {W}/code-blocks/{ID}/executions",
        '{"input_parameters":{},"config":{"k":"v"},"lifecycle_event":"test",'
        f'"ring_id":"{RING}","timeout_seconds":12.5}}',
        ACCEPTED,
    ),
    Case(
        "submit workflow",
        lambda c: c.submit_workflow_execution("wf", [1, "ä"], ring_id="r"),
        f"POST {W}/workflows/wf/executions",
        '{"input_data":[1,"ä"],"config":{},"lifecycle_event":"workflow","ring_id":"r","timeout_seconds":300}',
        ACCEPTED,
    ),
    Case(
        "submit agent",
        lambda c: c.submit_agent_execution("ag", {"prompt": "hi"}, ring_id="r"),
        f"POST {W}/agents/ag/executions",
        '{"input_data":{"prompt":"hi"},"config":{},"lifecycle_event":"agent_run","ring_id":"r","timeout_seconds":300}',
        ACCEPTED,
    ),
    Case(
        "values that JSON does not know",
        lambda c: c.submit_code_block_execution(
            "cb",
            {"d": date(2026, 1, 2), "u": RING, "n": Decimal("1.50"), "t": datetime(2026, 1, 2, tzinfo=UTC)},
            ring_id="r",
        ),
        f"POST {W}/code-blocks/cb/executions",
        f'{{"input_parameters":{{"d":"2026-01-02","u":"{RING}","n":"1.50","t":"2026-01-02 00:00:00+00:00"}},'
        '"config":{},"lifecycle_event":"workflow","ring_id":"r","timeout_seconds":300}',
        ACCEPTED,
    ),
    Case(
        "execute agent inline",
        lambda c: c.execute_agent("ag", {"prompt": "hi"}, {}),
        "POST /api/v1/component-execution/agents/ag/execute",
        '{"input_data":{"prompt":"hi"},"execution_mode":"inline","caller_deployment_id":null}',
        DONE,
    ),
    Case(
        "execute agent inline, everything",
        lambda c: c.execute_agent("ag", 1, {"k": 1}, caller_deployment_id=ID, ring_id=RING, timeout_seconds=9),
        "POST /api/v1/component-execution/agents/ag/execute",
        f'{{"input_data":1,"execution_mode":"inline","caller_deployment_id":"{ID}","context":{{"k":1}},'
        f'"ring_id":"{RING}","timeout_seconds":9}}',
        DONE,
    ),
    Case(
        "execute transform",
        lambda c: c.execute_transform("tr", {"x": None}, {}),
        "POST /api/v1/component-execution/transforms/tr/execute",
        '{"input_data":{"x":null},"caller_deployment_id":null}',
        DONE,
    ),
    Case(
        "execute transform, everything",
        lambda c: c.execute_transform("tr", 1, {"k": 1}, ID),
        "POST /api/v1/component-execution/transforms/tr/execute",
        f'{{"input_data":1,"caller_deployment_id":"{ID}","context":{{"k":1}}}}',
        DONE,
    ),
    Case("status", lambda c: c.get_execution_status(ID), f"GET {W}/executions/{ID}", "", DONE),
    Case("cancel", lambda c: c.cancel_execution(ID), f"POST {W}/executions/{ID}/cancel", "", DONE),
    Case("skills", lambda c: c.get_service_skills("s"), "GET /api/v1/orgs/o1/services/s/skills.json", "", DONE),
    Case(
        "skills of a version",
        lambda c: c.get_service_skills("s", version=3),
        "GET /api/v1/orgs/o1/services/s/v3/skills.json",
        "",
        DONE,
    ),
    Case(
        "an id is one segment of the path",
        lambda c: c.get_execution_status("a/../b?c#d e%"),
        f"GET {W}/executions/a%2F..%2Fb%3Fc%23d%20e%25",
        "",
        DONE,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_one_request(case: Case, server: RecordingServer, client: PlatformClient) -> None:
    server.answer(case.reply)
    assert await case.action(client) == case.reply.body
    (request,) = server.requests
    assert request.line == f"{case.line} HTTP/1.1"
    assert request.body.decode() == case.body
    host = server.url.removeprefix("http://")
    expected = [
        ("Host", host),
        ("Accept", "application/json"),
        ("Accept-Encoding", request.header("Accept-Encoding")),  # What httpx can decode here.
        ("Connection", "keep-alive"),
        ("User-Agent", "flow-sdk"),
        ("Authorization", "Bearer t0ken"),
    ]
    if case.body:
        expected += [("Content-Type", "application/json"), ("Content-Length", str(len(request.body)))]
    if request.line.startswith("POST"):
        key = request.header("Idempotency-Key")
        assert key is not None
        assert re.fullmatch(r"[0-9a-f]{32}", key)
        expected += [("Idempotency-Key", key)]
        expected += [] if case.body else [("Content-Length", "0")]
    assert sorted(request.headers) == sorted(expected)


COMMON = '"lifecycle_event":"{event}","ring_id":{ring},"timeout_seconds":{seconds}'
EXECUTES = [
    (
        "code block, context becomes config",
        lambda c: c.execute_code_block("cb", {"a": 1}, {"k": 1}, ring_id=RING),
        f"{W}/code-blocks/cb/executions",
        '{"input_parameters":{"a":1},"config":{"k":1},'
        + COMMON.format(event="workflow", ring=f'"{RING}"', seconds=300)
        + "}",
    ),
    (
        "code block, no context, what differs from its default",
        lambda c: c.execute_code_block(
            "cb", {}, None, scope="organization", timeout_seconds=9, caller_deployment_id=ID
        ),
        f"{W}/code-blocks/cb/executions",
        '{"input_parameters":{},"config":{},'
        + COMMON.format(event="workflow", ring="null", seconds=9)
        + f',"scope":"organization","caller_deployment_id":"{ID}"}}',
    ),
    (
        "workflow, defaults",
        lambda c: c.execute_workflow("wf", {}, ring_id="r"),
        f"{W}/workflows/wf/executions",
        '{"input_data":{},"config":{},' + COMMON.format(event="workflow", ring='"r"', seconds=300) + "}",
    ),
    (
        "workflow, context where there is no config",
        lambda c: c.execute_workflow("wf", {}, {"c": 1}, {}, ring_id="r"),
        f"{W}/workflows/wf/executions",
        '{"input_data":{},"config":{"c":1},' + COMMON.format(event="workflow", ring='"r"', seconds=300) + "}",
    ),
    (
        "workflow, everything",
        lambda c: c.execute_workflow(
            "wf", {}, {"c": 1}, {"f": 2}, False, "test", caller_deployment_id=ID, ring_id="r", timeout_seconds=60
        ),
        f"{W}/workflows/wf/executions",
        '{"input_data":{},"config":{"f":2},'
        + COMMON.format(event="test", ring='"r"', seconds=60)
        + f',"context":{{"c":1}},"auto_deploy":false,"caller_deployment_id":"{ID}"}}',
    ),
    (
        "isolated agent",
        lambda c: c.execute_agent("ag", {}, {"k": 1}, "isolated", ring_id="r"),
        f"{W}/agents/ag/executions",
        '{"input_data":{},"config":{"k":1},' + COMMON.format(event="agent_run", ring='"r"', seconds=300) + "}",
    ),
]


@pytest.mark.parametrize(("name", "action", "path", "body"), EXECUTES, ids=[case[0] for case in EXECUTES])
async def test_execute_submits_and_awaits(
    name: str, action: Action, path: str, body: str, server: RecordingServer, client: PlatformClient
) -> None:
    failed = Reply(200, {"execution_id": "e1", "status": "FAILED", "error": {"code": "component_error"}})
    server.answer(ACCEPTED, failed)
    assert await action(client) == failed.body, "a terminal document is returned, also a failed one"
    submit, read = server.requests
    assert (submit.line, submit.body.decode()) == (f"POST {path} HTTP/1.1", body)
    assert read.line == f"GET {W}/executions/e1 HTTP/1.1"
    prefer = read.header("Prefer")
    assert prefer is not None
    assert re.fullmatch(r"wait=\d+", prefer)


async def test_a_plain_status_read_is_not_held(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(DONE)
    await client.get_execution_status("e1")
    assert server.requests[0].header("Prefer") is None


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        (lambda c: c.submit_code_block_execution("x", {}), "code block"),
        (lambda c: c.submit_workflow_execution("x", {}), "workflow"),
        (lambda c: c.submit_agent_execution("x", {}), "agent"),
        (lambda c: c.execute_code_block("x", {}, {}), "code block"),
        (lambda c: c.execute_workflow("x", {}), "workflow"),
        (lambda c: c.execute_agent("x", {}, {}, "isolated"), "agent"),
        (lambda c: c.submit_code_block_execution("x", {}, ring_id=""), "code block"),
    ],
)
async def test_a_ring_is_required(action: Action, kind: str, server: RecordingServer, client: PlatformClient) -> None:
    with pytest.raises(errors.PlatformClientError) as caught:
        await action(client)
    assert str(caught.value) == f"ring_id is required for {kind} execution"
    assert not server.requests


async def test_what_cannot_be_asked_is_not_sent(
    server: RecordingServer, make_client: Callable[..., PlatformClient]
) -> None:
    with pytest.raises(errors.PlatformClientError, match=r"^ORG_ID is required to fetch service skills$"):
        await make_client(org_id="").get_service_skills("s")
    with pytest.raises(errors.PlatformClientError, match="ORG_ID is required"):
        await make_client(org_id="").get_execution_status("e")
    with pytest.raises(errors.PlatformClientError, match="WORKSPACE_ID is required"):
        await make_client(workspace_id="").get_execution_status("e")
    for bad in ("", ".", "..", "\ud800"):
        with pytest.raises(errors.PlatformValidationError, match=r"execution_id '.*' is not valid"):
            await make_client().get_execution_status(bad)
    assert not server.requests


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {("a",): 1}, CYCLE, "\ud800"], ids=repr)
async def test_input_that_is_not_json(value: Any, server: RecordingServer, client: PlatformClient) -> None:
    with pytest.raises(errors.PlatformValidationError, match="cannot be sent as JSON") as caught:
        await client.submit_workflow_execution("wf", value, ring_id="r")
    assert caught.value.code == "not_json"
    assert not server.requests


@pytest.mark.parametrize("answer", [b"[1]", b'"x"', b"null", b"<html>"])
async def test_skills_that_are_not_an_object(answer: bytes, server: RecordingServer, client: PlatformClient) -> None:
    server.answer(Reply(200, answer))
    with pytest.raises(errors.PlatformClientError, match=r"^Unexpected non-JSON skills response$"):
        await client.get_service_skills("s")


async def test_no_request_is_repeated_without_a_retry_in_the_contract(
    server: RecordingServer, client: PlatformClient
) -> None:
    server.answer(Reply(503, {}))
    with pytest.raises(errors.PlatformServerError):
        await client.get_service_skills("s")
    assert len(server.requests) == 1

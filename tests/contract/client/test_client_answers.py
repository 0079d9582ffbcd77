"""Every answer that is not the expected one is an error of the client's own tree."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

import flow_sdk
from flow_sdk import PlatformClient, errors
from tests.contract.client.recording_server import HANG_UP, RecordingServer, Reply

BY_STATUS = [
    (400, errors.PlatformValidationError),
    (401, errors.PlatformAuthError),
    (402, errors.PlatformClientError),
    (403, errors.PlatformPermissionError),
    (404, errors.PlatformNotFoundError),
    (405, errors.PlatformClientError),
    (409, errors.PlatformConflictError),
    (413, errors.PlatformValidationError),
    (422, errors.PlatformValidationError),
    (500, errors.PlatformServerError),
    (501, errors.PlatformServerError),
    (507, errors.PlatformServerError),
]


@pytest.mark.parametrize(("status", "kind"), BY_STATUS)
async def test_each_status_has_its_class(
    status: int, kind: type[errors.PlatformClientError], server: RecordingServer, client: PlatformClient
) -> None:
    details = [{"field": "input", "message": "expected an object"}]
    body = {"code": "some_code", "message": "that's wrong", "details": details, "request_id": "req-1", "unknown": 1}
    server.answer(Reply(status, body))
    with pytest.raises(errors.PlatformClientError) as caught:
        await client.submit_code_block_execution("cb", {}, ring_id="r")
    error = caught.value
    assert type(error) is kind
    assert (error.status_code, error.code, error.details, error.request_id) == (status, "some_code", details, "req-1")
    assert str(error) == (
        f"POST /api/v1/orgs/o1/workspaces/w1/code-blocks/cb/executions answered {status} some_code: that's wrong"
    )
    assert len(server.requests) == 1, "it cannot get better"


def test_the_tree_is_the_one_in_the_header() -> None:
    drawn = [line.split("── ")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "── " in line]
    below = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.PlatformClientError)
    ]
    below.remove(errors.PlatformClientError)
    assert sorted(drawn) == sorted(kind.__name__ for kind in below)
    for kind in [*below, errors.PlatformClientError]:
        assert kind.__base__ in {errors.PlatformClientError, errors.PlatformExecutionError, Exception}
        assert getattr(flow_sdk, kind.__name__) is kind
        assert getattr(flow_sdk.platform_client, kind.__name__) is kind


def test_errors_survive_pickling() -> None:
    error = errors.PlatformRateLimitError("slow down", status_code=429, code="c", request_id="r", retry_after=2.0)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes.
    assert (str(copy), vars(copy)) == (str(error), vars(error))


@pytest.mark.parametrize(
    ("reply", "message", "code"),
    [
        (Reply(404, b"<h1>nginx</h1>", {"X-Request-ID": "req-2"}), "<h1>nginx</h1>", None),
        (Reply(404, {"detail": "Not Found"}, {"X-Request-ID": "req-2"}), "Not Found", None),
        (Reply(404, {"code": 7, "details": "none"}, {"X-Request-ID": "req-2"}), "", None),
        (Reply(404, [1], {"X-Request-ID": "req-2"}), "[1]", None),
        (Reply(404, None, {"X-Request-ID": "req-2"}), "", None),
        (Reply(404, b"\xff" * 300, {"X-Request-ID": "req-2"}), "", None),
    ],
)
async def test_bodies_of_other_shapes(
    reply: Reply, message: str, code: str | None, server: RecordingServer, client: PlatformClient
) -> None:
    server.answer(reply)
    with pytest.raises(errors.PlatformNotFoundError) as caught:
        await client.get_execution_status("e")
    assert (caught.value.code, caught.value.details, caught.value.request_id) == (code, [], "req-2")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


Action = Callable[[PlatformClient], Awaitable[Any]]


@pytest.mark.parametrize(
    ("action", "status", "expected"),
    [
        (lambda c: c.submit_code_block_execution("x", {}, ring_id="r"), 200, 202),
        (lambda c: c.submit_workflow_execution("x", {}, ring_id="r"), 201, 202),
        (lambda c: c.submit_agent_execution("x", {}, ring_id="r"), 204, 202),
        (lambda c: c.get_execution_status("x"), 202, 200),
        (lambda c: c.cancel_execution("x"), 204, 200),
        (lambda c: c.execute_transform("x", {}, {}), 202, 200),
        (lambda c: c.execute_agent("x", {}, {}), 202, 200),
        (lambda c: c.get_service_skills("x"), 206, 200),
    ],
)
async def test_an_unexpected_success_raises(
    action: Action, status: int, expected: int, server: RecordingServer, client: PlatformClient
) -> None:
    server.answer(Reply(status, None if status == 204 else {"execution_id": "e"}))
    with pytest.raises(errors.PlatformClientError, match=f"answered {status}, expected {expected}") as caught:
        await action(client)
    assert (type(caught.value), caught.value.status_code) == (errors.PlatformClientError, status)


async def test_redirects_are_not_followed(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(Reply(307, None, {"Location": server.url + "/elsewhere"}))
    with pytest.raises(errors.PlatformClientError, match="answered 307"):
        await client.get_execution_status("e")
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", None, b"\xff", b"[" * 100_000])
async def test_answers_that_are_not_an_object(
    body: bytes | None, server: RecordingServer, client: PlatformClient
) -> None:
    server.answer(Reply(200, body), Reply(202, body))
    with pytest.raises(errors.PlatformClientError, match=r"is not (JSON|a JSON object)"):
        await client.get_execution_status("e")
    with pytest.raises(errors.PlatformClientError, match=r"is not (JSON|a JSON object)"):
        await client.submit_workflow_execution("w", {}, ring_id="r")


async def test_a_cancel_may_answer_nothing(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(Reply(200, None))
    assert await client.cancel_execution("e") == {}


async def test_an_accepted_execution_without_an_id(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(Reply(202, {"status": "queued"}))
    with pytest.raises(errors.PlatformClientError, match=r"named none: {'status': 'queued'}"):
        await client.execute_code_block("cb", {}, {}, ring_id="r")


async def test_nobody_listens(make_client: Callable[..., PlatformClient]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        client = make_client(base_url=f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(errors.PlatformConnectionError, match="had no answer: ConnectError") as caught:
            await client.get_service_skills("s")
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert caught.value.status_code is None


@pytest.mark.parametrize("raw", [HANG_UP.raw, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", b"SSH-2.0-x\r\n\r\n"])
async def test_a_broken_answer(raw: bytes, server: RecordingServer, client: PlatformClient) -> None:
    server.answer(Reply(raw=raw))
    with pytest.raises(errors.PlatformConnectionError, match="had no answer") as caught:
        await client.get_service_skills("s")
    assert isinstance(caught.value.__cause__, httpx.HTTPError)


async def test_a_body_that_cannot_be_decoded(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(Reply(200, b"not gzip", {"Content-Encoding": "gzip"}))
    with pytest.raises(errors.PlatformConnectionError, match="DecodingError"):
        await client.get_execution_status("e")
    assert len(server.requests) == 1


async def test_a_token_that_cannot_be_a_header(
    server: RecordingServer, make_client: Callable[..., PlatformClient]
) -> None:
    with pytest.raises(errors.PlatformClientError, match="line break"):
        await make_client(auth_token="a\r\nX-Evil: 1").get_execution_status("e")
    assert not server.requests

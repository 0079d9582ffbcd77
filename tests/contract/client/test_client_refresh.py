"""A newer token is taken from any answer; an expired one is refreshed once, for all calls together."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from flow_sdk import PlatformClient, errors
from tests.contract.client.recording_server import Recorded, RecordingServer, Reply

DONE = {"execution_id": "e1", "status": "completed"}
EXPIRED = Reply(401, {"code": "token_expired", "message": "the token expired"})


class TokenServer:
    """Takes only the newest token, and hands it out on refresh: in the header, the body or both."""

    def __init__(self, server: RecordingServer, answer: Callable[[str], Reply]) -> None:
        self.refreshes = 0
        self.valid = "new-0"
        self._answer = answer
        server.handler = self.handle

    async def handle(self, request: Recorded) -> Reply:
        if request.path == "/api/v1/auth/refresh":
            self.refreshes += 1
            self.valid = f"new-{self.refreshes}"
            return self._answer(self.valid)
        if request.header("Authorization") != f"Bearer {self.valid}":
            return EXPIRED
        return Reply(200, DONE)


def in_header(token: str) -> Reply:
    return Reply(200, None, {"X-Auth-Token": token})


def in_body(token: str) -> Reply:
    return Reply(200, {"token": token, "expires_at": "2026-01-01T00:00:00Z"})


def in_both(token: str) -> Reply:
    return Reply(200, {"token": token}, {"X-Auth-Token": token})


@pytest.mark.parametrize("answer", [in_header, in_body, in_both])
async def test_an_expired_token_is_refreshed_and_the_call_repeated(
    answer: Callable[[str], Reply], server: RecordingServer, make_client: Callable[..., PlatformClient]
) -> None:
    told: list[str] = []

    async def on_refresh(token: str) -> None:
        told.append(token)

    tokens = TokenServer(server, answer)
    client = make_client(auth_token="old", on_auth_token_refresh=on_refresh)
    assert await client.cancel_execution("e1") == DONE
    first, refresh, second = server.requests
    assert refresh.line == "POST /api/v1/auth/refresh HTTP/1.1"
    assert refresh.header("Authorization") == "Bearer old"
    assert refresh.body == b""
    assert second.header("Authorization") == "Bearer new-1"
    assert first.header("Idempotency-Key") == second.header("Idempotency-Key")
    assert (tokens.refreshes, told, client.auth_token) == (1, ["new-1"], "new-1")


async def test_refreshes_at_the_same_time_are_one(
    server: RecordingServer, make_client: Callable[..., PlatformClient]
) -> None:
    tokens = TokenServer(server, in_both)
    client = make_client(auth_token="old")
    results = await asyncio.gather(*(client.get_execution_status(f"e{number}") for number in range(20)))
    assert results == [DONE] * 20
    assert tokens.refreshes == 1


async def test_only_one_refresh_for_a_call(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(EXPIRED, in_body("new"), EXPIRED)
    with pytest.raises(errors.PlatformAuthError) as caught:
        await client.get_execution_status("e1")
    assert (caught.value.code, len(server.requests)) == ("token_expired", 3)


@pytest.mark.parametrize(
    "refusal", [Reply(401, {"code": "token_expired"}), Reply(403, {}), Reply(200, {"no": "token"})]
)
async def test_a_refresh_that_fails_raises_the_first_error(
    refusal: Reply, server: RecordingServer, client: PlatformClient
) -> None:
    server.answer(EXPIRED, refusal)
    with pytest.raises(errors.PlatformAuthError, match=r"GET .*/executions/e1 answered 401 token_expired") as caught:
        await client.get_execution_status("e1")
    assert isinstance(caught.value.__cause__, errors.PlatformClientError)
    assert len(server.requests) == 2


@pytest.mark.parametrize("code", ["token_invalid", "unauthenticated", None])
async def test_another_401_is_not_refreshed(code: str | None, server: RecordingServer, client: PlatformClient) -> None:
    server.answer(Reply(401, {"code": code}))
    with pytest.raises(errors.PlatformAuthError):
        await client.get_execution_status("e1")
    assert len(server.requests) == 1


async def test_a_newer_token_in_any_answer_is_used_from_then_on(
    server: RecordingServer, make_client: Callable[..., PlatformClient]
) -> None:
    told: list[str] = []

    async def on_refresh(token: str) -> None:
        told.append(token)

    server.answer(
        Reply(404, {"code": "not_found"}, {"X-Auth-Token": "second"}),
        Reply(200, DONE, {"X-Auth-Token": "second"}),
        Reply(200, DONE),
    )
    client = make_client(on_auth_token_refresh=on_refresh)
    with pytest.raises(errors.PlatformNotFoundError):
        await client.get_execution_status("e1")
    await client.get_execution_status("e1")
    await client.get_execution_status("e1")
    sent = [request.header("Authorization") for request in server.requests]
    assert sent == ["Bearer t0ken", "Bearer second", "Bearer second"]
    assert told == ["second"]
    assert client.client.headers["Authorization"] == "Bearer second"


async def test_an_error_of_the_callback_is_logged_and_does_not_fail_the_call(
    server: RecordingServer, make_client: Callable[..., PlatformClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[tuple[str, dict[str, Any]]] = []
    logfire = types.ModuleType("logfire")
    for level in ("debug", "info", "warn", "error"):
        setattr(logfire, level, lambda message, **fields: logged.append((message, fields)))
    monkeypatch.setitem(sys.modules, "logfire", logfire)
    monkeypatch.delitem(sys.modules, "logfire_api", raising=False)

    async def on_refresh(_: str) -> None:
        raise RuntimeError("the program's own fault")

    server.answer(Reply(200, DONE, {"X-Auth-Token": "second"}))
    assert await make_client(on_auth_token_refresh=on_refresh).get_execution_status("e1") == DONE
    (fields,) = [fields for message, fields in logged if message == "on_auth_token_refresh raised"]
    assert str(fields["_exc_info"]) == "the program's own fault"
    monkeypatch.delitem(sys.modules, "logfire_api", raising=False)


async def test_without_logfire_nothing_is_said(
    server: RecordingServer,
    make_client: Callable[..., PlatformClient],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def on_refresh(_: str) -> None:
        raise RuntimeError("the program's own fault")

    server.answer(Reply(503, {}), Reply(200, DONE, {"X-Auth-Token": "second"}))
    await make_client(on_auth_token_refresh=on_refresh).get_execution_status("e1")
    assert (*capfd.readouterr(), [r for r in caplog.records if r.name.startswith("flow")]) == ("", "", [])

"""Our speaker of MCP against servers of the official SDK, in each shape of the protocol, and against broken ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from flow_sdk.harness.failure import Refused
from flow_sdk.mcp import messages
from flow_sdk.mcp.calls import answer
from flow_sdk.mcp.stdio import environment
from tests.support.flow_program import eventually
from tests.support.mcp_things import PIXEL, make

TOOLS = {"weather", "shout", "files.read", "fails", "variables", "whole", "says"}
SERVER = str(Path(__file__).parents[1] / "support" / "mcp_things.py")


@contextlib.contextmanager
def served(app: ASGIApp) -> Generator[str]:
    """The address of an application, served by a thread."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, interface="asgi3"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp"
    server.should_exit = server.force_exit = True
    thread.join()


def without_handshake(app: ASGIApp) -> ASGIApp:
    """A server that knows no `initialize` any more."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await app(scope, receive, send)
            return
        message = await receive()
        if b'"initialize"' in message["body"]:
            asked = json.loads(message["body"])
            error = {"code": -32601, "message": "Method not found"}
            refusal = JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "error": error}, 400)
            await refusal(scope, receive, send)
            return

        held = [message]

        async def again() -> Any:
            return held.pop() if held else await receive()

        await app(scope, again, send)

    return answered


APPS: dict[str, Callable[[], ASGIApp]] = {
    "sessions": lambda: make().streamable_http_app(),
    "stateless": lambda: make().streamable_http_app(stateless_http=True, json_response=True),
    "no handshake": lambda: without_handshake(make().streamable_http_app()),
}


@pytest.fixture(scope="module", params=list(APPS))
def things(request: pytest.FixtureRequest) -> Generator[tuple[str, dict[str, Any]]]:
    with served(APPS[request.param]()) as url:
        yield request.param, {"transport": "http", "url": url}


def refusal_of(settings: dict[str, Any], name: str = "", **arguments: Any) -> tuple[str, str]:
    method: Any = "tools/call" if name else "tools/list"
    with pytest.raises(Refused) as caught:
        answer(settings, method, name, arguments)
    return caught.value.document.code, caught.value.document.message


def test_tools_of_a_server_are_listed_and_called_in_each_shape(things: tuple[str, dict[str, Any]]) -> None:
    shape, settings = things

    listed = answer(settings, "tools/list", "", {})
    weather = answer(settings, "tools/call", "weather", {"city": "Bern"})
    picture = answer(settings, "tools/call", "files.read", {})
    long = answer(settings, "tools/call", "shout", {"text": "ä" * 100_000})

    assert {tool["name"] for tool in listed["tools"]} == TOOLS
    assert listed["server"] == {"name": "things", "version": "1.2"}
    assert listed["protocol"] == ("2026-07-28" if shape == "no handshake" else "2025-11-25")
    assert weather["structuredContent"] == {"city": "Bern", "degrees": 21}
    assert json.loads(weather["content"][0]["text"]) == {"city": "Bern", "degrees": 21}
    assert [block["type"] for block in picture["content"]] == ["text", "image"]
    assert len(picture["content"][1]["data"]) == -(-len(PIXEL) // 3) * 4
    assert long["structuredContent"] == {"result": "Ä" * 100_000}


def test_what_a_tool_refuses_is_an_error_with_its_words(things: tuple[str, dict[str, Any]]) -> None:
    _, settings = things

    code, message = refusal_of(settings, "weather", city="B")
    unknown, which = refusal_of(settings, "wether")

    assert code == "mcp_tool_error"
    assert "at least 2 characters" in message
    assert unknown in ("mcp_tool_error", "mcp_refused")
    assert "wether" in which


def test_a_program_is_started_asked_and_ended(capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"transport": "stdio", "command": ["python", SERVER], "env": {"WORD": "hello"}, "secrets": ["HOME"]}

    given = answer(settings, "tools/call", "variables", {})["structuredContent"]

    assert given["WORD"] == "hello"
    assert "HOME" in given
    eventually(lambda: "looked at the variables" in capsys.readouterr().err)


def test_a_program_gets_no_credential_of_the_execution(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUTH_TOKEN", "NATS_URL", "PLATFORM_API_URL", "OTHER_SECRET", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "x")

    given = environment({"MINE": "y"})

    assert given.keys() & {"AUTH_TOKEN", "NATS_URL", "PLATFORM_API_URL", "OTHER_SECRET"} == set()
    assert (given["MINE"], given["HTTPS_PROXY"]) == ("y", "x")


SHORT_SECONDS = 2.0  # For what never answers: a busy machine has to get as far as the question in this time.


def script(code: str, seconds: float = 60.0) -> dict[str, Any]:
    """A program in Python's isolated mode: it starts in a fifth of the time."""
    return {"transport": "stdio", "command": [sys.executable, "-IS", "-c", code], "timeout_seconds": seconds}


SHAKES = (
    "import json, sys\n"
    "def say(**m): print(json.dumps({'jsonrpc': '2.0', **m}), flush=True)\n"
    "for line in sys.stdin:\n"
    "    m = json.loads(line)\n"
    "    if m['method'] == 'initialize':\n"
    "        say(id=m['id'], result={'protocolVersion': '2025-06-18', 'capabilities': {}, 'serverInfo': {}})\n"
)


@pytest.mark.parametrize(
    ("code", "expected", "said"),
    [
        ("import sys; sys.exit('no key')", "mcp_unreachable", "ended with exit code 1 before it answered 'initialize'"),
        ("import sys; sys.exit('no key')", "mcp_unreachable", "it wrote: no key"),
        ("print('hello')", "mcp_unreachable", "exit code 0 before it answered 'initialize'; it wrote: hello"),
        (f"{SHAKES}    elif 'id' in m: say(id=m['id'], result=3)", "mcp_protocol_error", "neither a result"),
        (f"{SHAKES}    elif 'id' in m: say(id=m['id'], result={{}})", "mcp_protocol_error", "listed no tools"),
        (
            f"{SHAKES}    elif 'id' in m: say(id=m['id'], error={{'code': -1, 'message': 'go away'}})",
            "mcp_refused",
            "refused 'tools/list': go away (-1)",
        ),
        (
            f"{SHAKES}    elif 'id' in m: say(id=m['id'], result={{'tools': [], 'nextCursor': 'x'}})",
            "mcp_protocol_error",
            "more than 100 pages",
        ),
        (SHAKES.replace("2025-06-18", "1999-01-01"), "mcp_protocol_error", "speaks version '1999-01-01'"),
    ],
)
def test_a_program_that_is_no_good_server_is_told_of(code: str, expected: str, said: str) -> None:
    found, message = refusal_of(script(code))

    assert found == expected
    assert said in message


def test_a_program_that_does_not_answer_in_time_is_told_of() -> None:
    found, message = refusal_of(script(SHAKES, SHORT_SECONDS))

    assert found == "mcp_timeout"
    assert f"did not answer 'tools/list' within {SHORT_SECONDS:g} s" in message


def test_what_a_program_prints_and_asks_does_not_confuse_it() -> None:
    chatty = (
        f"print('Welcome!')\n{SHAKES}"
        "    elif m['method'] == 'tools/list':\n"
        "        say(method='notifications/message', params={'data': 'x'})\n"
        "        say(id='a', method='ping')\n"
        "        assert json.loads(sys.stdin.readline()) == {'jsonrpc': '2.0', 'id': 'a', 'result': {}}\n"
        "        say(id='b', method='roots/list')\n"
        "        assert json.loads(sys.stdin.readline())['error']['code'] == -32601\n"
        "        say(id=m['id'], result={'tools': [{'name': 'one'}]})\n"
    )

    assert [tool["name"] for tool in answer(script(chatty), "tools/list", "", {})["tools"]] == ["one"]


def test_an_answer_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flow_sdk.mcp.stdio.MAX_MESSAGE_BYTES", 1 << 20)
    endless = "import sys\nwhile True: sys.stdout.write('x' * 65536)"

    code, message = refusal_of(script(endless))

    assert code == "mcp_protocol_error"
    assert f"more than {messages.MAX_MESSAGE_BYTES} bytes" in message


def test_a_program_that_is_not_there_is_named() -> None:
    code, message = refusal_of({"transport": "stdio", "command": ["no-such-program"]})

    assert code == "mcp_unreachable"
    assert "'no-such-program' cannot be started: No such file or directory" in message


def told(asked: dict[str, Any], **result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": asked["id"], "result": result}


HELLO: dict[str, Any] = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "odd"}}


async def status(request: Request) -> Response:
    code = int(request.path_params["code"])
    return Response("because", code, {"location": "https://elsewhere.example/mcp"} if code < 400 else None)


async def cut(request: Request) -> Response:
    """Ends its stream before the answer, which it gives to who asks for the rest."""
    if request.method == "GET":
        assert request.headers["last-event-id"] == "1"
        data = json.dumps(told({"id": 1}, **HELLO))
        return Response(f"id: 2\ndata: {data}\n\n", media_type="text/event-stream")
    asked = await request.json()
    if asked["method"] == "initialize":
        return Response(": hello\nid: 1\nretry: 1\ndata:\n\n", media_type="text/event-stream")
    return JSONResponse(told(asked, tools=[])) if "id" in asked else Response(status_code=202)


async def slow(request: Request) -> Response:
    """Says for ever that it lives."""
    asked = await request.json()
    if asked["method"] == "initialize":
        return JSONResponse(told(asked, **HELLO))
    if "id" not in asked:
        return Response(status_code=202)

    async def never() -> Any:
        while not await request.is_disconnected():
            yield b": still here\n\n"
            await asyncio.sleep(0.02)

    return StreamingResponse(never(), media_type="text/event-stream")


async def words(_: Request) -> Response:
    return Response("<html>Welcome</html>", media_type="text/html")


@pytest.fixture(scope="module")
def odd() -> Generator[str]:
    """A server that answers each address in another way."""
    routes = [
        Route("/status/{code}", status, methods=["POST"]),
        Route("/cut", cut, methods=["GET", "POST"]),
        Route("/slow", slow, methods=["POST"]),
        Route("/words", words, methods=["POST"]),
    ]
    with served(Starlette(routes=routes)) as url:
        yield url.removesuffix("/mcp")


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        (
            "/status/401",
            "mcp_unreachable",
            "401 Unauthorized; are its headers and their secrets right?: because",
        ),
        ("/status/404", "mcp_unreachable", "is it the address of an MCP server"),
        ("/status/307", "mcp_unreachable", "it moved to 'https://elsewhere.example/mcp'"),
        ("/status/500", "mcp_unreachable", "answered 500 Internal Server Error: because"),
        ("/words", "mcp_protocol_error", "Welcome"),
        ("/slow", "mcp_timeout", f"did not answer 'tools/list' within {SHORT_SECONDS:g} s"),
    ],
)
def test_a_server_that_is_none_is_told_of(odd: str, path: str, code: str, said: str) -> None:
    seconds = SHORT_SECONDS if code == "mcp_timeout" else 60
    settings = {"transport": "http", "url": f"{odd}{path}?key=hidden", "timeout_seconds": seconds}

    found, message = refusal_of(settings)

    assert found == code
    assert said in message
    assert "hidden" not in message


def test_a_stream_that_ends_early_is_taken_up_again(odd: str) -> None:
    listed = answer({"transport": "http", "url": f"{odd}/cut"}, "tools/list", "", {})

    assert (listed["server"], listed["tools"]) == ({"name": "odd"}, [])


def test_a_server_that_does_not_listen_is_told_of() -> None:
    code, message = refusal_of({"transport": "http", "url": "http://127.0.0.1:1/mcp"})

    assert code == "mcp_unreachable"
    assert "cannot be reached at 'http://127.0.0.1:1/mcp'" in message


def test_secrets_are_put_where_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "s3cr3t")
    echo = (
        "import json, sys, os\n"
        + SHAKES.partition("\n")[2]
        + "    elif m['method'] == 'tools/list': say(id=m['id'], result={'tools': [{'name': os.environ['X']}]})"
    )

    settings = {**script(echo), "env": {"X": "Bearer ${A_TOKEN}, $A_TOKEN"}}

    assert answer(settings, "tools/list", "", {})["tools"] == [{"name": "Bearer s3cr3t, $A_TOKEN"}]

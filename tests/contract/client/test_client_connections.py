"""The connections below the HTTP client: framing, reuse, limits, and what happens when they break."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpcore
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flow_sdk import PlatformClient, errors
from flow_sdk.transport import MAX_CONNECTIONS, PlatformTransport, make_transport
from tests.contract.client.recording_server import HANG_UP, Recorded, RecordingServer, Reply

DONE = Reply(200, {"status": "completed"})
DONE_BYTES = b'{"status": "completed"}'


async def read(client: PlatformClient) -> dict[str, object]:
    return await client.get_execution_status("e1")


@pytest.fixture
async def http(server: RecordingServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, transport=make_transport(httpx.URL(server.url))) as client:
        yield client


FRAMINGS = [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n"
    + DONE_BYTES[:5]
    + b"\r\n%x;ext=1\r\n" % (len(DONE_BYTES) - 5)
    + DONE_BYTES[5:]
    + b"\r\n0\r\nTrailer: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + DONE_BYTES,
    b"HTTP/1.0 200 OK\r\n\r\n" + DONE_BYTES,
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:%d  \r\n\r\n%b"
    % (len(DONE_BYTES), DONE_BYTES),
]


@pytest.mark.parametrize("raw", FRAMINGS)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
async def test_framings_in_pieces_of_any_size(raw: bytes, piece: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for start in range(0, len(raw), piece):
            writer.write(raw[start : start + piece])
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with PlatformClient(base_url=url, auth_token="t", org_id="o", workspace_id="w") as client:
        assert await read(client) == {"status": "completed"}
    server.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 100_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 20",
    ],
)
async def test_what_is_not_http_is_an_error_of_httpx(
    raw: bytes, server: RecordingServer, http: httpx.AsyncClient
) -> None:
    server.answer(Reply(raw=raw))
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get("/")


async def test_one_connection_serves_many_requests(server: RecordingServer, client: PlatformClient) -> None:
    server.answer(*[DONE] * 5)
    for _ in range(5):
        await read(client)
    assert server.connections == 1


async def test_a_connection_that_the_server_closes_is_not_used_again(
    server: RecordingServer, client: PlatformClient
) -> None:
    server.answer(Reply(200, {"status": "x"}, {"Connection": "close"}), DONE)
    await read(client)
    await read(client)
    assert server.connections == 2


async def test_a_request_lost_on_a_kept_connection_is_sent_again_at_once(
    server: RecordingServer, client: PlatformClient
) -> None:
    """Also where the contract has no retry: the server never saw it."""
    server.answer(DONE, HANG_UP, Reply(200, {}))
    await read(client)
    assert await client.get_service_skills("s") == {}
    assert [request.connection for request in server.requests] == [1, 1, 2]


async def test_a_post_without_a_key_is_not_sent_again(server: RecordingServer, http: httpx.AsyncClient) -> None:
    server.answer(Reply(200), HANG_UP, HANG_UP)
    await http.get("/")
    with pytest.raises(httpx.RemoteProtocolError, match="sent no response"):
        await http.post("/", json={})
    assert len(server.requests) == 2


async def test_bytes_that_nobody_asked_for_end_the_connection(server: RecordingServer, http: httpx.AsyncClient) -> None:
    server.answer(Reply(200, b"x"), Reply(200, b"y"))
    original = Reply.encode

    async def handler(_: Recorded) -> Reply:
        return Reply(raw=original(Reply(200, b"x")) + original(Reply(200, b"stolen")))

    server.handler = handler
    assert (await http.get("/")).content == b"x"
    assert (await http.get("/")).content == b"x"
    assert server.connections == 2


async def test_head_and_no_content_have_no_body(server: RecordingServer, http: httpx.AsyncClient) -> None:
    server.answer(Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), Reply(204), Reply(304))
    assert (await http.head("/")).content == b""
    assert (await http.get("/")).status_code == 204
    assert (await http.get("/")).status_code == 304


async def test_a_large_body_streams_through_a_small_buffer(server: RecordingServer, http: httpx.AsyncClient) -> None:
    content = bytes(range(256)) * 40_000  # 10 MB
    server.answer(Reply(200, content))
    got = bytearray()
    async with http.stream("GET", "/") as response:
        async for piece in response.aiter_bytes():
            got += piece
            await asyncio.sleep(0)
    assert got == content


async def test_large_request_and_answer(server: RecordingServer, client: PlatformClient) -> None:
    text = "ä" * 2_000_000

    async def handler(request: Recorded) -> Reply:
        return Reply(200, request.body)

    server.handler = handler
    answer = await client.execute_transform("t", text, {})
    assert answer["input_data"] == text


async def test_a_stream_that_is_left_early_ends_its_connection(
    server: RecordingServer, http: httpx.AsyncClient
) -> None:
    server.answer(Reply(200, b"x" * 5_000_000), Reply(200))
    async with http.stream("GET", "/") as response:
        assert response.status_code == 200
    await http.get("/")
    assert server.connections == 2


async def test_an_endless_answer_can_be_read_as_it_comes(http: httpx.AsyncClient, server: RecordingServer) -> None:
    """Server-sent events through the contract's `client` attribute."""
    more = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
        await more.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
        await writer.drain()
        writer.close()

    events = await asyncio.start_server(serve, "127.0.0.1", 0)
    lines: list[str] = []
    async with http.stream("GET", f"http://127.0.0.1:{events.sockets[0].getsockname()[1]}/") as response:
        async for line in response.aiter_lines():
            lines.append(line)
            more.set()
    assert lines == ["data: 1", "", "data: 2", ""]
    events.close()


async def test_a_streamed_upload_is_sent_with_its_length(server: RecordingServer, http: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"cd"

    server.answer(Reply(200))
    await http.post("/", content=pieces())
    assert (server.requests[0].body, server.requests[0].header("Content-Length")) == (b"abcd", "4")
    assert server.requests[0].header("Transfer-Encoding") is None


@pytest.mark.parametrize("evil", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b"])
async def test_a_header_cannot_smuggle_another(evil: str, server: RecordingServer, http: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        await http.get("/", headers={"X-Mine": evil})
    assert not server.requests


async def test_timeouts_are_httpxs(server: RecordingServer, http: httpx.AsyncClient) -> None:
    never = asyncio.Event()

    async def handler(_: Recorded) -> Reply:
        await never.wait()
        return DONE

    server.handler = handler
    with pytest.raises(httpx.ReadTimeout):
        await http.get("/", timeout=0.05)
    with pytest.raises(httpx.UnsupportedProtocol):
        await http.get("ftp://127.0.0.1/")


@pytest.mark.slow
async def test_connections_are_bounded_and_the_next_waits_its_turn(
    server: RecordingServer, http: httpx.AsyncClient
) -> None:
    go_on = asyncio.Event()

    async def handler(_: Recorded) -> Reply:
        await go_on.wait()
        return DONE

    server.handler = handler
    waiting = [asyncio.create_task(http.get("/", timeout=None)) for _ in range(MAX_CONNECTIONS + 30)]
    while len(server.requests) < MAX_CONNECTIONS:  # noqa: ASYNC110 - until all connections are in use.
        await asyncio.sleep(0.01)
    with pytest.raises(httpx.PoolTimeout):
        await http.get("/", timeout=0.05)
    waiting.pop().cancel()
    waiting.pop(0).cancel()
    go_on.set()
    answers = await asyncio.gather(*waiting)
    assert {answer.status_code for answer in answers} == {200}
    assert server.connections <= MAX_CONNECTIONS + 1, "the cancelled one's connection was replaced"


async def test_closing_ends_what_is_under_way(server: RecordingServer, client: PlatformClient) -> None:
    never = asyncio.Event()

    async def handler(_: Recorded) -> Reply:
        await never.wait()
        return DONE

    server.handler = handler
    reading = asyncio.create_task(read(client))
    while not server.requests:  # noqa: ASYNC110 - until the read is there.
        await asyncio.sleep(0)
    await client.close()
    with pytest.raises(errors.PlatformClientError):
        await reading


async def test_who_patches_httpx_or_httpcore_sees_our_requests(
    client: PlatformClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracers and test libraries do; they must not be passed by."""
    seen: list[str] = []

    async def from_httpx(_: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, json={"status": "patched"})

    with monkeypatch.context() as patch:
        patch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", from_httpx)
        assert await read(client) == {"status": "patched"}

    async def from_httpcore(_: httpcore.AsyncConnectionPool, request: httpcore.Request) -> httpcore.Response:
        seen.append(request.method.decode())
        return httpcore.Response(200, content=b'{"status": "core"}')

    with monkeypatch.context() as patch:
        patch.setattr(httpcore.AsyncConnectionPool, "handle_async_request", from_httpcore)
        assert await read(client) == {"status": "core"}
    assert seen == [f"{client.base_url}/api/v1/orgs/o1/workspaces/w1/executions/e1", "GET"]


@pytest.mark.parametrize(
    ("variables", "url", "ours"),
    [
        ({}, "http://platform", True),
        ({"http_proxy": "http://proxy:3128"}, "http://platform", False),
        ({"all_proxy": "http://proxy:3128"}, "http://platform", False),
        ({"https_proxy": "http://proxy:3128"}, "http://platform", True),
        ({"http_proxy": "http://proxy:3128", "no_proxy": "platform"}, "http://platform", True),
        ({"http_proxy": "http://proxy:3128"}, "http://127.0.0.1:8420", True),
        ({"http_proxy": "http://proxy:3128"}, "http://localhost:8420", True),
        ({"http_proxy": "http://proxy:3128"}, "http://[::1]:8420", True),
    ],
)
def test_a_proxy_in_the_environment_is_httpxs_business(
    variables: dict[str, str], url: str, ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert isinstance(make_transport(httpx.URL(url)), PlatformTransport) is ours


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=365 * 50))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + built.public_bytes(serialization.Encoding.PEM)
    )
    return path


async def test_tls_is_verified(
    certificate: Path, make_client: Callable[..., PlatformClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    secure = RecordingServer()
    await secure.start(context)
    secure.answer(DONE, DONE)
    try:
        with pytest.raises(errors.PlatformConnectionError, match="certificate verify failed"):
            await make_client(base_url=secure.url).get_service_skills("s")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        trusting = make_client(base_url=secure.url)
        assert await read(trusting) == {"status": "completed"}
        assert await read(trusting) == {"status": "completed"}
        assert len(secure.requests) == 2
    finally:
        await secure.stop()


async def test_a_client_of_an_http_platform_trusts_no_https_server(certificate: Path, http: httpx.AsyncClient) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    secure = RecordingServer()
    await secure.start(context)
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        await http.get(secure.url)
    await secure.stop()


async def test_a_request_that_is_cancelled_as_its_turn_comes_ends_and_lets_the_next_one_go() -> None:
    transport = make_transport(httpx.URL("http://127.0.0.1"))
    assert isinstance(transport, PlatformTransport)
    first, second = (asyncio.create_task(transport._wait_turn(60)) for _ in range(2))
    await asyncio.sleep(0)  # Both wait now.
    transport._let_next()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second

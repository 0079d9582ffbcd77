"""The way out of a container: what is declared works with ordinary clients, and nothing else gets anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flow_platform.egress.traffic import Limits
from flow_platform.hostile.source import tools
from flow_platform.sandbox.base import Sandbox
from tests.support.component_runs import run_component
from tests.support.way_out import SPEC, Names, names, run_with_way_out
from tests.support.web_server import WebServer, make_certificate

pytestmark = pytest.mark.asyncio(loop_scope="package")

GET = """
import httpx
def main(url, headers=None, follow=False):
    try:
        answer = httpx.get(url, headers=headers, follow_redirects=follow, timeout=10)
    except httpx.HTTPError as error:
        return [0, str(error)]
    return [answer.status_code, answer.text]
"""

RAW = """
import socket
def main(data):
    with socket.create_connection(("127.0.0.1", 3128), timeout=10) as proxy:
        proxy.sendall(data.encode("latin-1"))
        answer = b""
        try:
            while chunk := proxy.recv(65536):
                answer += chunk
        except OSError as error:
            answer += repr(error).encode()
    return answer.decode("latin-1")
"""


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as started:
        yield started


# What is declared works.


@pytest.mark.parametrize(
    "fetch",
    [
        "import httpx\ndef main(url):\n    return httpx.get(url).text\n",
        "import urllib.request\ndef main(url):\n    return urllib.request.urlopen(url).read().decode()\n",
        "import httpx\nasync def main(url):\n"
        "    async with httpx.AsyncClient() as client:\n        return (await client.get(url)).text\n",
    ],
    ids=["httpx", "urllib", "httpx async"],
)
async def test_plain_requests_of_ordinary_clients(sandbox: Sandbox, server: WebServer, fetch: str) -> None:
    url = f"http://api.example.com:{server.port}/a?b=c"
    run = await run_with_way_out(
        sandbox, fetch, {"url": url}, [f"api.example.com:{server.port}"], resolver=names(api="127.0.0.1")
    )
    assert run.output == f"GET /a?b=c api.example.com:{server.port}"
    (record,) = run.records
    assert (record.host, record.port, record.address) == ("api.example.com", server.port, "127.0.0.1")
    assert record.verdict == "allowed"
    assert record.reason in ("", "closed with the attempt")  # Whichever end is seen first.
    assert record.bytes_out > 20
    assert record.bytes_in > 20


@pytest.mark.parametrize(
    "fetch",
    [
        "import httpx, ssl\ndef main(url, authority):\n"
        "    return httpx.get(url, verify=ssl.create_default_context(cadata=authority)).text\n",
        "import ssl, urllib.request\ndef main(url, authority):\n"
        "    context = ssl.create_default_context(cadata=authority)\n"
        "    return urllib.request.urlopen(url, context=context).read().decode()\n",
    ],
    ids=["httpx", "urllib"],
)
async def test_tls_of_ordinary_clients(sandbox: Sandbox, tmp_path: Path, fetch: str) -> None:
    certificate, authority = make_certificate(tmp_path, "deep.api.example.com")
    with WebServer(certificate) as server:
        run = await run_with_way_out(
            sandbox,
            fetch,
            {"url": f"https://deep.api.example.com:{server.port}/x", "authority": authority},
            [f"*.example.com:{server.port}"],
            resolver=Names({"deep.api.example.com": [["127.0.0.1"]]}),
        )
    assert run.output == f"GET /x deep.api.example.com:{server.port}"
    assert run.verdicts == ["allowed"]


async def test_the_authorities_of_the_machine_are_there(sandbox: Sandbox) -> None:
    code = "import ssl\ndef main():\n    return len(ssl.create_default_context().get_ca_certs())\n"
    assert (await run_with_way_out(sandbox, code, {}, ["x.example.com"], resolver=names())).output > 0


async def test_large_bodies_pass_both_ways(sandbox: Sandbox, server: WebServer) -> None:
    code = (
        "import httpx\ndef main(url):\n"
        "    posted = httpx.post(url, content=b'x' * 300_000)\n"
        "    return [posted.status_code, httpx.get(url + 'large/1000000').text.count('x')]\n"
    )
    run = await run_with_way_out(
        sandbox,
        code,
        {"url": f"http://api.example.com:{server.port}/"},
        [f"api.example.com:{server.port}"],
        resolver=names(api="127.0.0.1"),
    )
    assert run.output == [200, 1_000_000]
    assert server.bodies[0] == b"x" * 300_000
    assert run.records[0].bytes_out > 300_000
    assert run.records[1].bytes_in > 1_000_000


async def test_any_tcp_by_socks(sandbox: Sandbox, server: WebServer) -> None:
    name = "api.example.com"
    request = b"GET /socks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    data = (
        b"\x05\x01\x00" + b"\x05\x01\x00\x03" + bytes([len(name)]) + name.encode() + server.port.to_bytes(2) + request
    )
    run = await run_with_way_out(
        sandbox,
        RAW,
        {"data": data.decode("latin-1")},
        [f"{name}:{server.port}"],
        resolver=names(api="127.0.0.1"),
    )
    assert run.output.startswith("\x05\x00\x05\x00\x00\x01" + "\x00" * 6 + "HTTP/1.1 200")
    assert run.output.endswith("GET /socks x")
    assert run.verdicts == ["allowed"]


async def test_the_platform_is_not_asked_through_the_proxy(sandbox: Sandbox) -> None:
    code = (
        "import urllib.request, httpx\ndef main():\n"
        "    mounts = httpx.Client()._mounts\n"
        "    return [urllib.request.proxy_bypass('127.0.0.1:8420'), urllib.request.proxy_bypass('example.com'),"
        " httpx.Client()._transport_for_url(httpx.URL('http://127.0.0.1:8420/x')) is not None]\n"
    )
    run = await run_with_way_out(sandbox, code, {}, ["api.example.com"], resolver=names())
    assert run.output == [True, False, True]
    assert run.records == []


# Nothing else does.


async def test_an_undeclared_host_is_refused_in_words_and_not_resolved(sandbox: Sandbox, server: WebServer) -> None:
    resolver = names(other="127.0.0.1")
    plain = await run_with_way_out(
        sandbox, GET, {"url": f"http://other.example.com:{server.port}/"}, ["api.example.com"], resolver=resolver
    )
    assert plain.output == [403, "host 'other.example.com' is not declared in network=[...]\n"]
    tunnel = await run_with_way_out(
        sandbox, GET, {"url": "https://api.example.com:8443/"}, ["api.example.com"], resolver=resolver
    )
    assert tunnel.output == [
        0,
        "403 host 'api.example.com' on port 8443 is not declared in network=[...], only 'api.example.com'",
    ]
    assert resolver.asked == []
    assert plain.verdicts == tunnel.verdicts == ["refused"]
    assert server.requests == []


FORBIDDEN = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
    "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.1", "255.255.255.255", "240.0.0.1",
    "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%1", "fd00:ec2::254", "fd12::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::", "2001:db8::1", "fec0::1",
    "2600::5efe:10.0.0.1", "::ffff:0:127.0.0.1",
]  # fmt: skip


async def test_a_name_at_a_forbidden_address_is_refused(sandbox: Sandbox, server: WebServer) -> None:
    code = RAW.replace("def main(data)", "def one(data)") + (
        "def main(hosts, port):\n"
        "    return [one(f'CONNECT {host}:{port} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')[:12] for host in hosts]\n"
    )
    hosts = [f"h{number}.example.com" for number in range(len(FORBIDDEN))]
    run = await run_with_way_out(
        sandbox,
        code,
        {"hosts": hosts, "port": server.port},
        [f"*.example.com:{server.port}"],
        resolver=Names({host: [[text]] for host, text in zip(hosts, FORBIDDEN, strict=True)}),
        allow="",
    )
    assert run.output == ["HTTP/1.1 403"] * len(FORBIDDEN)
    assert [record.address for record in run.records] == [""] * len(FORBIDDEN), "nothing was connected to"
    assert server.requests == []


async def test_what_the_operator_allows_does_not_open_metadata(sandbox: Sandbox) -> None:
    resolver = Names({"a.example.com": [["169.254.169.254"]], "b.example.com": [["fd00:ec2::254"]]})
    code = GET.replace("def main(", "def one(") + (
        "def main():\n    return [one('http://a.example.com/')[0], one('http://b.example.com/')[0]]\n"
    )
    run = await run_with_way_out(sandbox, code, {}, ["*.example.com"], resolver=resolver, allow="0.0.0.0/0, ::/0")
    assert run.output == [403, 403]


async def test_one_forbidden_address_among_good_ones_closes_the_name(sandbox: Sandbox, server: WebServer) -> None:
    run = await run_with_way_out(
        sandbox,
        GET,
        {"url": f"http://api.example.com:{server.port}/"},
        [f"api.example.com:{server.port}"],
        resolver=names(api="127.0.0.1 10.0.0.1"),
    )
    assert run.output[0] == 403
    assert "10.0.0.1" in run.output[1]
    assert server.requests == []


async def test_a_name_that_changes_its_address_gains_nothing(sandbox: Sandbox, server: WebServer) -> None:
    """One question per connection, and each answer is checked."""
    code = GET.replace("def main(", "def one(") + "def main(url):\n    return [one(url)[0] for _ in range(3)]\n"
    resolver = Names({"api.example.com": [["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1"]]})
    run = await run_with_way_out(
        sandbox,
        code,
        {"url": f"http://api.example.com:{server.port}/"},
        [f"api.example.com:{server.port}"],
        resolver=resolver,
    )
    assert run.output == [200, 403, 200]
    assert resolver.asked == ["api.example.com"] * 3
    assert [record.address for record in run.records] == ["127.0.0.1", "", "127.0.0.1"]


async def test_a_redirect_is_a_request_like_any_other(sandbox: Sandbox, server: WebServer) -> None:
    for target in ("http://169.254.169.254/latest/meta-data/", "http://inside.example.com/", "http://10.0.0.1/"):
        run = await run_with_way_out(
            sandbox,
            GET,
            {"url": f"http://api.example.com:{server.port}/to/{target}", "follow": True},
            [f"api.example.com:{server.port}"],
            resolver=names(api="127.0.0.1", inside="127.0.0.1"),
        )
        assert run.output[0] == 403, run.output
        assert run.verdicts == ["allowed", "refused"]


NOTATIONS = [
    "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "127.000.000.001",
    "127.0.0.1.", "127.0.0.0x1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]",
    "[64:ff9b::127.0.0.1]", "[fe80::1%25lo]", "[fe80::1%lo]", "\u0031\u0032\u0037.1", "%31%32%37.0.0.1", "localhost",
    "127\u30020\u30020\u30021", "\uff11\uff12\uff17.0.0.1", "api.example.com@127.0.0.1", "127.0.0.1#api.example.com",
    "127.0.0.1\\api.example.com", "api.example.com:80:127.0.0.1", "", ".", "..", "api..example.com",
    "api.example.com\x00.evil.test",
]  # fmt: skip


async def test_no_notation_of_an_address_gets_through(sandbox: Sandbox, server: WebServer) -> None:
    code = RAW.replace("def main(data)", "def one(data)") + (
        "def main(hosts, port):\n    answers = {}\n    for host in hosts:\n"
        "        host = host.encode().decode('latin-1')\n"
        "        answers['CONNECT ' + host] = one(f'CONNECT {host}:{port} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n"
        "        head = f'GET http://{host}:{port}/ HTTP/1.1\\r\\nHost: {host}:{port}\\r\\n\\r\\n'\n"
        "        answers['GET ' + host] = one(head)\n"
        "    return answers\n"
    )
    network = [f"api.example.com:{server.port}", f"*.example.com:{server.port}"]
    run = await run_with_way_out(
        sandbox, code, {"hosts": NOTATIONS, "port": server.port}, network, resolver=names(api="127.0.0.1")
    )
    assert {
        name: answer for name, answer in run.output.items() if answer[:12] not in ("HTTP/1.1 403", "HTTP/1.1 400")
    } == {}
    assert set(run.verdicts) == {"refused"}
    assert server.requests == []


HIDDEN = {
    "another host": "GET http://api.example.com:{port}/ HTTP/1.1\r\nHost: inside.example.com\r\n\r\n",
    "another port": "GET http://api.example.com:{port}/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
    "two hosts": "GET http://api.example.com:{port}/ HTTP/1.1\r\nHost: api.example.com:{port}\r\nHost: x\r\n\r\n",
    "no host": "GET http://api.example.com:{port}/ HTTP/1.1\r\n\r\n",
    "origin form": "GET / HTTP/1.1\r\nHost: api.example.com:{port}\r\n\r\n",
    "another scheme": "GET ftp://api.example.com:{port}/ HTTP/1.1\r\nHost: api.example.com:{port}\r\n\r\n",
    "user": "GET http://u:p@api.example.com:{port}/ HTTP/1.1\r\nHost: api.example.com:{port}\r\n\r\n",
    "two lengths": "POST http://api.example.com:{port}/ HTTP/1.1\r\nHost: api.example.com:{port}\r\n"
    "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "odd encoding": "POST http://api.example.com:{port}/ HTTP/1.1\r\nHost: api.example.com:{port}\r\n"
    "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "folded": "GET http://api.example.com:{port}/ HTTP/1.1\r\nHost: api.example.com:{port}\r\nX: a\r\nY\x00: c\r\n\r\n",
    "no HTTP": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "CONNECT without port": "CONNECT api.example.com HTTP/1.1\r\nHost: x\r\n\r\n",
}


async def test_nothing_is_hidden_in_a_request(sandbox: Sandbox, server: WebServer) -> None:
    code = RAW.replace("def main(data)", "def one(data)") + (
        "def main(requests):\n    return {name: one(request) for name, request in requests.items()}\n"
    )
    requests = {name: text.format(port=server.port) for name, text in HIDDEN.items()}
    network = [f"api.example.com:{server.port}"]
    run = await run_with_way_out(sandbox, code, {"requests": requests}, network, resolver=names(api="127.0.0.1"))
    assert {
        name: answer for name, answer in run.output.items() if answer[:11] not in ("HTTP/1.1 40", "HTTP/1.1 50")
    } == {}
    assert server.requests == []


async def test_a_second_request_does_not_ride_on_the_first(sandbox: Sandbox, server: WebServer) -> None:
    head = f"POST http://api.example.com:{server.port}/first HTTP/1.1\r\nHost: api.example.com:{server.port}\r\n"
    hidden = "GET /second HTTP/1.1\r\nHost: inside.example.com\r\n\r\n"
    for request in (
        head + "Content-Length: 0\r\n\r\n" + hidden,
        head + f"Content-Length: {len(hidden)}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
        head + "Connection: content-length\r\nContent-Length: 4\r\n\r\nabcd" + hidden,
    ):
        run = await run_with_way_out(
            sandbox, RAW, {"data": request}, [f"api.example.com:{server.port}"], resolver=names(api="127.0.0.1")
        )
        assert run.output.count("HTTP/1.1") == 1, run.output
    assert {request.split()[1] for request in server.requests} == {"/first"}


async def test_a_tunnel_is_for_the_host_that_tls_asks_for(sandbox: Sandbox, tmp_path: Path) -> None:
    """Behind one address of a large provider there are many hosts."""
    code = """
import socket, ssl
def main(authority, name, port):
    with socket.create_connection(("127.0.0.1", 3128), 10) as proxy:
        proxy.sendall(f"CONNECT api.example.com:{port} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
        assert proxy.recv(1000).startswith(b"HTTP/1.1 200")
        context = ssl.create_default_context(cadata=authority)
        try:
            with context.wrap_socket(proxy, server_hostname=name) as tunnel:
                tunnel.sendall(f"GET / HTTP/1.1\\r\\nHost: {name}\\r\\nConnection: close\\r\\n\\r\\n".encode())
                return tunnel.recv(12).decode()
        except OSError as error:
            return type(error).__name__
"""
    certificate, authority = make_certificate(tmp_path, "api.example.com", "other.example.com")
    with WebServer(certificate) as server:
        runs = [
            await run_with_way_out(
                sandbox,
                code,
                {"authority": authority, "name": name, "port": server.port},
                [f"api.example.com:{server.port}"],
                resolver=names(api="127.0.0.1"),
            )
            for name in ("api.example.com", "other.example.com")
        ]
        assert len(server.requests) == 1
    assert runs[0].output == "HTTP/1.1 200"
    assert "Error" in runs[1].output
    assert runs[1].verdicts == ["refused"]
    assert "other.example.com" in runs[1].records[0].reason
    assert runs[1].records[0].bytes_out == 0


async def test_the_operators_list_wins_over_a_declaration(sandbox: Sandbox, server: WebServer) -> None:
    for deny in ("*.example.com", "127.0.0.0/8"):
        run = await run_with_way_out(
            sandbox,
            GET,
            {"url": f"http://api.example.com:{server.port}/"},
            [f"api.example.com:{server.port}"],
            resolver=names(api="127.0.0.1"),
            deny=deny,
        )
        assert run.output[0] == 403
        assert "operator's deny list" in run.output[1]


async def test_there_is_no_other_network_beside_the_proxy(sandbox: Sandbox, host_port: int) -> None:
    code = (
        tools()
        + """
import socket
def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(3)
        connection.connect(address)

def main(host_port):
    answers = {"tcp %s" % (target,): attempt(connect, socket.AF_INET, target) for target in (
        ("127.0.0.1", host_port), ("127.0.0.1", 53), ("169.254.169.254", 80), ("8.8.8.8", 443), ("10.0.0.1", 80))}
    answers["tcp6"] = attempt(connect, socket.AF_INET6, ("2600::1", 443))
    answers["name"] = attempt(socket.getaddrinfo, "api.example.com", 80)
    for target in (("8.8.8.8", 53), ("8.8.8.8", 443)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
            answers["udp %s" % (target,)] = attempt(query.sendto, b"x", target)
    kinds = {"packet": (17, 3, 0), "raw": (2, 3, 1), "raw 6": (10, 3, 58), "ping": (2, 2, 1), "netlink": (16, 3, 0)}
    return {**answers, **{name: attempt(socket.socket, *kind) for name, kind in kinds.items()}}
"""
    )
    run = await run_with_way_out(
        sandbox, code, {"host_port": host_port}, ["api.example.com"], resolver=names(api="127.0.0.1")
    )
    assert {name: answer for name, answer in run.output.items() if answer.startswith("OK")} == {}
    assert run.records == []


async def test_a_container_without_a_declaration_has_no_proxy(sandbox: Sandbox) -> None:
    code = (
        "import os, socket\ndef main():\n    found = [name for name in os.environ if 'proxy' in name.lower()]\n"
        "    try:\n        socket.create_connection(('127.0.0.1', 3128), 3)\n"
        "    except ConnectionRefusedError:\n        return found\n"
    )
    assert (await run_component(sandbox, code)).output == []
    container = await sandbox.acquire(SPEC)
    assert len(container.listeners) == 3
    await container.end()


# Limits.


async def test_limits_are_named_in_the_answer(sandbox: Sandbox, server: WebServer) -> None:
    code = GET.replace("def main(", "def one(") + ("def main(url):\n    return [one(url)[1] for _ in range(4)]\n")
    given = {"url": f"http://api.example.com:{server.port}/large/3000"}
    network, resolver = [f"api.example.com:{server.port}"], names(api="127.0.0.1")
    run = await run_with_way_out(sandbox, code, given, network, resolver=resolver, limits=Limits(accepted=3))
    assert run.output == ["x" * 3000] * 3 + ["limit reached: an execution may open 3 connections in all\n"]
    assert run.verdicts == ["allowed"] * 3 + ["limit"]
    run = await run_with_way_out(sandbox, code, given, network, resolver=resolver, limits=Limits(bytes_each_way=7000))
    assert run.output[:2] == ["x" * 3000] * 2
    assert "7000 bytes in" in run.output[3]
    assert run.verdicts == ["allowed", "allowed", "limit", "limit"]


async def test_open_connections_are_limited(sandbox: Sandbox, server: WebServer) -> None:
    code = RAW.replace("def main(data)", "def one(data)") + (
        "def main(data):\n"
        "    held = [socket.create_connection(('127.0.0.1', 3128)) for _ in range(2)]\n"
        "    for one_held in held:\n        one_held.sendall(data.encode())\n"
        "        one_held.recv(1000)\n"
        "    refused = one(data)\n"
        "    for one_held in held:\n        one_held.close()\n"
        "    return refused\n"
    )
    data = f"CONNECT api.example.com:{server.port} HTTP/1.1\r\nHost: x\r\n\r\n"
    run = await run_with_way_out(
        sandbox,
        code,
        {"data": data},
        [f"api.example.com:{server.port}"],
        resolver=names(api="127.0.0.1"),
        limits=Limits(connections=2),
    )
    assert run.output.startswith("HTTP/1.1 429 limit reached: an execution may have 2 connections open")


async def test_a_silent_connection_is_ended(sandbox: Sandbox, server: WebServer) -> None:
    run = await run_with_way_out(
        sandbox,
        GET,
        {"url": f"http://api.example.com:{server.port}/mute"},
        [f"api.example.com:{server.port}"],
        resolver=names(api="127.0.0.1"),
        limits=Limits(idle_seconds=0.3),
    )
    assert run.output == [504, "limit reached: nothing moved on the connection for 0.3 s\n"]
    assert run.verdicts == ["limit"]


async def test_a_huge_head_is_refused(sandbox: Sandbox) -> None:
    data = "GET http://api.example.com/ HTTP/1.1\r\nX: " + "y" * 100_000
    run = await run_with_way_out(sandbox, RAW, {"data": data}, ["api.example.com"], resolver=names())
    assert run.output.startswith("HTTP/1.1 431 the head of the request is larger than 32768 bytes")

"""The way out of a container with a declared `network`: its broker, with names as the attempts say."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flow_platform.domain.address import Address
from flow_platform.domain.destination import parse_destination
from flow_platform.domain.operator_rules import parse_allow
from flow_platform.egress.broker import Broker
from flow_platform.egress.policy import DeclaredPolicy, OperatorRules
from flow_platform.egress.traffic import Limits, Record
from flow_platform.hostile.answer import Answer, expect
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.box import Box
from flow_platform.runner.network import defaults, proxies
from flow_platform.sandbox.base import INSIDE, PROXY_PORT, Container, ContainerSpec

SPEC: Final = ContainerSpec(tenant="hostile", proxy=True)
_ALLOWED: Final = "api.example.com"
_SERVICE_SECONDS: Final = 10.0  # For what was sent to arrive.
_CLOSED: Final = (
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1"),  # noqa: S104
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.1"),
    *("255.255.255.255", "::1", "::", "fe80::1", "fd00:ec2::254", "fd12::1", "ff02::1", "::ffff:127.0.0.1"),
    *("::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "2001:0:7f00:1::"),
)
_NOTATIONS: Final = (
    *("2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "127.1", "127.000.000.001", "127.0.0.1."),
    *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::127.0.0.1]", "[fe80::1%25lo]", "localhost"),
    *("%31%32%37.0.0.1", "127\u30020\u30020\u30021", "\uff11\uff12\uff17.0.0.1", "api.example.com@127.0.0.1"),
    *("127.0.0.1#api.example.com", "127.0.0.1\\api.example.com", "api.example.com:80:127.0.0.1", "", "."),
    *("api.example.com\x00.evil.test", "2852039166", "metadata.google.internal"),
)
_TALK: Final = """
import socket
def one(data):
    with socket.create_connection(("127.0.0.1", 3128), timeout=10) as proxy:
        proxy.sendall(data.encode("latin-1"))
        try:
            return proxy.recv(65536).decode("latin-1")
        except OSError as error:
            return repr(error)

def main(requests):
    return {name: one(request) for name, request in requests.items()}
"""
_HELLO: Final = """
import socket
def main(port, hello):
    with socket.create_connection(("127.0.0.1", 3128), timeout=10) as proxy:
        proxy.sendall(f"CONNECT api.example.com:{port} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
        first = proxy.recv(1000)
        try:
            proxy.sendall(bytes.fromhex(hello))
            proxy.recv(10)
        except OSError:
            pass
        return first.decode("latin-1")
"""
_FOLLOW: Final = """
import httpx
def main(url):
    try:
        return httpx.get(url, follow_redirects=True, timeout=10).status_code
    except httpx.HTTPError as error:
        return str(error)
"""


@dataclass
class Names:
    """A resolver with the attempt's own answers: each question takes the next, the last one stays."""

    answers: Mapping[str, Sequence[str]]
    asked: list[str] = field(default_factory=list[str])

    async def resolve(self, host: str) -> list[Address]:
        self.asked.append(host)
        if host not in self.answers:
            raise OSError(f"no such name: {host}")
        answers = self.answers[host]
        return [ipaddress.ip_address(answers[min(self.asked.count(host), len(answers)) - 1])]


@dataclass
class Service:
    """A service on the host's loopback that notes whoever reaches it."""

    port: int
    heard: list[bytes] = field(default_factory=list[bytes])
    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextlib.asynccontextmanager
async def _service() -> AsyncGenerator[Service]:
    service = Service(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_SERVICE_SECONDS):
                service.heard.append(await reader.read(4096))
                writer.write(service.answer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        service.port = server.sockets[0].getsockname()[1]
        yield service


async def _try(box: Box, code: str, given: Any, network: Sequence[str], names: Names, allow: str) -> Any:
    """Runs the component as a runner would, its way out served by a broker; returns what it said."""
    brokers: list[Broker] = []
    records: list[Record] = []
    policy = DeclaredPolicy(tuple(parse_destination(text) for text in network), OperatorRules(parse_allow(allow)))

    def serve(container: Container) -> None:
        brokers.append(Broker(policy, names, Limits(), records.append))
        brokers[0].listen(container.listeners[PROXY_PORT])

    run = await box.run(code, given, spec=SPEC, on_container=serve, env={**defaults(INSIDE), **proxies(INSIDE)})
    for broker in brokers:
        broker.close()
        await broker.wait_closed()
    return run.output


def _connect(host: str, port: int) -> str:
    return f"CONNECT {host}:{port} HTTP/1.1\r\nHost: x\r\n\r\n"


def _refused(said: str) -> bool:
    return said[:12] in ("HTTP/1.1 403", "HTTP/1.1 400")


def _judge(group: int, said: Mapping[str, str], service: Service) -> list[Answer]:
    """Each was refused in words, and the service heard nobody."""
    found = [
        expect(
            group, name, answer.split("\r\n")[0] if _refused(answer) else f"OK {answer[:60]}", refused=_refused(answer)
        )
        for name, answer in said.items()
    ]
    return [
        *found,
        expect(group, "reach a service of the host", f"{len(service.heard)} heard", refused=not service.heard),
    ]


async def _closed_addresses(box: Box) -> list[Answer]:
    """A declared name that leads to where nobody may go; the operator has opened nothing."""
    async with _service() as service:
        hosts = {f"h{number}.example.com": address for number, address in enumerate(_CLOSED)}
        names = Names({host: [address] for host, address in hosts.items()})
        requests = {f"a name at {address}": _connect(host, service.port) for host, address in hosts.items()}
        said = await _try(box, _TALK, {"requests": requests}, [f"*.example.com:{service.port}"], names, "")
        opened = Names({_ALLOWED: ["169.254.169.254"]})
        metadata = {"metadata where the operator opened all": _connect(_ALLOWED, 80)}
        said |= await _try(box, _TALK, {"requests": metadata}, [_ALLOWED], opened, "0.0.0.0/0, ::/0")
        return _judge(24, said, service)


async def _notations(box: Box) -> list[Answer]:
    async with _service() as service:
        requests: dict[str, str] = {}
        for host in _NOTATIONS:
            text = host.encode().decode("latin-1")
            requests[f"CONNECT {host!a}"] = _connect(text, service.port)
            requests[f"GET {host!a}"] = f"GET http://{text}:{service.port}/ HTTP/1.1\r\nHost: {text}\r\n\r\n"
        network = [f"{_ALLOWED}:{service.port}"]
        said = await _try(box, _TALK, {"requests": requests}, network, Names({_ALLOWED: ["127.0.0.1"]}), "127.0.0.1")
        return _judge(24, said, service)


async def _hidden_hosts(box: Box) -> list[Answer]:
    """Another host, or another port, behind what is declared."""
    async with _service() as service:
        port, good = service.port, f"api.example.com:{service.port}"
        requests = {
            "an undeclared host": _connect("other.example.com", port),
            "an undeclared port": _connect(_ALLOWED, 8443),
            "another Host header": f"GET http://{good}/ HTTP/1.1\r\nHost: inside.example.com\r\n\r\n",
            "two Host headers": f"GET http://{good}/ HTTP/1.1\r\nHost: {good}\r\nHost: x\r\n\r\n",
            "two lengths": f"POST http://{good}/ HTTP/1.1\r\nHost: {good}\r\nContent-Length: 3\r\n"
            "Content-Length: 4\r\n\r\nabcd",
            "a line in a header": f"GET http://{good}/ HTTP/1.1\r\nHost: {good}\r\nX\x00: y\r\n\r\n",
        }
        names = Names({name: ["127.0.0.1"] for name in (_ALLOWED, "other.example.com", "inside.example.com")})
        said = await _try(box, _TALK, {"requests": requests}, [good], names, "127.0.0.1")
        answers = _judge(28, said, service)
        asked = [name for name in names.asked if name != _ALLOWED]
        return [*answers, expect(26, "have an undeclared name resolved", str(asked or "not asked"), refused=not asked)]


async def _rebinding(box: Box) -> list[Answer]:
    """A name that is good when it is checked and bad when it is connected to, and the other way round."""
    async with _service() as service:
        names = Names({_ALLOWED: ["127.0.0.1", "169.254.169.254", "10.0.0.1"]})
        requests = {str(number): _connect(_ALLOWED, service.port) for number in range(3)}
        good = f"{_ALLOWED}:{service.port}"
        said = await _try(box, _TALK, {"requests": requests}, [good], names, "127.0.0.1")
        held = not _refused(said["0"]) and _refused(said["1"]) and _refused(said["2"])
        return [
            expect(
                26, "a name that changes its address", "each answer was checked", refused=held and len(names.asked) == 3
            )
        ]


async def _redirects(box: Box) -> list[Answer]:
    found: list[Answer] = []
    for target in ("http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://inside.example.com/"):
        async with _service() as service:
            head = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            service.answer = head.encode()
            names = Names({_ALLOWED: ["127.0.0.1"], "inside.example.com": ["127.0.0.1"]})
            good = f"{_ALLOWED}:{service.port}"
            said = await _try(box, _FOLLOW, {"url": f"http://{good}/"}, [good], names, "127.0.0.1")
            found.append(
                expect(27, f"a redirect to {target}", str(said), refused=said == 403 and len(service.heard) == 1)
            )
    return found


async def _server_names(box: Box) -> list[Answer]:
    """TLS for another host through a tunnel to a declared one: behind one address there are many."""
    found: list[Answer] = []
    for name in ("other.example.com", ""):
        async with _service() as service:
            given = {"port": service.port, "hello": _client_hello(name).hex()}
            names = Names({_ALLOWED: ["127.0.0.1"]})
            await _try(box, _HELLO, given, [f"{_ALLOWED}:{service.port}"], names, "127.0.0.1")
            heard = b"".join(service.heard)
            what = f"TLS for {name!r} in a tunnel for {_ALLOWED!r}" if name else "TLS without a name"
            refused = name.encode() not in heard if name else True
            found.append(expect(27, what, "not passed on" if not heard else "its address was checked", refused=refused))
    return found


def _client_hello(name: str) -> bytes:
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name or None)
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


async def _beside_the_proxy(box: Box) -> list[Answer]:
    """A declared network opens a proxy, and nothing beside it; and who declares none has no proxy."""
    code = (
        "import socket\ndef main(targets):\n    answers = {}\n    for host, port in targets:\n        try:\n"
        "            socket.create_connection((host, port), 2).close(); answers[host] = 'OK'\n"
        "        except OSError as error:\n            answers[host] = type(error).__name__\n    return answers\n"
    )
    targets = [["127.0.0.1", box.canaries.port], ["169.254.169.254", 80], ["8.8.8.8", 443], ["example.com", 443]]
    said = await _try(box, code, {"targets": targets}, [_ALLOWED], Names({}), "")
    found = [expect(25, f"{host} beside the proxy", how, refused=how != "OK") for host, how in said.items()]
    none = (await box.run(code, {"targets": [["127.0.0.1", PROXY_PORT]]})).output["127.0.0.1"]
    return [*found, expect(25, "a proxy without a declaration", none, refused=none != "OK")]


ATTEMPTS: Final = (
    Attempt("declared names at closed addresses", (24,), _closed_addresses),
    Attempt("notations of addresses", (24,), _notations),
    Attempt("hosts behind a declared one", (26, 28), _hidden_hosts),
    Attempt("names that change", (26,), _rebinding),
    Attempt("redirects", (27,), _redirects),
    Attempt("names of TLS servers", (27,), _server_names),
    Attempt("beside the proxy", (25,), _beside_the_proxy),
)

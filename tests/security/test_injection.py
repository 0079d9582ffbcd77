"""Credentials that the container never sees: the way out adds them, for their host alone."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow_platform.domain.destination import parse_destination
from flow_platform.egress.injection import Injection
from flow_platform.sandbox.base import Sandbox
from tests.support.way_out import WayOutRun, names, run_with_way_out
from tests.support.web_server import WebServer, make_certificate

pytestmark = pytest.mark.asyncio(loop_scope="package")

GET = """
import httpx
def main(urls):
    def one(url):
        try:
            answer = httpx.get(url, headers={"Authorization": "Bearer mine"}, follow_redirects=True, timeout=10)
        except httpx.HTTPError as error:
            return [0, str(error)]
        return [answer.status_code, answer.text]
    return [one(url) for url in urls]
"""


@pytest.fixture
def plain() -> Iterator[WebServer]:
    with WebServer() as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return make_certificate(tmp_path_factory.mktemp("certificate"), "api.example.com")


@pytest.fixture
def secured(certificate: tuple[Path, str]) -> Iterator[WebServer]:
    with WebServer(certificate[0]) as running:
        yield running


async def get(
    sandbox: Sandbox, urls: list[str], injection: Injection, port: int, authority: str | None = None
) -> WayOutRun:
    return await run_with_way_out(
        sandbox,
        GET,
        {"urls": urls},
        [f"*.example.com:{port}"],
        resolver=names(api="127.0.0.1", other="127.0.0.1"),
        injections=[injection],
        tls=lambda: ssl.create_default_context(cadata=authority),
    )


def bearer(port: int, host: str = "api.example.com", *, tls: bool = True) -> Injection:
    return Injection(parse_destination(f"{host}:{port}"), "Authorization", "Bearer secret", tls)


async def test_it_is_set_for_its_host_alone(sandbox: Sandbox, plain: WebServer) -> None:
    injection = bearer(plain.port, tls=False)

    run = await get(
        sandbox, [f"http://{name}.example.com:{plain.port}/" for name in ("api", "other")], injection, plain.port
    )

    assert [status for status, _ in run.output] == [200, 200]
    assert [head["authorization"] for head in plain.heads] == ["Bearer secret", "Bearer mine"]
    assert "secret" not in repr(injection)


async def test_the_request_goes_on_by_tls(sandbox: Sandbox, secured: WebServer, certificate: tuple[Path, str]) -> None:
    """Asked without a port, or with the host's own."""
    urls = ["http://api.example.com/v1?a=1", f"http://api.example.com:{secured.port}/v1?a=1"]

    run = await get(sandbox, urls, bearer(secured.port), secured.port, certificate[1])

    assert run.output == [[200, f"GET /v1?a=1 api.example.com:{secured.port}"]] * 2
    assert [head["authorization"] for head in secured.heads] == ["Bearer secret"] * 2
    assert [(one.host, one.port) for one in run.records] == [("api.example.com", secured.port)] * 2


async def test_a_host_that_cannot_prove_who_it_is_gets_nothing(sandbox: Sandbox, secured: WebServer) -> None:
    run = await get(sandbox, ["http://api.example.com/"], bearer(secured.port), secured.port)

    assert run.output[0][0] == 502
    assert "'api.example.com' cannot be spoken to by TLS" in run.output[0][1]
    assert not secured.heads
    assert run.verdicts == ["failed"]


async def test_nor_does_one_that_proves_to_be_another(
    sandbox: Sandbox, secured: WebServer, certificate: tuple[Path, str]
) -> None:
    injection = bearer(secured.port, "other.example.com")

    run = await get(sandbox, ["http://other.example.com/"], injection, secured.port, certificate[1])

    assert run.output[0][0] == 502
    assert not secured.heads


async def test_a_host_that_speaks_no_tls_gets_nothing(sandbox: Sandbox, plain: WebServer) -> None:
    run = await get(sandbox, ["http://api.example.com/"], bearer(plain.port), plain.port)

    assert run.output[0][0] == 502
    assert not plain.heads


async def test_a_redirect_to_another_host_goes_without_it(
    sandbox: Sandbox, secured: WebServer, plain: WebServer, certificate: tuple[Path, str]
) -> None:
    url = f"http://api.example.com/to/http://other.example.com:{plain.port}/"
    run = await run_with_way_out(
        sandbox,
        GET,
        {"urls": [url]},
        [f"api.example.com:{secured.port}", f"other.example.com:{plain.port}"],
        resolver=names(api="127.0.0.1", other="127.0.0.1"),
        injections=[bearer(secured.port)],
        tls=lambda: ssl.create_default_context(cadata=certificate[1]),
    )

    assert run.output[0][0] == 200
    assert "authorization" not in plain.heads[0], "httpx drops its own there, and nothing came instead"

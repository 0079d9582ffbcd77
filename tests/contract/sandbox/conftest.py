"""Open sandboxes for all contract tests of the port; each test gets fresh containers of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from flow_platform.sandbox.base import Sandbox
from flow_platform.sandbox.docker.sandbox import DockerSandbox
from flow_platform.sandbox.gvisor.sandbox import GvisorSandbox
from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox
from tests.support.docker_daemon import DockerDaemon, docker
from tests.support.runsc import needs_runsc
from tests.support.sandbox_cache import sandbox_cache

__all__ = ["docker"]

SANDBOXES = ("namespaces", "docker", pytest.param("gvisor", marks=needs_runsc))
"""Fixtures below, by the name of their sandbox."""


@pytest_asyncio.fixture(scope="package", loop_scope="package", name="namespaces")
async def open_namespaces() -> AsyncIterator[NamespacesSandbox]:
    opened = NamespacesSandbox(sandbox_cache(), pool_size=3)
    await opened.open()
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def docker_sandbox(docker: DockerDaemon) -> AsyncIterator[DockerSandbox]:
    opened = DockerSandbox(sandbox_cache(), host=docker.host, pool_size=2)
    await opened.open()
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def gvisor() -> AsyncIterator[GvisorSandbox]:
    opened = GvisorSandbox(sandbox_cache(), pool_size=3)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(params=SANDBOXES)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """Each of them in turn."""
    fixtures = {"namespaces": "namespaces", "docker": "docker_sandbox", "gvisor": "gvisor"}
    return request.getfixturevalue(fixtures[request.param])

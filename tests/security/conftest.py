"""A sandbox for the hostile tests, and the box of canaries around it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from flow_platform.hostile.box import Box
from flow_platform.hostile.canaries import Canaries, planted
from flow_platform.hostile.suite import box_around
from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox
from tests.support.sandbox_cache import sandbox_cache


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def sandbox() -> AsyncIterator[NamespacesSandbox]:
    opened = NamespacesSandbox(sandbox_cache(), pool_size=2)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="package")
def canaries() -> Iterator[Canaries]:
    with planted() as value:
        yield value


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def box(canaries: Canaries) -> AsyncIterator[Box]:
    async with box_around(NamespacesSandbox(sandbox_cache(), pool_size=2), canaries) as opened:
        yield opened


@pytest.fixture
def host_port() -> Iterator[int]:
    """Something that listens on the host's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]

"""A sandbox for the hostile tests, and what they look for on the host."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox
from tests.support.sandbox_cache import sandbox_cache


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def sandbox() -> AsyncIterator[NamespacesSandbox]:
    opened = NamespacesSandbox(sandbox_cache(), pool_size=2)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="package")
def environment_canary() -> Iterator[str]:
    """A secret in the runner's environment; the exclamation mark behind it tells it from a copy in a needle."""
    value = secrets.token_hex(16)
    os.environ["FLOW_TEST_CANARY"] = value + "!"
    yield value
    del os.environ["FLOW_TEST_CANARY"]


@pytest.fixture
def host_port() -> Iterator[int]:
    """Something that listens on the host's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def abstract_name() -> Iterator[str]:
    name = f"flow-test-{secrets.token_hex(4)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        yield name


@pytest.fixture
def canary_path(tmp_path: Path) -> str:
    path = tmp_path / "canary"
    path.write_text("secret of the host")
    return str(path)

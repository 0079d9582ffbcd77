"""One open sandbox for all contract tests of the port; each test gets fresh containers of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox
from tests.support.sandbox_cache import sandbox_cache


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def sandbox() -> AsyncIterator[NamespacesSandbox]:
    opened = NamespacesSandbox(sandbox_cache(), pool_size=3)
    await opened.open()
    yield opened
    await opened.close()

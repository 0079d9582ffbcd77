"""An API whose model gateway knows a provider on loopback beside the built-in ones; see `asking`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from flow_platform.api.app import create_app
from flow_platform.engine.catalog import Catalog
from flow_platform.engine.service import Engine
from flow_platform.gateway.configuration import PlatformModels
from flow_platform.gateway.keys import SecretKeys
from flow_platform.gateway.model_gateway import ModelGateway
from flow_platform.gateway.retries import RetryRule
from flow_platform.store import open_store
from tests.contract.api.hands import NO_NATS, Builds, Platform
from tests.contract.api.models.asking import KEY, TestBudget
from tests.contract.api.serving import serving
from tests.support.fake_upstream import FakeUpstream

QUICK = RetryRule(initial_seconds=0.001, maximum_seconds=0.002)


@pytest.fixture(scope="module")
def upstream() -> FakeUpstream:
    return FakeUpstream()


@pytest.fixture(scope="module")
def budget() -> TestBudget:
    return TestBudget()


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    """What a module adds to the operator's configuration."""
    return {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(
    tmp_path_factory: pytest.TempPathFactory, upstream: FakeUpstream, budget: TestBudget, configuration: dict[str, Any]
) -> AsyncIterator[Platform]:
    path = tmp_path_factory.mktemp("store") / "flow.db"
    engine = Engine(open_store(f"sqlite:///{path}"), NO_NATS)
    await engine.start()
    async with serving(upstream.app) as url:
        providers = {
            "up": {"base_url": f"{url}/v1"},
            "other": {"base_url": f"{url}/other", "key": ""},
            "claude": {"kind": "anthropic", "base_url": f"{url}/claude", "key": "UP_API_KEY"},
            "gone": {"base_url": "http://127.0.0.1:1/v1", "key": ""},
            "slow": {"base_url": f"{url}/v1", "key": "", "idle_seconds": 0.2},
        }
        models = PlatformModels.model_validate({"providers": providers, **configuration})
        gateway = ModelGateway(
            engine.store, engine.clock, SecretKeys(None, {"UP_API_KEY": KEY}), models, budget=budget, retries=QUICK
        )
        builds = Builds()
        engine.catalog = Catalog(engine.store, engine.clock, builds, engine.rollouts)
        yield Platform(engine, builds, create_app(engine, models=gateway))
        await gateway.close()
    await engine.stop()

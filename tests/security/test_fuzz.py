"""Requests that nobody would write, made from the API's own description: it describes each answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from flow_platform.domain.principal import Role
from tests.contract.api.hands import HOUR
from tests.support.two_organizations import World, two_organizations

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLES = 4
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


class _Served:
    """The world over HTTP, in a thread of its own: what asks is not asynchronous."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.world: World

    async def _serve(self) -> None:
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        async with two_organizations(self._folder) as self.world:
            self.document = await self.world.platform.document()
            self._ready.set()
            await self._done.wait()

    def __enter__(self) -> _Served:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(30)

    def token(self, subject: str) -> str:
        engine, org_id = self.world.platform.engine, self.world.own.workspace.org_id
        return engine.tokens.for_user(subject, org_id, None, Role.ADMIN, HOUR, engine.clock.now())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Served]:
    with _Served(tmp_path_factory.mktemp("fuzz")) as running:
        yield running


def test_every_answer_to_whatever_is_asked_is_described(served: _Served) -> None:
    load_all_checks()
    schema = schemathesis.openapi.from_dict(served.document)
    schema.config.base_url = served.world.base_url
    problems: list[str] = []
    statuses: dict[int, int] = {}
    # MCP answers in JSON-RPC, which its own specification describes.
    operations = [one.ok() for one in schema.get_all_operations() if not one.ok().path.endswith("/mcp")]
    for operation in operations:
        problems += fuzz(served, operation, statuses)
    assert not problems, "\n\n".join(problems)
    assert len(operations) > 150
    assert statuses[422] > 40, statuses
    assert sum(count for status, count in statuses.items() if status < 300) > 60, statuses


def fuzz(served: _Served, operation: Any, statuses: dict[int, int]) -> list[str]:
    """What is wrong with the answers of one operation."""
    headers = {"Authorization": f"Bearer {served.token(f'fuzzer of {operation.label}')}"}
    problems: list[str] = []
    strategies = [
        operation.as_strategy(generation_mode=mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    ]

    @seed(1)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(strategies), is_ours=st.booleans())
    def ask(case: Case, is_ours: bool) -> None:
        place(case, served.world, is_ours)
        answer = case.call(headers=headers, timeout=30)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        if problem := judged(case, answer):
            problems.append(f"{operation.label}: {problem}")

    ask()
    return problems[:2]


def place(case: Case, world: World, is_ours: bool) -> None:
    """Most of what is asked is asked of a workspace that is there, else nothing but 404 would ever come."""
    known = {"org_id": world.own.workspace.org_id, "workspace_id": world.own.workspace.workspace_id}
    if is_ours:
        known |= {f"{name}_id": value for name, value in world.ours.ids.items()}
    for name in case.path_parameters or {}:
        if name in known:
            case.path_parameters[name] = known[name]


def judged(case: Case, answer: Any) -> str:
    if answer.status_code >= 500 and answer.status_code != 503:
        return f"{answer.status_code} {answer.text[:300]} to {case.as_curl_command()[:600]}"
    try:
        case.validate_response(answer, checks=CHECKS)
    except (FailureGroup, Failure) as error:
        found = getattr(error, "exceptions", (error,))
        what = "; ".join(f"{type(one).__name__}: {one.message}"[:300] for one in found)
        return f"{what}: {answer.status_code} {answer.text[:300]} to {case.as_curl_command()[-600:]}"
    return ""

"""What containers were refused at the NATS gateway is in the audit log of whose they are, and in nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from flow_platform.api.app import create_app
from flow_platform.bus.gateway import Gateway
from flow_platform.bus.sessions import DenialCode, Tried
from flow_platform.engine import refusals
from flow_platform.engine.catalog import Catalog
from flow_platform.engine.service import Engine
from flow_platform.runner.refusals import EVERY_SECONDS, MAX_OF_ORGANIZATION, GatewayRefusals
from flow_platform.store import open_store
from flow_sdk.wire.runner import Assignment, GatewayRefusal, Heartbeat, HeartbeatReply
from tests.contract.api.hands import NO_NATS, Builds, Platform, Tenant
from tests.security.test_audit import entries, exported, wide
from tests.support.gateway_executions import Execution, receive_all, receive_until, send
from tests.support.two_organizations import new_tenant

pytestmark = pytest.mark.asyncio(loop_scope="module")

_KINDS = {
    ("NATS CONNECT", 401, "token_invalid", None),
    ("NATS SUB", 403, "forbidden", "exec.>"),
    ("NATS PUB", 403, "forbidden", "exec.output.another"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    path: Path = tmp_path_factory.mktemp("audit")
    engine = Engine(open_store(f"sqlite:///{path}/flow.db"), NO_NATS)
    await engine.start()
    builds = Builds()
    engine.catalog = Catalog(engine.store, engine.clock, builds, engine.rollouts)
    yield Platform(engine, builds, create_app(engine))
    await engine.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def tenant(platform: Platform) -> Tenant:
    return await new_tenant(platform)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Runner:
    """The part of a runner that tells of refusals, between a real gateway and a real engine."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.clock = Clock()
        self.refusals = GatewayRefusals(self.clock)
        self.gateway = Gateway()
        self._executions: list[Execution] = []

    def container_of(self, assignment: Assignment) -> Execution:
        """What stands for the container: connections that only it can open."""
        made = Execution(self.gateway, assignment.execution_id, assignment.token)

        def denied(tried: Tried, code: DenialCode, subject: str = "") -> None:
            self.refusals.note(assignment, tried, code, lambda: subject)

        made.session.denied = denied
        self._executions.append(made)
        return made

    async def beat(self) -> HeartbeatReply:
        """A heartbeat, as the runner sends it."""
        due = self.refusals.due()
        reply = await self.tell(list(due.values()))
        if not reply.error:
            self.refusals.told(due)
        return reply

    async def tell(self, told: list[GatewayRefusal], runner_id: str = "") -> HeartbeatReply:
        heartbeat = Heartbeat(runner_id=runner_id or self.platform.runner, instance="1", refusals=told)
        answer = await self.platform.engine._on_heartbeat(heartbeat.model_dump_json().encode())
        return HeartbeatReply.model_validate_json(answer)

    async def close(self) -> None:
        for execution in self._executions:
            await execution.close()
        await self.gateway.close()


@pytest_asyncio.fixture(loop_scope="module")
async def runner(platform: Platform) -> AsyncIterator[Runner]:
    made = Runner(platform)
    yield made
    await made.close()


async def trespass(container: Execution, times: int = 1) -> None:
    """Tries each kind so often."""
    for _ in range(times):
        guess = await container.dial()
        await send(guess, b'CONNECT {"auth_token":"a.guessed.token"}\r\n')
        assert b"Authorization Violation" in await receive_all(guess)
    inside = await container.dial_authorized()
    for line in (b"SUB exec.> 7\r\n", b"PUB exec.output.another 2\r\n{}\r\n"):
        await send(inside, line * times + b"PING\r\n")
        assert (await receive_until(inside, b"PONG\r\n")).count(b"Permissions Violation") == times


def kinds(found: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {(entry["action"], entry["status"], entry["code"], entry["target"].get("subject")) for entry in found}


async def test_who_from_where_what_and_why(platform: Platform, tenant: Tenant, runner: Runner) -> None:
    sibling = await new_tenant(platform, tenant.workspace.org_id)
    stranger = await new_tenant(platform)
    assignment = await tenant.running()
    await trespass(runner.container_of(assignment), 3)
    assert not (await runner.beat()).error
    found = await entries(tenant, tenant.token(), kind="refusal")
    assert kinds(found) == _KINDS
    for entry in found:
        assert entry["who"] == {
            "subject": f"execution:{assignment.execution_id}",
            "role": "execution",
            "credential": f"attempt:{assignment.attempt}",
        }
        assert entry["from"] == {"runner": platform.runner, "gateway": "nats"}
        assert entry["target"]["execution_id"] == assignment.execution_id
        assert (entry["workspace_id"], entry["count"]) == (tenant.workspace.workspace_id, 3)
        assert assignment.token not in str(entry)
        assert "a.guessed.token" not in str(entry)
    assert {entry["sequence"] for entry in await entries(tenant, wide(tenant), kind="refusal")} == {
        entry["sequence"] for entry in found
    }
    for other in (sibling, stranger):
        assert await entries(other, other.token(), kind="refusal") == []
    assert len(await entries(tenant, subject=f"execution:{assignment.execution_id}", action="NATS SUB")) == 1


async def test_a_flood_is_a_few_entries_a_minute(tenant: Tenant, runner: Runner) -> None:
    assignment = await tenant.running()
    container = runner.container_of(assignment)
    for _ in range(3):
        await trespass(container, 60)
        await runner.beat()
        await tenant.platform.engine.audit.refusals.flush()
    first = await entries(tenant, kind="refusal")
    assert kinds(first) == _KINDS
    assert [entry["count"] for entry in first] == [60] * 3
    runner.clock.now += EVERY_SECONDS
    await runner.beat()
    second = (await entries(tenant, kind="refusal"))[: -len(first)]
    assert sorted(entry["count"] for entry in second) == [120] * 3


async def test_many_containers_are_bounded_too(tenant: Tenant, runner: Runner) -> None:
    """Each a kind of its own: the runner tells so many, and the log takes so many; each is counted."""
    assignment = await tenant.running()
    times = MAX_OF_ORGANIZATION + 100
    for number in range(times):
        other = assignment.model_copy(update={"attempt": number, "lease_epoch": number})
        runner.refusals.note(other, "PUB", "forbidden", str)
    assert len(runner.refusals) == MAX_OF_ORGANIZATION + 1
    same = GatewayRefusal(
        execution_id=assignment.execution_id,
        lease_epoch=assignment.lease_epoch,
        attempt=1,
        tried="PUB",
        status=403,
        code="forbidden",
    )
    told = [same.model_copy(update={"code": f"c{number}"}) for number in range(3 * refusals.ENTRIES.burst)]
    others = same.model_copy(update={"is_others": True, "count": 1000})
    await runner.tell([*told, others])
    found = [entry.document for entry in await exported(tenant)]
    found = [entry for entry in found if entry["kind"] == "refusal"]
    assert len(found) <= refusals.ENTRIES.burst + 3  # One may have come back by itself meanwhile.
    assert sum(entry["count"] for entry in found) == len(told) + 1000
    assert refusals.OTHERS in {entry["action"] for entry in found}


async def test_a_runner_tells_only_of_what_it_runs(platform: Platform, tenant: Tenant, runner: Runner) -> None:
    assignment = await tenant.running()
    mine = GatewayRefusal(
        execution_id=assignment.execution_id,
        lease_epoch=assignment.lease_epoch,
        attempt=assignment.attempt,
        tried="PUB\x1b[2J",
        status=403,
        code="forbidden",
        subject="Bearer eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.abc",
    )
    await runner.tell(
        [
            mine.model_copy(update={"execution_id": "nobody's"}),
            mine.model_copy(update={"lease_epoch": assignment.lease_epoch + 1}),
            mine.model_copy(update={"count": 0}),
        ]
    )
    assert (await runner.tell([mine], "another")).error == "unknown_runner"
    assert await entries(tenant, kind="refusal") == []
    await runner.tell([mine])
    (entry,) = await entries(tenant, kind="refusal")
    assert entry["action"] == "NATS PUB\\u001b[2J"
    assert entry["target"]["subject"] == "Bearer (hidden)"


async def test_what_is_told_after_the_end_is_entered(platform: Platform, tenant: Tenant, runner: Runner) -> None:
    assignment = await tenant.running()
    await trespass(runner.container_of(assignment))
    message = platform._report(
        "exec.output", assignment, {"output": 1, "error": None}, {"Flow-Runner": platform.runner}
    )
    await platform.engine._recorder.record_outputs([message])
    await runner.beat()
    assert kinds(await entries(tenant, kind="refusal")) == _KINDS

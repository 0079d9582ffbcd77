"""What an execution runs in: the stronger of its component's word and its ring's minimum, where a runner offers it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flow_platform.domain import errors
from flow_platform.domain.execution import Execution
from flow_platform.domain.policy import Policy
from flow_platform.domain.release import Ring
from flow_platform.engine.releases import NewRing
from flow_platform.engine.rollouts import RingChange
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.status import Kind
from tests.support.eventually import eventually
from tests.support.scripted_runner import ScriptedRunner
from tests.support.stage import Stage


async def test_a_component_without_a_word_runs_in_namespaces(stage: Stage) -> None:
    await stage.publish()
    execution = await stage.submit()

    assert (await stage.get(execution.id)).isolation is Isolation.NAMESPACES
    assert (await stage.claim(execution.id)).isolation is Isolation.NAMESPACES


async def test_work_goes_to_a_runner_that_offers_its_isolation_and_else_says_what_it_waits_for(stage: Stage) -> None:
    await stage.publish("hard", isolation="gvisor")
    await stage.publish("usual")
    hard = await stage.submit("hard")
    usual = await stage.submit("usual")

    assert (await stage.claim(usual.id)).isolation is Isolation.NAMESPACES
    waits = (await stage.get(hard.id)).waiting_on
    assert waits is not None
    assert waits.reason == "isolation"
    assert waits.until == hard.deadline_at
    assert waits.message.startswith("No runner offers isolation 'gvisor', only namespaces;")

    other = ScriptedRunner(stage.runner.bus, "other", isolations=["docker", "gvisor"])
    await other.register()
    claimed = await other.claim()
    assert [(one.execution_id, one.isolation) for one in claimed] == [(hard.id, Isolation.GVISOR)]


async def test_a_runner_of_several_takes_them_in_the_order_of_the_queue(stage: Stage) -> None:
    words = ["gvisor", None, "docker", "gvisor", None, "docker"]
    submitted: list[Execution] = []
    for number, word in enumerate(words):
        await stage.publish(f"block-{number}", isolation=word)
    for number in range(len(words)):
        submitted.append(await stage.submit(f"block-{number}"))
        stage.clock.advance(timedelta(milliseconds=1))
    runner = ScriptedRunner(stage.runner.bus, "several", 5, ["namespaces", "gvisor"])
    await runner.register()

    claimed = await runner.claim()

    expected = [one.id for one, word in zip(submitted, words, strict=True) if word != "docker"]
    assert [one.execution_id for one in claimed] == expected


@pytest.mark.parametrize("limited", [False, True], ids=["in lanes", "under limits"])
async def test_lanes_of_other_isolations_are_left_to_others(stage: Stage, *, limited: bool) -> None:
    """A limit makes the engine choose among lanes instead of taking the queue's own order."""
    await stage.publish("hard", isolation="docker")
    await stage.publish("usual")
    if limited:
        await stage.engine.policies.put(
            stage.admin, stage.org_id, stage.workspace_id, Policy(component_id="hard", concurrency=100)
        )
    hard = [await stage.submit("hard") for _ in range(3)]
    usual = await stage.submit("usual")

    assert [one.execution_id for one in await stage.runner.claim()] == [usual.id]
    other = ScriptedRunner(stage.runner.bus, "other", isolations=["docker"])
    await other.register()
    assert {one.execution_id for one in await other.claim()} == {one.id for one in hard}


async def test_a_ring_demands_at_least_its_minimum(stage: Stage) -> None:
    await stage.publish("usual")
    await stage.publish("hard", isolation="gvisor")
    dev = await ring(stage, "dev")
    assert dev.minimum_isolation is Isolation.PROCESS

    changed = await change(stage, dev, Isolation.DOCKER)
    usual, hard = await stage.submit("usual"), await stage.submit("hard")

    assert changed.minimum_isolation is Isolation.DOCKER
    assert (await stage.get(usual.id)).isolation is Isolation.DOCKER
    assert (await stage.get(hard.id)).isolation is Isolation.GVISOR


async def test_an_agent_and_a_child_have_the_word_of_their_own_component(stage: Stage) -> None:
    await stage.publish("parent", Kind.WORKFLOW)
    await stage.publish("child", isolation="docker")
    parent = await stage.submit("parent", kind=Kind.WORKFLOW)
    assignment = await stage.claim(parent.id)

    child = await stage.submit("child", stage.inside(assignment))

    assert (assignment.isolation, child.isolation) == (Isolation.NAMESPACES, Isolation.DOCKER)


async def test_only_dev_lets_plain_processes_in(stage: Stage) -> None:
    await stage.publish("bare", isolation="process")
    bare = await stage.submit("bare")
    assert bare.isolation is Isolation.PROCESS

    staging = await ring(stage, "staging")
    where = stage.admin, stage.org_id, stage.workspace_id
    with pytest.raises(errors.Conflict, match="'process', which is for ring 'dev' only") as deploying:
        await stage.engine.rollouts.deploy(*where, bare.component_id, staging.id)
    with pytest.raises(errors.Conflict) as promoting:
        await stage.engine.rollouts.promote(*where, [bare.deployment_id or ""], staging.id)

    assert deploying.value.error_code == promoting.value.error_code == "isolation_too_weak"
    await change(stage, await ring(stage, "dev"), Isolation.NAMESPACES)
    assert (await stage.submit("bare")).isolation is Isolation.NAMESPACES


async def test_a_ring_that_deploys_by_itself_refuses_plain_processes_with_the_publish(stage: Stage) -> None:
    await stage.engine.releases.create_ring(
        stage.admin, stage.org_id, stage.workspace_id, NewRing("canary", 15, auto_deploy=True)
    )

    with pytest.raises(errors.Conflict) as refused:
        await stage.publish("bare", isolation="process")

    assert refused.value.error_code == "isolation_too_weak"


async def test_no_other_ring_can_be_made_to_let_them_in(stage: Stage) -> None:
    where = stage.admin, stage.org_id, stage.workspace_id
    expected = "one of 'namespaces', 'docker', 'gvisor'"
    with pytest.raises(errors.InvalidInput, match=expected):
        await change(stage, await ring(stage, "production"), Isolation.PROCESS)
    with pytest.raises(errors.InvalidInput, match=expected):
        await stage.engine.releases.create_ring(*where, NewRing("canary", 15, minimum_isolation=Isolation.PROCESS))


async def test_a_graph_has_no_word_as_it_has_no_container(stage: Stage) -> None:
    await stage.publish("node")
    with pytest.raises(errors.InvalidInput, match="no isolation beside nodes"):
        await stage.publish(
            "graph",
            Kind.WORKFLOW,
            code=None,
            nodes=[{"id": "one", "component_ref": "code_block:node"}],
            isolation="gvisor",
        )


async def test_the_isolations_of_a_runner_are_those_of_its_last_start(stage: Stage) -> None:
    await stage.publish("hard", isolation="gvisor")
    hard = await stage.submit("hard")
    again = ScriptedRunner(stage.runner.bus, stage.runner.runner_id, isolations=["gvisor", "unheard-of"])
    await again.register()

    async def claimed() -> list[str]:
        return [one.execution_id for one in await again.claim(0.1)]

    assert await eventually(claimed, bool) == [hard.id]


async def ring(stage: Stage, name: str) -> Ring:
    rings = await stage.engine.releases.rings(stage.admin, stage.org_id, stage.workspace_id)
    return next(one for one in rings if one.name == name)


async def change(stage: Stage, changed: Ring, minimum: Isolation) -> Ring:
    fields = RingChange({"minimum_isolation": minimum})
    where = stage.admin, stage.org_id, stage.workspace_id
    return await stage.engine.rollouts.change_ring(*where, changed.id, fields)

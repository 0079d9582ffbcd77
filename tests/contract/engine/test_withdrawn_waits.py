"""A wait that the code gave up gets nothing any more: each event goes to a wait that is still there, once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flow_platform.domain import errors
from flow_sdk.wire.durable import CheckpointDocument
from tests.support.played_workflow import Workflow
from tests.support.stage import Stage

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def database_url(store_url: str) -> str:
    """On each database."""
    return store_url


async def test_an_event_goes_to_the_next_wait_and_not_to_one_that_was_given_up(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    given_up = await workflow.ask("event", "paid", occurrence=0)
    assert (await workflow.withdraw(given_up)).status == "withdrawn"
    assert not (await workflow.send("paid", 1)).delivered
    assert (await workflow.ask("event", "paid", occurrence=1)).value == 1
    waiting = await workflow.ask("event", "paid", occurrence=2)
    assert (await workflow.send("paid", 2)).delivered
    assert (await workflow.ask("event", "paid", occurrence=2)).value == 2, waiting


async def test_an_event_that_came_just_before_is_given_back_in_its_place(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    given_up = await workflow.ask("event", "paid", occurrence=0)
    assert (await workflow.send("paid", "first")).delivered
    assert not (await workflow.send("paid", "second")).delivered
    assert (await workflow.withdraw(given_up)).status == "withdrawn"
    assert [(await workflow.ask("event", "paid", occurrence=n)).value for n in (1, 2)] == ["first", "second"]
    assert (await workflow.ask("event", "paid", occurrence=3)).status == "open"


async def test_what_is_given_back_goes_to_the_oldest_wait_that_is_open(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    asked: list[CheckpointDocument] = []
    for kind, occurrence in (("event", 0), ("approval", 0), ("event", 1), ("event", 2)):
        asked.append(await workflow.ask(kind, "paid", occurrence=occurrence))
        stage.clock.advance(timedelta(milliseconds=1))
    given_up, *others = asked
    assert (await workflow.send("paid", {"n": 1})).delivered
    await workflow.withdraw(given_up)
    held = [
        await stage.engine.checkpoints.wait(
            workflow.inside, stage.org_id, stage.workspace_id, workflow.id, one.checkpoint_id, 0
        )
        for one in others
    ]
    assert [(one.status, one.value) for one in held] == [("open", None), ("done", {"n": 1}), ("open", None)]


async def test_the_next_attempt_waits_again_where_an_earlier_one_gave_up(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    given_up = await workflow.ask("event", "paid", occurrence=0)
    await workflow.withdraw(given_up)
    assert (await workflow.ask("event", "paid", occurrence=0)).status == "withdrawn", "the same request, late"
    second = await workflow.ask("event", "paid", occurrence=1)
    assert (await workflow.send("paid", 1)).delivered
    await workflow.lose()
    again = await workflow.ask("event", "paid", occurrence=0)
    assert (again.checkpoint_id, again.status) == (given_up.checkpoint_id, "open")
    await workflow.withdraw(again)
    assert (await workflow.ask("event", "paid", occurrence=1)).value == 1, second


async def test_the_next_attempt_is_given_what_nobody_read(stage: Stage) -> None:
    workflow = await Workflow.start(stage, retry={"max_attempts": 2})
    await workflow.withdraw(await workflow.ask("event", "paid", occurrence=0))
    await workflow.send("paid", 1)
    await workflow.lose({"code": "component_error", "message": "its task group failed"})
    assert (await workflow.ask("event", "paid", occurrence=0)).value == 1


async def test_an_event_that_an_earlier_attempt_saw_is_not_given_twice(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    seen = await workflow.ask("event", "paid", occurrence=0)
    await workflow.send("paid", 1)
    await workflow.lose()
    assert (await workflow.ask("event", "paid", occurrence=0)).value == 1
    assert (await workflow.withdraw(seen)).status == "done"
    assert (await workflow.ask("event", "paid", occurrence=1)).status == "open"


async def test_an_approval_that_was_given_up_is_not_answered_any_more(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    asked = await workflow.ask("approval", "ship", occurrence=0)
    await workflow.withdraw(asked)
    assert not (await workflow.send("ship", {"approved": True})).delivered
    again = await workflow.ask("approval", "ship", occurrence=1)
    assert again.status == "open"
    assert (await workflow.send("ship", {"approved": True})).delivered
    assert (await workflow.withdraw(again)).status == "done", "somebody decided; that is on record"


async def test_what_expired_stays_so_and_steps_and_timers_are_not_withdrawn(stage: Stage) -> None:
    workflow = await Workflow.start(stage)
    asked = await workflow.ask("event", "paid", seconds=5)
    stage.clock.advance(timedelta(seconds=6))
    assert (await workflow.withdraw(asked)).status == "expired"
    for kind, seconds in (("step", None), ("timer", 5.0)):
        with pytest.raises(errors.InvalidInput, match="expected an event or an approval"):
            await workflow.withdraw(await workflow.ask(kind, "other", seconds=seconds))

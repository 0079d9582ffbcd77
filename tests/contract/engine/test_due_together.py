"""A whole tree is due at the same moment, as it is when the platform was away past its deadlines."""

from __future__ import annotations

from datetime import timedelta

from flow_platform.domain.execution import CANCEL_GRACE
from flow_sdk.wire.status import Status
from tests.support.retries import call, workflow
from tests.support.stage import Stage


async def test_a_tree_whose_deadlines_have_all_passed_ends(stage: Stage) -> None:
    stage.runner.slots = 10
    caller = await workflow(stage)
    running, queued = await call(stage, caller, 1), await call(stage, caller, 2)
    await stage.claim(running.id)

    # The second time for a child that was cancelled with its parent, and whose runner stays silent.
    for passed in (timedelta(days=1), 2 * CANCEL_GRACE):
        stage.clock.advance(passed)
        while await stage.engine.sweeper.sweep():
            pass

    ends = {(await stage.wait(one)).status for one in (caller.execution_id, running.id, queued.id)}
    assert ends <= {Status.TIMEOUT, Status.CANCELLED}
    assert (await stage.get(caller.execution_id)).status is Status.TIMEOUT

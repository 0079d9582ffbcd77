"""What a component tries in its container, against host, kernel and neighbours: all of it must be refused."""

from __future__ import annotations

import pytest

from flow_platform.hostile.answer import Verdict, leaks
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.box import Box
from flow_platform.hostile.suite import BOX_ATTEMPTS

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.mark.parametrize("attempt", BOX_ATTEMPTS, ids=lambda attempt: attempt.name)
async def test_is_refused(box: Box, attempt: Attempt[Box]) -> None:
    tried = await attempt.answers(box)
    assert leaks(tried) == []
    assert {answer.group for answer in tried} == set(attempt.groups)
    weak = [answer for answer in tried if answer.verdict is Verdict.WEAK]
    assert box.weak or not weak, weak


async def test_an_attempt_that_cannot_be_tried_is_a_leak(box: Box) -> None:
    async def broken(_: Box) -> list[object]:
        raise RuntimeError("no container")

    async def silent(_: Box) -> list[object]:
        return []

    for run in (broken, silent):
        (tried,) = await Attempt("nothing", (1,), run).answers(box)
        assert tried.verdict is Verdict.LEAKED

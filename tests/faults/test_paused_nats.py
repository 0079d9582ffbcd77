"""NATS answers nothing: what is submitted meanwhile is accepted, and runs when NATS is back."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.support.clients import RingClient
from tests.support.flow_program import Platform

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
async def test_what_is_submitted_without_nats_runs_when_it_is_back(platform: Platform, number: signal.Signals) -> None:
    async with RingClient(platform) as ring:
        assert (await ring.run("square", {"number": 1}))["output"] == 1
        nats = platform.child("nats-server")
        os.kill(nats, number)
        try:
            async with asyncio.timeout(60):
                ids = [await ring.submit("square", {"number": value}) for value in range(5)]
                documents = [await ring.status(execution_id) for execution_id in ids]
        finally:
            if number is signal.SIGSTOP:
                os.kill(nats, signal.SIGCONT)
        if number is signal.SIGSTOP:
            assert {document["status"] for document in documents} <= {"queued", "running"}
        ended = [await ring.ended(execution_id) for execution_id in ids]
    assert [document["output"] for document in ended] == [0, 1, 4, 9, 16]

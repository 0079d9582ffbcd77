"""Secrets at the runner, with real containers: asked for once, handed over, and taken out of all that comes back."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable

import pytest

from flow_platform.bus.sealing import seal
from flow_sdk.wire import subjects
from flow_sdk.wire.execution import ErrorDocument
from flow_sdk.wire.secrets import SecretsReply, SecretsRequest, encode_secrets, secrets_context
from tests.contract.runner.conftest import StartRunner
from tests.contract.runner.fake_engine import FakeEngine, assignment

pytestmark = pytest.mark.asyncio(loop_scope="session")

VALUE = "runner-canary/4f2d7c81"
LEAKS = f"""
import os
def main(size=0):
    value = os.environ["TOKEN"]
    assert value == {VALUE!r} and os.environ["PLAIN"] == "of nothing else"
    print("first half", value[:8]); print("value", value)
    return {{"value": value, "filler": ["a\\n" * 50 + value] * size}}
"""


async def answer(engine: FakeEngine, reply: Callable[[SecretsRequest], SecretsReply]) -> list[SecretsRequest]:
    asked: list[SecretsRequest] = []

    async def serve(body: bytes) -> bytes:
        asked.append(SecretsRequest.model_validate_json(body))
        return reply(asked[-1]).model_dump_json().encode()

    await engine.bus.serve(subjects.RUNNER_SECRETS, subjects.ENGINE_QUEUE, serve)
    return asked


def given(request: SecretsRequest) -> SecretsReply:
    context = secrets_context(request.execution_id, request.lease_epoch)
    return SecretsReply(
        sealed=seal(request.public_key, encode_secrets({"TOKEN": VALUE, "PLAIN": "of nothing else"}), context)
    )


@pytest.mark.parametrize("channel", ["socket", "nats"])
@pytest.mark.parametrize("size", [0, 8_000])
async def test_what_a_container_says_comes_back_without_its_secrets(
    engine: FakeEngine, start_runner: StartRunner, channel: str, size: int
) -> None:
    asked = await answer(engine, given)
    await start_runner(channel=channel)
    work = assignment(LEAKS, {"size": size}, secrets=["TOKEN", "PLAIN"], env={"TOKEN": "the ring's is not used"})

    output = await engine.run(work)

    text = json.dumps(output.content)
    assert output.content["output"]["value"] == "[redacted]", text[:500]
    assert len(output.content["output"]["filler"]) == size
    assert [(one.execution_id, one.lease_epoch) for one in asked] == [(work.execution_id, work.lease_epoch)]
    said = text + json.dumps(engine.events.get(work.execution_id, []))
    assert VALUE not in said
    assert base64.b64encode(VALUE.encode()).decode()[:-4] not in said


async def test_an_execution_without_secrets_asks_for_none(engine: FakeEngine, start_runner: StartRunner) -> None:
    asked = await answer(engine, given)
    await start_runner()

    output = await engine.run(assignment("def main():\n    return 1\n"))

    assert (output.content["output"], asked) == (1, [])


@pytest.mark.parametrize(
    ("retryable", "code"),
    [(False, "secret_missing"), (True, "container_lost")],
)
async def test_an_attempt_that_gets_no_secrets_ends_without_a_container(
    engine: FakeEngine, start_runner: StartRunner, retryable: bool, code: str
) -> None:
    error = ErrorDocument(code="secret_missing", message="'TOKEN' has no value", retryable=retryable)
    await answer(engine, lambda _: SecretsReply(error=error))
    await start_runner()

    output = await engine.run(assignment(LEAKS, secrets=["TOKEN"]))

    assert output.error["code"] == code
    assert "'TOKEN' has no value" in output.error["message"]
    assert output.metrics.run_ms is None


async def test_an_answer_for_somebody_else_is_none(engine: FakeEngine, start_runner: StartRunner) -> None:
    def for_another(request: SecretsRequest) -> SecretsReply:
        return SecretsReply(sealed=seal(request.public_key, b"TOKEN\0value", b"another context"))

    await answer(engine, for_another)
    await start_runner()

    output = await asyncio.wait_for(engine.run(assignment(LEAKS, secrets=["TOKEN"])), 20)

    assert output.error["code"] == "container_lost"

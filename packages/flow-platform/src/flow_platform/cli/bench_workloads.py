"""The workloads of the benchmark, through `PlatformClient`, as any program of a user would do it."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from flow_platform.cli.bench_process import cpu_ms
from flow_platform.cli.connection import Connection
from flow_platform.cli.remote import PUBLISH_TIMEOUT_SECONDS, Remote
from flow_platform.domain.errors import FlowError
from flow_sdk import PlatformClient
from flow_sdk.wire.status import Status

IN_FLIGHT: Final = 64
COUNTS: Final = {"w1": 200, "w2": 1000, "w3": 50, "w4": 2000, "w6": 5, "w7": 1000}
SEQUENCE: Final = 40  # Steps of W6.
WARM: Final = 5
TIMEOUT_SECONDS: Final = 300.0

NOOP: Final = 'def main():\n    return {"ok": True}\n'
WORKFLOW: Final = """\
import asyncio
import os

from flow_sdk import PlatformClient


async def main(code_block_id: str, steps: int, parallel: bool) -> int:
    async with PlatformClient() as client:
        async def step():
            document = await client.execute_code_block(code_block_id, {}, None, ring_id=os.environ["RING_ID"])
            return document["output"]["ok"]

        if parallel:
            done = await asyncio.gather(*(step() for _ in range(steps)))
        else:
            done = [await step() for _ in range(steps)]
    return sum(done)
"""
RESUMED: Final = """\
import asyncio
import os
import time

from flow_sdk import PlatformClient, step


async def main(code_block_id: str, children: int) -> dict:
    async with PlatformClient() as client:
        turns = asyncio.Semaphore(64)

        async def call(number):
            async with turns:
                await client.execute_code_block(code_block_id, {}, {"number": number}, ring_id=os.environ["RING_ID"])

        is_first = os.environ["ATTEMPT"] == "1"
        began = time.time()
        if is_first:
            await asyncio.gather(*(call(number) for number in range(children)))
        else:
            for number in range(children):
                await call(number)
        replayed = time.time()
        killed_at = await step("killed at", time.time)
        if is_first:
            os.kill(os.getpid(), 9)
        going_on = time.time()
        await call(children)
    return {"resume_s": going_on - killed_at, "replay_s": replayed - began}
"""


@dataclass(frozen=True)
class Target:
    """What is measured.

    Attributes:
        resumed_id: A workflow that kills its own container behind its calls, and measures how it goes on.
        pid: Root of the platform's processes; None: it runs elsewhere, so its CPU is not known.
    """

    client: PlatformClient
    noop_id: str
    workflow_id: str
    resumed_id: str
    ring_id: str
    pid: int | None

    async def noop(self) -> dict[str, Any]:
        """One execution, awaited.

        Raises:
            FlowError: It did not complete.
        """
        document = await self.client.execute_code_block(self.noop_id, {}, None, ring_id=self.ring_id)
        return _completed(document)

    async def submit(self) -> None:
        await self.client.submit_code_block_execution(
            self.noop_id, {}, ring_id=self.ring_id, timeout_seconds=TIMEOUT_SECONDS
        )


def publish_all(connection: Connection) -> tuple[str, str, str, str]:
    """Publishes what the workloads run; returns the ids of code block, both workflows and ring."""
    with Remote(connection) as remote:
        ring_id = remote.ring_id("dev")
        _, noop = remote.post("/code-blocks", {"slug": "bench-noop", "code": NOOP}, PUBLISH_TIMEOUT_SECONDS)
        _, steps = remote.post("/workflows", {"slug": "bench-steps", "code": WORKFLOW}, PUBLISH_TIMEOUT_SECONDS)
        _, resumed = remote.post("/workflows", {"slug": "bench-resumed", "code": RESUMED}, PUBLISH_TIMEOUT_SECONDS)
    return noop["id"], steps["id"], resumed["id"], ring_id


async def w1(target: Target, count: int) -> dict[str, Any]:
    """Latency: one after the other. The stages are means, so that they add up to the mean latency."""
    for _ in range(WARM):
        await target.noop()
    cpu = _cpu(target)
    latencies: list[float] = []
    stages: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(count):
        began = time.perf_counter()
        handle = await target.client.submit_code_block_execution(
            target.noop_id, {}, ring_id=target.ring_id, timeout_seconds=TIMEOUT_SECONDS
        )
        accepted = time.perf_counter()
        document = _completed(await target.client.await_execution_result(handle["execution_id"]))
        ended = time.perf_counter()
        latencies.append((ended - began) * 1000)
        inside = {name: float(value) for name, value in document["metrics"]["stages"].items()}
        # The submit's answer travels while the execution is on its way already: what remains of the whole when all
        # that was measured inside is taken off is the way in, the last commit and the way out.
        inside["accept"] = max(0.0, (accepted - began) * 1000 - inside.get("commit", 0.0))
        inside["answer"] = max(0.0, latencies[-1] - sum(inside.values()))
        for name, value in inside.items():
            stages[name].append(value)
    mean = statistics.fmean(latencies)
    return {
        "n": count,
        **_spread("latency", latencies),
        "cpu_ms_per_exec": _per(cpu, target, count),
        "latency_mean_ms": round(mean, 3),
        "stages_ms": {name: round(sum(values) / count, 3) for name, values in stages.items()},
        "stages_share": {name: round(sum(values) / count / mean, 3) for name, values in stages.items()},
    }


async def w2(target: Target, count: int) -> dict[str, Any]:
    """Throughput with many in flight; every one must complete."""
    for _ in range(WARM):
        await target.noop()
    cpu = _cpu(target)
    latencies: list[float] = []

    async def one() -> None:
        began = time.perf_counter()
        await target.noop()
        latencies.append((time.perf_counter() - began) * 1000)

    seconds = await _flood(one, count)
    return {
        "n": count,
        "inflight": IN_FLIGHT,
        "completed": len(latencies),
        "exec_per_s": round(count / seconds, 2),
        **_spread("latency", latencies),
        "cpu_ms_per_exec": _per(cpu, target, count),
    }


async def w3(target: Target, count: int) -> dict[str, Any]:
    """Workflows: ten steps in sequence, fifty in parallel."""
    row: dict[str, Any] = {"n": count}
    for name, steps, parallel in (("seq10", 10, False), ("fan50", 50, True)):
        value = {"code_block_id": target.noop_id, "steps": steps, "parallel": parallel}
        durations: list[float] = []
        cpu = 0.0
        for turn in range(count + 1):
            began = time.perf_counter()
            document = await target.client.execute_workflow(target.workflow_id, value, ring_id=target.ring_id)
            if _completed(document)["output"] != steps:
                raise FlowError(f"a workflow of {steps} steps returned {document['output']!r}")
            if turn == 0:  # The first one warms up.
                cpu = _cpu(target) or 0.0
            else:
                durations.append((time.perf_counter() - began) * 1000)
        row |= _spread(name, durations)
        row[f"{name}_ms_per_step"] = round(statistics.median(durations) / steps, 3)
        row[f"{name}_cpu_ms_per_step"] = _per(cpu, target, count * steps)
    return row


async def w4(target: Target, count: int) -> dict[str, Any]:
    """Durable acknowledgements while nothing runs."""
    cpu = _cpu(target)
    seconds = await _flood(target.submit, count)
    return {
        "n": count,
        "inflight": IN_FLIGHT,
        "acks_per_s": round(count / seconds, 2),
        "cpu_ms_per_submit": _per(cpu, target, count),
    }


async def w6(target: Target, count: int) -> dict[str, Any]:
    """A workflow of forty steps in sequence, each in a container of its own."""
    value = {"code_block_id": target.noop_id, "steps": SEQUENCE, "parallel": False}
    durations: list[float] = []
    for turn in range(count + 1):
        began = time.perf_counter()
        document = await target.client.execute_workflow(target.workflow_id, value, ring_id=target.ring_id)
        if _completed(document)["output"] != SEQUENCE:
            raise FlowError(f"a workflow of {SEQUENCE} steps returned {document['output']!r}")
        if turn:  # The first one warms up.
            durations.append((time.perf_counter() - began) * 1000)
    return {"n": count, **_spread("seq40", durations)}


async def w7(target: Target, count: int) -> dict[str, Any]:
    """A workflow whose container dies behind so many finished children: until it makes its next call."""
    value = {"code_block_id": target.noop_id, "children": count}
    document = await target.client.execute_workflow(
        target.resumed_id, value, ring_id=target.ring_id, timeout_seconds=TIMEOUT_SECONDS
    )
    measured = _completed(document)["output"]
    if document["attempt"] != 2:
        raise FlowError(f"the workflow needed {document['attempt']} attempts: expected 2")
    return {
        "n": count,
        "resume_s": round(measured["resume_s"], 3),
        "replayed_call_ms": round(measured["replay_s"] * 1000 / count, 3),
    }


async def _flood(operation: Callable[[], Awaitable[None]], count: int) -> float:
    """Runs the operation that often, `IN_FLIGHT` at a time; returns the seconds."""
    left = iter(range(count))

    async def lane() -> None:
        for _ in left:
            await operation()

    began = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(min(IN_FLIGHT, count))))
    return time.perf_counter() - began


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    if document["status"] != Status.COMPLETED:
        message = (document.get("error") or {"message": ""})["message"]
        raise FlowError(f"execution {document['execution_id']} ended as {document['status']}: {message}")
    return document


def _spread(prefix: str, values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        f"{prefix}_p{percent}_ms": round(ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)], 3)
        for percent in (50, 95, 99)
    }


def _cpu(target: Target) -> float | None:
    return cpu_ms(target.pid) if target.pid else None


def _per(before: float | None, target: Target, count: int) -> float | None:
    """CPU of the platform per unit; the client's own is not in it."""
    return round((cpu_ms(target.pid) - before) / count, 3) if target.pid and before is not None else None

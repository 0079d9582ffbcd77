"""Measures the namespaces sandbox: one JSON line per workload.

    python bench/containers.py [--cache DIR] [--executions N] [pool cold closed leak]

pool     a sealed container waits: acquire to STARTED, at 10 executions per second
cold     no pool: the same
closed   as many after one another as two concurrent callers manage: rate, and CPU per execution of all processes
leak     500 containers, then a count of processes, mounts, network namespaces, cgroups and descriptors
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import time
from pathlib import Path

import uvloop

from flow_platform.sandbox.base import ContainerSpec
from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox
from flow_sdk.wire.harness import Frame
from flow_sdk.wire.runner import Limits

SPEC = ContainerSpec(tenant="bench")
START = json.dumps(
    {
        "mode": "run",
        "kind": "code_block",
        "code": "def main(x):\n    return x\n",
        "entry_point": "main",
        "input": {"input_data": {"x": 1}},
    }
).encode()


async def execute(sandbox: NamespacesSandbox) -> tuple[float, float, float]:
    """Milliseconds until the container is there, until STARTED, and until RESULT."""
    begin = time.perf_counter()
    container = await sandbox.acquire(SPEC)
    acquired = time.perf_counter()
    await container.start(START, Limits())
    started = 0.0
    async for kind, _ in container.frames():
        if kind is Frame.STARTED:
            started = time.perf_counter()
    result = time.perf_counter()
    container.drain_logs()
    await container.end()
    return (acquired - begin) * 1e3, (started - begin) * 1e3, (result - begin) * 1e3


def report(name: str, samples: list[tuple[float, float, float]], **more: object) -> None:
    line: dict[str, object] = {"workload": name, "n": len(samples)}
    for index, stage in enumerate(("acquired_ms", "user_code_ms", "result_ms")):
        values = sorted(sample[index] for sample in samples)
        line[stage] = {
            "p50": round(statistics.median(values), 2),
            "p95": round(values[int(0.95 * (len(values) - 1))], 2),
            "max": round(values[-1], 2),
        }
    print(json.dumps(line | more), flush=True)


async def opened(cache: Path, pool_size: int) -> NamespacesSandbox:
    sandbox = NamespacesSandbox(cache, pool_size=pool_size)
    await sandbox.open()
    await sandbox.warm(SPEC)
    return sandbox


async def paced(cache: Path, name: str, pool_size: int, count: int) -> None:
    sandbox = await opened(cache, pool_size)
    samples: list[tuple[float, float, float]] = []
    for _ in range(count):
        await asyncio.sleep(0.1)
        samples.append(await execute(sandbox))
    limits = sandbox.limits
    await sandbox.close()
    report(name, samples, limits=limits)


def tree_cpu_seconds() -> float:
    """Of this process and all it has reaped."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


async def closed(cache: Path, count: int, callers: int) -> None:
    cpu = tree_cpu_seconds()
    sandbox = await opened(cache, 16)
    await asyncio.sleep(1)
    samples: list[tuple[float, float, float]] = []
    begin = time.perf_counter()

    async def caller() -> None:
        while len(samples) < count:
            samples.append(await execute(sandbox))

    await asyncio.gather(*(caller() for _ in range(callers)))
    seconds = time.perf_counter() - begin
    await sandbox.close()
    # The children's time counts once they are reaped; the template's start is in it, so it is a little too much.
    cpu = tree_cpu_seconds() - cpu
    report(
        "closed", samples, per_second=round(len(samples) / seconds, 1), cpu_ms_each=round(cpu * 1e3 / len(samples), 2)
    )


def counts() -> dict[str, int]:
    namespaces: set[str] = set()
    processes = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            processes += 1
            try:
                namespaces.add(str((entry / "ns/net").readlink()))
            except OSError:
                continue
    return {
        "processes": processes,
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "network_namespaces": len(namespaces),
        "cgroups": sum(1 for _ in Path("/sys/fs/cgroup").rglob(f"flow-{os.getpid()}-*/*/")),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
    }


async def leak(cache: Path) -> None:
    before = counts()
    sandbox = await opened(cache, 8)
    for _ in range(100):
        await asyncio.gather(*(execute(sandbox) for _ in range(5)))
    await sandbox.close()
    print(json.dumps({"workload": "leak", "n": 500, "before": before, "after": counts()}), flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, default=Path("/var/tmp/flow-bench"))  # noqa: S108
    parser.add_argument("--executions", type=int, default=60)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("workloads", nargs="*", default=["pool", "cold", "closed", "leak"])
    chosen = parser.parse_args()
    for workload in chosen.workloads:
        if workload == "pool":
            await paced(chosen.cache, "pool", 8, chosen.executions)
        elif workload == "cold":
            await paced(chosen.cache, "cold", 0, chosen.executions)
        elif workload == "closed":
            await closed(chosen.cache, chosen.executions * 10, chosen.callers)
        else:
            await leak(chosen.cache)


if __name__ == "__main__":
    uvloop.run(main())

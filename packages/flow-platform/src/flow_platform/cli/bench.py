"""`flow bench`: the benchmark on this machine, one JSON line per workload."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from flow_platform.cli import output
from flow_platform.domain.errors import InvalidInput

if TYPE_CHECKING:
    from flow_platform.cli.connection import Connection

WORKLOADS: Final = ("w1", "w2", "w3", "w4", "w5", "w6", "w7")
KEY_FIGURES: Final = {
    "w1": "latency_p50_ms",
    "w2": "exec_per_s",
    "w3": "seq10_p50_ms",
    "w4": "acks_per_s",
    "w5": "start_s",
    "w6": "seq40_p50_ms",
    "w7": "resume_s",
}
IDLE_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 3.0

Rows = dict[str, dict[str, Any]]


def bench(
    only: Annotated[str, typer.Option(help="Workloads, comma-separated.")] = ",".join(WORKLOADS),
    repeat: Annotated[int, typer.Option(min=1, help="Repetitions, each with a fresh platform.")] = 1,
    counts: Annotated[str, typer.Option("--n", help="Counts to change, as w1=20,w2=100.", show_default=False)] = "",
    channel: Annotated[str, typer.Option(help="socket or nats.")] = "socket",
    url: Annotated[str | None, typer.Option("--url", help="Measure this platform instead: not w4, w5.")] = None,
    token: Annotated[str | None, typer.Option("--token", help="Its credential.", show_default=False)] = None,
) -> None:
    """Measures latency (w1), throughput (w2), workflows (w3, w6), submits (w4), footprint (w5), resumption (w7).

    Prints one JSON line per workload on stdout: medians over the repetitions.
    """
    chosen = _chosen(only)
    numbers = _counts(counts)
    if url and set(chosen) & {"w4", "w5"}:
        output.say("w4 and w5 need a platform of their own: left out")
        chosen = [name for name in chosen if name not in {"w4", "w5"}]
    rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for turn in range(repeat):
        output.say(f"repetition {turn + 1} of {repeat}")
        measured = _measure_remote(url, token, chosen, numbers) if url else _measure(chosen, numbers, channel)
        for name, row in measured.items():
            rows[name].append(row)
    for name in sorted(rows):
        head = {"peer": "flow", "mode": channel, "workload": name, "isolation": "fresh isolated container"}
        head |= {"durability": "SQLite, synced" if not url else "as configured", "repeat": repeat}
        key = KEY_FIGURES[name]
        output.emit(json.dumps({**head, **_medians(rows[name]), "each": [row[key] for row in rows[name]]}))


def _chosen(only: str) -> list[str]:
    chosen = [word.strip() for word in only.split(",") if word.strip()]
    if unknown := [word for word in chosen if word not in WORKLOADS]:
        raise InvalidInput(f"--only {unknown[0]!r}: expected some of {', '.join(WORKLOADS)}")
    return chosen


def _counts(text: str) -> dict[str, int]:
    from flow_platform.cli.bench_workloads import COUNTS

    counts = dict(COUNTS)
    for part in filter(None, text.split(",")):
        name, _, number = part.partition("=")
        if name not in counts or not number.isdecimal() or int(number) < 1:
            raise InvalidInput(f"--n {part!r}: expected one of {', '.join(counts)}, '=' and a number above 0")
        counts[name] = int(number)
    return counts


def _measure(chosen: list[str], counts: dict[str, int], channel: str) -> Rows:
    """One repetition over an empty store of its own."""
    from flow_platform.cli.bench_workloads import publish_all
    from flow_platform.cli.connection import Connection
    from flow_platform.cli.embedded import running_platform

    rows: Rows = {}

    def reach(document: dict[str, Any]) -> Connection:
        return Connection(document["base_url"], document["token"], document["org_id"], document["workspace_id"])

    with tempfile.TemporaryDirectory(prefix="flow-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        began = time.perf_counter()
        with running_platform(folder, "--channel", channel) as document:
            start = time.perf_counter() - began
            ids = publish_all(reach(document))
            if "w5" in chosen:
                rows["w5"] = _footprint(reach(document), ids, document["pid"], began, start)
            _run_workloads(reach(document), ids, document["pid"], chosen, counts, rows, without=("w4",))
        if "w4" in chosen:
            with running_platform(folder, "--runners", "0") as document:
                _run_workloads(reach(document), ids, document["pid"], ["w4"], counts, rows)
    return rows


def _measure_remote(url: str, token: str | None, chosen: list[str], counts: dict[str, int]) -> Rows:
    from flow_platform.cli.bench_workloads import publish_all
    from flow_platform.cli.connection import find_connection

    connection = find_connection(url, token)
    rows: Rows = {}
    _run_workloads(connection, publish_all(connection), None, chosen, counts, rows)
    return rows


def _run_workloads(
    connection: Connection,
    ids: tuple[str, str, str, str],
    pid: int | None,
    chosen: list[str],
    counts: dict[str, int],
    rows: Rows,
    without: tuple[str, ...] = (),
) -> None:
    from flow_platform.cli import bench_workloads

    workloads: dict[str, Callable[..., Any]] = {
        "w1": bench_workloads.w1,
        "w2": bench_workloads.w2,
        "w3": bench_workloads.w3,
        "w4": bench_workloads.w4,
        "w6": bench_workloads.w6,
        "w7": bench_workloads.w7,
    }

    async def run_all() -> None:
        async with _client(connection) as client:
            target = bench_workloads.Target(client, *ids, pid)
            for name, workload in workloads.items():
                if name in chosen and name not in without:
                    rows[name] = await workload(target, counts[name])
                    output.say(f"{name}: {json.dumps(rows[name])}")

    asyncio.run(run_all())


def _footprint(
    connection: Connection, ids: tuple[str, str, str, str], pid: int, began: float, start: float
) -> dict[str, Any]:
    """Start to first result, then memory and CPU while nothing is asked of it."""
    from flow_platform.cli.bench_process import cpu_ms, installed_mib, memory_mib
    from flow_platform.cli.bench_workloads import Target

    async def first() -> None:
        async with _client(connection) as client:
            await Target(client, *ids, pid).noop()

    asyncio.run(first())
    first_result = time.perf_counter() - began
    time.sleep(SETTLE_SECONDS)
    before = cpu_ms(pid)
    time.sleep(IDLE_SECONDS)
    busy = cpu_ms(pid) - before
    pss, processes = memory_mib(pid)
    row = {
        "start_s": round(start, 3),
        "first_result_s": round(first_result, 3),
        "pss_mib": round(pss, 1),
        "processes": processes,
        "idle_cpu_percent_of_a_core": round(busy / IDLE_SECONDS / 10, 2),
        "disk_mib": round(installed_mib(), 1),
    }
    output.say(f"w5: {json.dumps(row)}")
    return row


def _client(connection: Connection) -> Any:
    from flow_sdk import PlatformClient

    return PlatformClient(
        connection.base_url, connection.token, org_id=connection.org_id, workspace_id=connection.workspace_id
    )


def _medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over the repetitions; of nested ones too."""
    result: dict[str, Any] = {}
    for name, first in rows[0].items():
        values = [row[name] for row in rows if row.get(name) is not None]
        if isinstance(first, dict):
            result[name] = _medians(values)
        elif isinstance(first, float):
            result[name] = round(statistics.median(values), 3)
        else:
            result[name] = first
    return result

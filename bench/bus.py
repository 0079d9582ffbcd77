"""What the bus costs: one JSON line per figure, milliseconds or per second, on a server that syncs every message.

    python bench/bus.py [--repeat 3] [--only server,messages,objects,gateway]

Server, publisher and consumer share the machine; the gateway's clients run in a process of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from flow_platform.bus.connection import Bus, Message
from flow_platform.bus.gateway import Gateway
from flow_platform.bus.server import NatsServer
from flow_platform.bus.sessions import MessageKind

BODY = b"x" * 300
SINGLE = 500
PIPELINED = 5000
IN_FLIGHT = 256
LIVES = 200
LIVES_IN_PARALLEL = 32
EXECUTION, TOKEN = "0199", "token"


def report(name: str, values: list[float], unit: str, **more: float) -> None:
    line = {"name": name, "median": statistics.median(values), "least": min(values), "most": max(values), "unit": unit}
    print(json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in {**line, **more}.items()}))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def timed(work: Awaitable[Any]) -> float:
    started = time.perf_counter()
    await work
    return (time.perf_counter() - started) * 1000


@contextlib.asynccontextmanager
async def buses() -> AsyncIterator[tuple[Bus, Bus]]:
    with tempfile.TemporaryDirectory() as directory:
        server = NatsServer(Path(directory))
        await server.start()
        engine = await Bus.connect(server.url, name="engine")
        await engine.ensure_streams()
        runner = await Bus.connect(server.runner_url, name="runner")
        yield engine, runner
        await runner.drain_and_close()
        await engine.drain_and_close()
        await server.stop()


async def bench_server(repeat: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        server = NatsServer(Path(directory))
        starts, stops = [], []
        for _ in range(repeat + 1):
            starts.append(await timed(server.start()))
            stops.append(await timed(server.stop()))
    report("server start", starts[1:], "ms", first=starts[0])
    report("server stop", stops, "ms")


async def bench_messages(repeat: int) -> None:
    async with buses() as (engine, runner):
        arrived: asyncio.Queue[Message] = asyncio.Queue()

        async def handler(messages: list[Message]) -> None:
            for message in messages:
                arrived.put_nowait(message)

        async def echo(body: bytes) -> bytes:
            return body

        consuming = asyncio.create_task(engine.consume("EXEC_OUTPUT", "bench", handler))
        await engine.serve("flow.runner.claim", "engines", echo)
        await runner.publish("exec.output.warm", BODY)
        await arrived.get()
        published, consumed, requested = [], [], []
        for number in range(SINGLE * repeat):
            started = time.perf_counter()
            await runner.publish(f"exec.output.{number}", BODY)
            published.append((time.perf_counter() - started) * 1000)
            await arrived.get()
            consumed.append((time.perf_counter() - started) * 1000)
            requested.append(await timed(runner.request("flow.runner.claim", BODY, timeout=5)))
        report("publish, one at a time", published, "ms", p99=percentile(published, 0.99))
        report("publish to consume", consumed, "ms", p99=percentile(consumed, 0.99))
        report("request and reply", requested, "ms", p99=percentile(requested, 0.99))
        rates, arrivals = [], []
        for round_number in range(repeat):
            started = time.perf_counter()
            prefix = f"exec.output.round-{round_number}"
            await in_parallel(PIPELINED, IN_FLIGHT, lambda number, p=prefix: runner.publish(f"{p}-{number}", BODY))
            rates.append(PIPELINED / (time.perf_counter() - started))
            for _ in range(PIPELINED):
                await arrived.get()
            arrivals.append(PIPELINED / (time.perf_counter() - started))
        report(f"publish, {IN_FLIGHT} in flight", rates, "per s")
        report("publish to consume, all", arrivals, "per s")
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)


async def in_parallel(count: int, limit: int, work: Callable[[int], Awaitable[Any]]) -> None:
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    await asyncio.gather(*(worker() for _ in range(limit)))


async def bench_objects(repeat: int) -> None:
    async with buses() as (engine, runner):
        for megabytes in (1, 8, 32):
            body = os.urandom(megabytes << 20)
            puts, gets, deletes = [], [], []
            for number in range(repeat):
                puts.append(await timed(runner.put_object(f"o{number}", body)))
                gets.append(await timed(engine.get_object(f"o{number}")))
                deletes.append(await timed(engine.delete_object(f"o{number}")))
            report(f"object put {megabytes} MiB", puts, "ms")
            report(f"object get {megabytes} MiB", gets, "ms")
            report(f"object delete {megabytes} MiB", deletes, "ms")


class Session:
    """One execution that publishes durably."""

    execution_id = EXECUTION

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def check(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), TOKEN.encode())

    async def input(self) -> bytes:
        return b'{"input_data":{"a":1}}'

    async def publish(self, kind: MessageKind, body: bytes) -> int:
        return await self._bus.publish(f"exec.{kind}.{EXECUTION}", body)


async def bench_gateway(repeat: int) -> None:
    async with buses() as (_, runner):
        gateway = Gateway()
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        listener.setblocking(False)

        async def accept() -> None:
            while True:
                accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
                # A session per connection, as in a runner a container has one: limits are per session.
                gateway.attach(accepted, Session(runner))

        accepting = asyncio.create_task(accept())
        port = listener.getsockname()[1]
        singles: list[float] = []
        rates: list[float] = []
        cpu = time.process_time()
        for _ in range(repeat):
            clients = await asyncio.create_subprocess_exec(
                sys.executable, __file__, "--clients", str(port), stdout=asyncio.subprocess.PIPE
            )
            output, _ = await clients.communicate()
            found = json.loads(output)
            singles += found["singles"]
            rates.append(found["rate"])
        spent = (time.process_time() - cpu) * 1000 / (repeat * (LIVES + LIVES * 5))
        report("gateway, a whole life", singles, "ms", p99=percentile(singles, 0.99))
        report(f"gateway, {LIVES_IN_PARALLEL} lives in parallel", rates, "per s", cpu_ms_per_life=spent)
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        listener.close()
        await gateway.close()


async def client_lives(port: int) -> None:
    import nats

    async def life(_: int = 0) -> None:
        client = await nats.connect(f"nats://x:{TOKEN}@127.0.0.1:{port}", allow_reconnect=False)
        stream = client.jetstream()
        subscription = await stream.subscribe(f"exec.input.{EXECUTION}")
        message = await subscription.next_msg(timeout=10)
        await message.ack()
        await subscription.unsubscribe()
        await stream.publish(f"exec.status.{EXECUTION}", b"{}")
        await stream.publish(f"exec.output.{EXECUTION}", BODY)
        await client.drain()

    singles = [await timed(life()) for _ in range(LIVES)]
    started = time.perf_counter()
    await in_parallel(LIVES * 5, LIVES_IN_PARALLEL, life)
    print(json.dumps({"singles": singles, "rate": LIVES * 5 / (time.perf_counter() - started)}))


PARTS = {"server": bench_server, "messages": bench_messages, "objects": bench_objects, "gateway": bench_gateway}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--clients", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.clients:
        await client_lives(arguments.clients)
        return
    for name in arguments.only.split(","):
        await PARTS[name](arguments.repeat)


if __name__ == "__main__":
    uvloop.run(main())

"""Measures agents on a platform that runs: how soon one asks its model, and how soon a reader has what the model says.

    flow up --ready-file ready.json
    python bench/agent_stream.py ready.json [--runs N]

Publishes an agent on the `test/` provider, whose model pauses before its first word and between all others, so that
each is a chunk of its own, and runs it N times, one after the other. Prints one JSON line, in milliseconds:

start        from the acceptance of the execution to its call of the model at the gateway: queue, container, pydantic-ai
first_chunk  from the model's first chunk at the gateway to the reader's `chunk` event (server-sent events)
gap          what is longer between two chunks at the reader than between two of the model; below zero: it caught up
nats_chunk   as first_chunk, for a subscriber of `exec.events.{id}`

The moments are of two processes on one machine, so run it there. The first two runs warm up and are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats

from flow_sdk import PlatformClient

WORDS = "one two three four five six seven eight"
FIRST_MS, CHUNK_MS = 300.0, 60.0
WARM = 2
SCRIPT = {"turns": [{"text": WORDS, "first_chunk_ms": FIRST_MS, "chunk_ms": CHUNK_MS}]}
AGENT = {
    "slug": "bench-stream",
    "model": "test/script",
    "prompt": "You count.",
    "settings": {"metadata": {"script": SCRIPT}},
}


class Bench:
    def __init__(self, client: PlatformClient, ring_id: str, listener: nats.NATS) -> None:
        self.client = client
        self.ring_id = ring_id
        self.listener = listener
        self.workspace = f"/api/v1/orgs/{client.org_id}/workspaces/{client.workspace_id}"
        self.samples: dict[str, list[float]] = {"start": [], "first_chunk": [], "gap": [], "nats_chunk": []}

    async def publish(self) -> None:
        answer = await self.client.client.post(f"{self.workspace}/agents", json=AGENT, timeout=600)
        answer.raise_for_status()

    async def run(self) -> None:
        """One execution, followed from its acceptance on."""
        heard: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        async with self._listening(heard):
            handle = await self.client.submit_agent_execution(AGENT["slug"], {"prompt": "Count."}, ring_id=self.ring_id)
            execution_id = handle["execution_id"]
            chunks = await self._follow(execution_id)
            published = await asyncio.wait_for(heard, 5)
        call = await self._model_call(execution_id)
        asked = _instant(call["created_at"])
        spoken = asked + call["first_token_ms"] / 1000
        self.samples["start"].append((asked - _instant(handle["created_at"])) * 1000)
        self.samples["first_chunk"].append((chunks[0] - spoken) * 1000)
        self.samples["nats_chunk"].append((published - spoken) * 1000)
        self.samples["gap"] += [(b - a) * 1000 - CHUNK_MS for a, b in itertools.pairwise(chunks)]

    async def _follow(self, execution_id: str) -> list[float]:
        """When each chunk was here."""
        chunks: list[float] = []
        url = f"{self.workspace}/executions/{execution_id}/events"
        async with self.client.client.stream("GET", url, timeout=60) as answer:
            async for line in answer.aiter_lines():
                if line == "event: chunk":
                    chunks.append(_now())  # noqa: PERF401 - the moment of each is what counts.
        if len(chunks) != len(WORDS.split()):
            raise SystemExit(f"execution {execution_id} streamed {len(chunks)} chunks: is the machine too busy?")
        return chunks

    @contextlib.asynccontextmanager
    async def _listening(self, heard: asyncio.Future[float]) -> AsyncIterator[None]:
        async def take(message: Any) -> None:
            if not heard.done() and json.loads(message.data)["event_type"] == "chunk":
                heard.set_result(_now())

        subscription = await self.listener.subscribe("exec.events.*", cb=take)
        await self.listener.flush()
        yield
        await subscription.unsubscribe()

    async def _model_call(self, execution_id: str) -> dict[str, Any]:
        answer = await self.client.client.get(f"{self.workspace}/model-calls?limit=20")
        answer.raise_for_status()
        return next(call for call in answer.json()["items"] if call["execution_id"] == execution_id)

    def report(self) -> dict[str, Any]:
        warm = {"gap": WARM * (len(WORDS.split()) - 1)}
        return {name: _spread(values[warm.get(name, WARM) :]) for name, values in self.samples.items()}


def _now() -> float:
    return datetime.now(UTC).timestamp()  # noqa: TID251 - to be compared with another process's.


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    shares = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    return {name: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) for name, share in shares.items()}


async def measure(ready: dict[str, Any], runs: int) -> dict[str, Any]:
    listener = await nats.connect(ready["nats_url"])
    client = PlatformClient(
        base_url=ready["base_url"],
        auth_token=ready["token"],
        org_id=ready["org_id"],
        workspace_id=ready["workspace_id"],
    )
    async with client:
        bench = Bench(client, ready["rings"]["dev"], listener)
        await bench.publish()
        for _ in range(WARM + runs):
            await bench.run()
    await listener.close()
    return {"n": runs, **bench.report()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ready", type=Path, help="the ready file of `flow up`")
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    ready = json.loads(options.ready.read_text())
    print(json.dumps(asyncio.run(measure(ready, options.runs))))


if __name__ == "__main__":
    main()

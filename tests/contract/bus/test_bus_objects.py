"""Payloads of any size, readable by any client with an object store."""

from __future__ import annotations

import asyncio
import random

import nats
import pytest

from flow_platform.bus.objects import CHUNK_BYTES
from flow_platform.domain.errors import NotFound
from flow_sdk.wire.subjects import PAYLOAD_BUCKET


def payload(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311 - no secret.


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 9 << 20, 32 << 20])
async def test_what_was_put_is_got(bus, runner_bus, size):
    body = payload(size)
    await runner_bus.put_object("out/1", body)
    assert await bus.get_object("out/1") == body


async def test_an_unmodified_client_reads_ours_and_we_read_its(server, bus):
    client = await nats.connect(server.url)
    store = await client.jetstream().object_store(PAYLOAD_BUCKET)
    ours, theirs = payload(1 << 20), payload(700_000)
    await bus.put_object("ours", ours)
    assert (await store.get("ours")).data == ours
    await store.put("theirs", theirs)
    assert await bus.get_object("theirs") == theirs
    await store.delete("theirs")
    with pytest.raises(NotFound, match="theirs"):
        await bus.get_object("theirs")
    await client.close()


async def test_a_replaced_object_leaves_nothing_of_the_old_one(bus):
    await bus.put_object("a", payload(2 << 20))
    await bus.put_object("a", b"new")
    assert await bus.get_object("a") == b"new"
    await bus.delete_object("a")
    await bus.delete_object("a")
    information = await bus.api(f"STREAM.INFO.OBJ_{PAYLOAD_BUCKET}", {})
    assert information["state"]["messages"] == 0
    with pytest.raises(NotFound, match="'a'"):
        await bus.get_object("a")


async def test_objects_expire(bus):
    information = await bus.api(f"STREAM.INFO.OBJ_{PAYLOAD_BUCKET}", {})
    assert 0 < information["config"]["max_age"] <= 86_400 * 10**9


async def test_many_objects_at_once(bus, runner_bus):
    bodies = {f"o{number}": payload(600_000 + number) for number in range(10)}
    await asyncio.gather(*(runner_bus.put_object(name, body) for name, body in bodies.items()))
    assert dict(zip(bodies, await asyncio.gather(*(bus.get_object(name) for name in bodies)), strict=True)) == bodies


async def test_objects_survive_their_deleted_stream(bus, runner_bus):
    await bus.api(f"STREAM.DELETE.OBJ_{PAYLOAD_BUCKET}", {})
    with pytest.raises(NotFound):
        await runner_bus.get_object("a")
    await runner_bus.put_object("a", payload(1 << 20))
    assert await bus.get_object("a") == payload(1 << 20)

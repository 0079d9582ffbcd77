"""A process for crash tests: writes without end, and says each id only after its write was acknowledged."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from flow_platform.store import open_store
from flow_platform.store.base import NewEvent, Payload, Transaction
from tests.support.store_records import NOW, execution

PARALLEL = 8


async def main(url: str) -> None:
    store = open_store(url)
    await store.open()
    numbers = itertools.count()

    async def write_for_ever() -> None:
        while True:
            one = execution(id=f"execution-{next(numbers):08}")

            def operation(tx: Transaction) -> None:
                tx.executions.insert(one, Payload({"id": one.id}))  # noqa: B023 - awaited before the next.
                tx.executions.append_events(
                    [NewEvent(one.id, 1, "log", None, NOW, f"key-{n}") for n in range(3)]  # noqa: B023
                )

            await store.write(operation)
            sys.stdout.write(f"{one.id}\n")
            sys.stdout.flush()

    await asyncio.gather(*(write_for_ever() for _ in range(PARALLEL)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

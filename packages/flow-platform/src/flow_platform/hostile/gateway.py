"""Two executions side by side, one of which wants to read, write, spoof, exhaust or watch the other: over NATS."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any, Final
from urllib.parse import urlsplit

from flow_platform.hostile.answer import Answer, expect
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.world import World

_RUNNER: Final = "local-1"
_VICTIM: Final = """
import os
from flow_sdk import PlatformClient
async def main(secret: str, rounds: int) -> dict:
    execution, deployment = os.environ["EXECUTION_ID"], os.environ["DEPLOYMENT_ID"]
    seen = []
    for number in range(rounds):
        async with PlatformClient() as client:
            fetched = await client.fetch_execution_input(deployment, execution)
            seen.append(fetched["input_data"]["secret"] == secret)
            await client.push_execution_event(deployment, execution, "mine", {"number": number, "secret": secret})
            await client.get_execution_status(execution)
    return {"rounds": sum(seen), "secret": secret}
"""
_ROUNDS: Final = 20
_CONNECT_SECONDS: Final = 20.0
_ERRORS: Final = ("-ERR", "Permissions Violation", "permissions violation", "err_code", "Authorization")


async def _side_by_side(world: World) -> list[Answer]:
    """The victim fetches and publishes the whole time; what it did and what is kept of it must be its own."""
    first = world.first
    await first.publish("victim", _VICTIM)
    secret = secrets.token_hex(16)
    victim = await first.submit("victim", {"secret": secret, "rounds": _ROUNDS})
    said, document = await asyncio.gather(
        first.run_inside("messages", {"victim": victim, "runner": _RUNNER, "flood": True}), first.ended(victim)
    )
    answers = [_judged(name, text, secret) for name, text in said.items() if name != "flood"]
    output: dict[str, Any] = document["output"] or {}
    events = await first.events(victim)
    forged = [word for word in ("forged", "stolen") if word in events or word in str(document)]
    rounds = f"{output.get('rounds')} of {_ROUNDS} rounds"
    return [
        *answers,
        expect(32, "spoof the victim's result or events", str(forged or "none"), refused=not forged),
        expect(32, "keep the victim from its work", rounds, refused=output == {"rounds": _ROUNDS, "secret": secret}),
        expect(
            *(32, "have events of the victim dropped", f"{events.count(secret)} kept"),
            refused=events.count(secret) >= _ROUNDS,
        ),
    ]


def _judged(name: str, text: str, secret: str) -> Answer:
    """Nothing of the victim is heard, and whatever was asked for was refused in words."""
    first = next((line for line in text.splitlines() if any(word in line for word in _ERRORS)), "")
    heard = secret in text or "MSG exec." in text
    how = first.partition("{")[0].strip()[:60] or ("refused" if first else "OK not refused")
    if name.startswith("subscribe _INBOX"):  # One's own, as far as anybody has one.
        return expect(32, name, "OK heard" if heard else "nothing heard", refused=not heard)
    return expect(32, name, "OK heard" if heard else how, refused=not heard and bool(first))


async def _the_real_server(world: World) -> list[Answer]:
    """The platform's NATS without a credential, from the host: loopback is no credential."""
    address = urlsplit(str(world.document["nats_url"]))
    found: list[Answer] = []
    for name, options in {
        "nobody": "{}",
        "a default user": '{"user":"nats","pass":"nats"}',
        "an empty token": '{"auth_token":""}',
        "a user of a runner without a password": '{"user":"runner"}',
    }.items():
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(f"CONNECT {options}\r\nPING\r\n".encode())
        heard = b""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_CONNECT_SECONDS):
                while b"PONG" not in heard and b"-ERR" not in heard:
                    part = await reader.read(4096)
                    if not part:
                        break
                    heard += part
        writer.close()
        how = "Authorization Violation" if b"-ERR" in heard else "OK let in" if b"PONG" in heard else "closed"
        found.append(expect(48, f"NATS as {name}", how, refused=b"PONG" not in heard))
    return found


ATTEMPTS: Final = (
    Attempt("messages of a neighbour", (32,), _side_by_side),
    Attempt("the NATS server itself", (48,), _the_real_server),
)

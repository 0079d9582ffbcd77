"""The way out of one attempt: a broker for what its component declared, and an event `network` for each connection."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flow_platform.domain.destination import Destination, parse_destination
from flow_platform.egress.broker import Broker
from flow_platform.egress.injection import Injection, trusted
from flow_platform.egress.policy import DeclaredPolicy, OperatorRules
from flow_platform.egress.resolver import Resolver
from flow_platform.egress.traffic import Limits, Record
from flow_platform.runner.publisher import Publisher
from flow_platform.sandbox.base import PROXY_PORT, Whereabouts
from flow_sdk.wire.harness import NETWORK_EVENT
from flow_sdk.wire.injected import PLACE
from flow_sdk.wire.runner import Assignment

logger = logging.getLogger(__name__)

MAX_NETWORK_EVENTS: Final = 1_000  # Per attempt; the log of the runner has all.
EVENTS_AT_ONCE: Final = 32
_AUTHORITIES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")


def proxies(where: Whereabouts) -> dict[str, str]:
    """Variables of a component with a way out, in both spellings: curl reads `http_proxy` in lower case only."""
    proxy = f"http://127.0.0.1:{where.ports[PROXY_PORT]}"
    # Not socks5h:// for all: httpx refuses to start with it where its SOCKS package is not installed.
    names = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": proxy, "NO_PROXY": "127.0.0.1,localhost"}
    return {**names, **{name.lower(): value for name, value in names.items()}}


def defaults(where: Whereabouts) -> dict[str, str]:
    """Variables that a ring may change: for OpenSSL (urllib, httpx), requests, curl and pip."""
    return dict.fromkeys(_AUTHORITIES, where.certificates) if where.certificates else {}


@dataclass(frozen=True)
class Egress:
    """What all attempts of a runner share of the way out."""

    resolver: Resolver
    rules: OperatorRules = field(default_factory=OperatorRules)
    limits: Limits = field(default_factory=Limits)
    tls: Callable[[], ssl.SSLContext] = trusted
    """Decides which hosts are who they say, where the broker itself speaks TLS."""


class WayOut:
    """Open from its making until `close`; `finish` publishes what is left to say.

    Args:
        listener: Inside the container; it stays the container's.
        injections: Credentials that are added to its http:// requests.
    """

    def __init__(
        self,
        assignment: Assignment,
        listener: socket.socket,
        egress: Egress,
        publisher: Publisher,
        injections: Sequence[Injection] = (),
    ) -> None:
        self._assignment = assignment
        self._publisher = publisher
        self._pending: list[dict[str, Any]] = []
        self._events = 0
        self._dropped = 0
        self._publishing: asyncio.Task[None] | None = None
        policy = DeclaredPolicy(_declared(assignment), egress.rules)
        self._broker = Broker(policy, egress.resolver, egress.limits, self._ended, injections, egress.tls)
        self._broker.listen(listener)

    def close(self) -> None:
        """Ends all connections at once."""
        self._broker.close()

    async def finish(self) -> None:
        """Closes, and returns when the last event is published."""
        self._broker.close()
        await self._broker.wait_closed()
        if self._dropped:
            self._pending.append({"verdict": "dropped", "connections": self._dropped})
        if self._publishing is not None:
            await self._publishing
        await self._publish()

    def _ended(self, record: Record) -> None:
        fields = {
            "host": record.host,
            "port": record.port,
            "address": record.address,
            "bytes_out": record.bytes_out,
            "bytes_in": record.bytes_in,
            "duration_ms": record.duration_ms,
            "verdict": record.verdict,
            "reason": record.reason,
        }
        level = logging.INFO if record.verdict == "allowed" else logging.WARNING
        logger.log(level, "a container's connection ended", extra={**self._identity(), **fields})
        if self._events >= MAX_NETWORK_EVENTS:
            self._dropped += 1
            return
        self._events += 1
        self._pending.append(fields)
        if self._publishing is None or self._publishing.done():
            self._publishing = asyncio.create_task(self._publish(), name="publish-network")

    async def _publish(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:EVENTS_AT_ONCE], self._pending[EVENTS_AT_ONCE:]
            await self._publisher.events(NETWORK_EVENT, batch)

    def _identity(self) -> dict[str, object]:
        assignment = self._assignment
        return {
            "execution_id": assignment.execution_id,
            "attempt": assignment.attempt,
            "lease_epoch": assignment.lease_epoch,
        }


def injections_of(assignment: Assignment, values: Mapping[str, str]) -> list[Injection]:
    """What the way out adds, from the values of the secrets that the component has injected."""
    return [
        Injection(parse_destination(one.host), one.header, one.format.replace(PLACE, values[one.name]), one.tls)
        for one in assignment.injected
    ]


def _declared(assignment: Assignment) -> tuple[Destination, ...]:
    found: list[Destination] = []
    for text in assignment.network:
        try:
            found.append(parse_destination(text))
        except ValueError as error:  # Published under other rules.
            logger.warning(
                "a declared destination is left out: %s", error, extra={"execution_id": assignment.execution_id}
            )
    return tuple(found)

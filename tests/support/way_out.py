"""A component with a way out: in a real container, a broker on its listener, names as the test says."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flow_platform.domain.address import Address
from flow_platform.domain.destination import parse_destination
from flow_platform.domain.operator_rules import parse_allow, parse_deny
from flow_platform.egress.broker import Broker
from flow_platform.egress.injection import Injection, trusted
from flow_platform.egress.policy import DeclaredPolicy, OperatorRules
from flow_platform.egress.traffic import Limits, Record
from flow_platform.runner.network import defaults, proxies
from flow_platform.sandbox.base import INSIDE, PROXY_PORT, Container, ContainerSpec, Sandbox
from tests.support.component_runs import run_component

SPEC = ContainerSpec("tests", proxy=True)
LIMITS = Limits()


@dataclass
class Names:
    """A resolver that knows what the test told it. Each question takes the next answer; the last one stays.

    Attributes:
        asked: In order.
    """

    answers: Mapping[str, Sequence[Sequence[str]]]
    asked: list[str] = field(default_factory=list)

    async def resolve(self, host: str) -> list[Address]:
        self.asked.append(host)
        if host not in self.answers:
            raise OSError(f"no such name: {host}")
        answers = self.answers[host]
        answer = answers[min(self.asked.count(host), len(answers)) - 1]
        return [ipaddress.ip_address(text) for text in answer]


def names(**fixed: str) -> Names:
    """`api=...` stands for api.example.com."""
    return Names({f"{name}.example.com": [addresses.split()] for name, addresses in fixed.items()})


@dataclass
class WayOutRun:
    output: Any
    records: list[Record]

    @property
    def verdicts(self) -> list[str]:
        return [record.verdict for record in self.records]


async def run_with_way_out(
    sandbox: Sandbox,
    code: str,
    input_data: Any,
    network: Sequence[str],
    *,
    resolver: Names,
    allow: str = "127.0.0.1",
    deny: str = "",
    limits: Limits = LIMITS,
    injections: Sequence[Injection] = (),
    tls: Callable[[], ssl.SSLContext] = trusted,
) -> WayOutRun:
    """Runs the component as a runner would, and gathers what its broker recorded."""
    records: list[Record] = []
    brokers: list[Broker] = []
    policy = DeclaredPolicy(
        tuple(parse_destination(text) for text in network), OperatorRules(parse_allow(allow), *parse_deny(deny))
    )

    def serve(container: Container) -> None:
        brokers.append(Broker(policy, resolver, limits, records.append, injections, tls))
        brokers[0].listen(container.listeners[PROXY_PORT])

    env = {**defaults(INSIDE), **proxies(INSIDE)}
    run = await run_component(sandbox, code, input_data, spec=SPEC, on_container=serve, env=env)
    brokers[0].close()
    await brokers[0].wait_closed()
    return WayOutRun(run.output, records)

"""Tries to reach anything: the host, the metadata services of clouds, the platform's own parts, the Internet."""

from __future__ import annotations

import socket
from typing import Any

from flow_platform.hostile.inside.trying import Answers, attempt

METADATA = (
    *("169.254.169.254", "2852039166", "0xA9FEA9FE", "0251.0376.0251.0376", "169.254.43518", "169.254.170.2"),
    *("100.100.100.200", "168.63.129.16", "192.0.0.192"),
)
METADATA_6 = ("fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fe80::a9fe:a9fe%lo")
INSIDE = ("10.0.0.1", "172.17.0.1", "192.168.0.1", "100.64.0.1", "192.0.2.1")
ENGINE_PORTS = {"docker": 2375, "kubelet": 10250, "kubernetes": 6443, "etcd": 2379, "PostgreSQL": 5432, "NATS": 4221}
NAMES = ("metadata.google.internal", "kubernetes.default.svc", "example.com", "localhost.localdomain")
SECONDS = 1.0


def main(host_ports: dict[str, int], abstract_name: str) -> Answers:
    metadata = {f"metadata {address}": connect(socket.AF_INET, (address, 80)) for address in METADATA}
    metadata |= {f"metadata {address}": connect(socket.AF_INET6, (address, 80)) for address in METADATA_6}
    metadata |= {f"network {address}": connect(socket.AF_INET, (address, 80)) for address in INSIDE}
    own = {f"{name} on 127.0.0.1": connect(socket.AF_INET, ("127.0.0.1", port)) for name, port in host_ports.items()}
    own |= {f"{name} on 127.9.9.9": connect(socket.AF_INET, ("127.9.9.9", port)) for name, port in host_ports.items()}
    own |= {f"{name} on ::1": connect(socket.AF_INET6, ("::1", port)) for name, port in host_ports.items()}
    engines = {name: connect(socket.AF_INET, ("127.0.0.1", port)) for name, port in ENGINE_PORTS.items()}
    own["abstract socket of the host"] = connect(socket.AF_UNIX, "\0" + abstract_name)
    return {
        "2": {name: engines[name] for name in ("docker", "kubelet", "kubernetes")},
        "24": metadata,
        "25": {**own, **{f"{name} on its port": engines[name] for name in ("etcd", "PostgreSQL", "NATS")}},
        "26": names(),
        "27": other_protocols(),
    }


def connect(family: int, address: Any) -> str:
    def try_it() -> str:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(SECONDS)
            connection.connect(address)
            return "connected"

    return attempt(try_it)


def names() -> dict[str, str]:
    answers = {name: attempt(socket.getaddrinfo, name, 80) for name in NAMES}
    for server in ("8.8.8.8", "10.0.0.2", "169.254.169.253"):
        answers[f"ask {server}"] = send(socket.AF_INET, (server, 53))
    answers["by HTTPS"] = connect(socket.AF_INET, ("1.1.1.1", 443))
    answers["by multicast"] = send(socket.AF_INET, ("224.0.0.251", 5353))
    return answers


def other_protocols() -> dict[str, str]:
    return {
        "UDP": send(socket.AF_INET, ("192.0.2.1", 443)),
        "UDP 6": send(socket.AF_INET6, ("2600::1", 443)),
        "TCP 6": connect(socket.AF_INET6, ("2600::1", 443)),
        "broadcast": send(socket.AF_INET, ("255.255.255.255", 9)),
        "multicast 6": send(socket.AF_INET6, ("ff02::1", 9)),
        "SCTP": attempt(socket.socket, socket.AF_INET, socket.SOCK_STREAM, 132),
        "ICMP": attempt(socket.socket, socket.AF_INET, socket.SOCK_DGRAM, 1),
    }


def send(family: int, address: tuple[str, int]) -> str:
    """A datagram answers nothing, so one to our own loopback would be no success; these are all elsewhere."""
    with socket.socket(family, socket.SOCK_DGRAM) as query:
        return attempt(query.sendto, b"x", address)

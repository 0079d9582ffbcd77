"""Draws from every source of randomness, and says what tells this container from others."""

from __future__ import annotations

import os
import random
import secrets
import ssl
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import cast


def user_of_the_machine() -> int:
    """What the kernel counts our processes and files under, out there."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, outside, count = map(int, line.split())
        if inside <= os.getuid() < inside + count:
            return outside + os.getuid() - inside
    return -1


def main() -> dict[str, str]:
    link = os.readlink  # The numbers of namespaces.
    names = cast("Iterator[str]", tempfile._get_candidate_names())  # type: ignore[attr-defined]  # noqa: SLF001
    return {
        "random": str(random.random()),  # noqa: S311, TID251
        "os.urandom": os.urandom(8).hex(),
        "OpenSSL": ssl.RAND_bytes(8).hex(),
        "uuid4": str(uuid.uuid4()),
        "secrets": secrets.token_hex(8),
        "name of a temporary file": next(names),
        "user": str(user_of_the_machine()),
        "cgroup": Path("/proc/self/cgroup").read_text(),
        "network namespace": link("/proc/self/ns/net"),
        "process namespace": link("/proc/self/ns/pid"),
        "mount namespace": link("/proc/self/ns/mnt"),
        "ipc namespace": link("/proc/self/ns/ipc"),
        "hash seed": str(hash("flow")),
        "address of the C library": next(
            line.split("-")[0] for line in Path("/proc/self/maps").read_text().splitlines() if "libc" in line
        ),
    }

"""What a container may do because its kernel is its own: see `sandbox/gvisor`.

The same answer in a container that shares the host's kernel is a leak. Here it is about something that ends with the
container and that nobody else has: each entry says what. Nothing is in this list because it cannot be held.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from flow_platform.hostile.answer import Answer, Verdict

HARMLESS: Final = {
    **{f"times of /dev/{name}": "a device of its own kernel" for name in ("null", "zero", "urandom")},
    **{
        f"{name} namespace": "numbers of its own kernel: each counts from one"
        for name in ("network", "process", "mount", "ipc")
    },
    "user id of a neighbour": "the only user of its own kernel",
    "cgroup": "groups of its own kernel",
    **dict.fromkeys(("nice -5", "priority -20"), "a number that its own kernel keeps"),
    "many empty files": "in its own kernel's memory, which its limit on memory counts",
}


def judge(found: Iterable[Answer]) -> list[Answer]:
    """The answers of a container with a kernel of its own."""
    return [
        dataclasses.replace(one, verdict=Verdict.REFUSED, how=HARMLESS[one.attempt])
        if one.verdict is Verdict.LEAKED and one.attempt in HARMLESS
        else one
        for one in found
    ]

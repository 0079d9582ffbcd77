"""The engine's seccomp profile, made from the same table as the filter of our own containers.

The engine's library compares arguments as 64 bits, of which the kernel reads 32 for most: every comparison here is
masked, so that nothing slips through with the upper half set.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from typing import Any, Final

from flow_platform.sandbox.namespaces import seccomp
from flow_platform.sandbox.namespaces.syscall_numbers import MACHINE, NUMBERS

_ARCHITECTURES: Final = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_WORD: Final = 0xFFFFFFFF
_BITS: Final = 32
_KIND: Final = 0xF
_LIMITS: Final = 16  # RLIM_NLIMITS
_WITH_ARGUMENTS: Final = frozenset(
    {"clone", "clone3", "socket", "socketpair", "ioctl", "fcntl", "prlimit64", "setrlimit"}
)
_FAMILIES: Final = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
_KINDS: Final = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)
Rule = dict[str, Any]


def profile() -> dict[str, Any]:
    """As Docker's and Podman's `--security-opt seccomp=` take it."""
    plain = sorted((seccomp.ALLOWED - _WITH_ARGUMENTS) & NUMBERS.keys())
    rules: list[Rule] = [
        _allow(plain),
        _allow(["clone"], _masked(0, seccomp.NEW_NAMESPACE_FLAGS, 0)),
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
    ]
    for family in _FAMILIES:
        for kind in _KINDS:
            same = (_masked(0, _WORD, family), _masked(1, _KIND, kind))
            rules.append(_allow(["socket", "socketpair"], *same))
    rules += [_allow(["ioctl"], _masked(1, *bits)) for bits in other_than(seccomp.TERMINAL_INJECTION)]
    rules += [_allow(["fcntl"], _masked(1, *bits)) for bits in other_than(seccomp.WATCHES)]
    for limit in set(range(_LIMITS)) - {seccomp.CORE}:
        rules += [_allow(["setrlimit"], _masked(0, _WORD, limit)), _allow(["prlimit64"], _masked(1, _WORD, limit))]
    rules.append(_allow(["prlimit64"], {"index": 2, "value": 0, "op": "SCMP_CMP_EQ"}))  # It only reads.
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": [_ARCHITECTURES[MACHINE]],
        "syscalls": rules,
    }


def other_than(values: Iterable[int]) -> list[tuple[int, int]]:
    """Masks and values, of which every 32-bit number but the given ones fits at least one."""
    return _split(tuple(values), 0, 0, _BITS - 1)


def _split(values: tuple[int, ...], mask: int, prefix: int, bit: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for position in range(bit, -1, -1):
        one = 1 << position
        ones = tuple(value for value in values if value & one)
        zeros = tuple(value for value in values if not value & one)
        if ones and zeros:
            for some, digit in ((ones, one), (zeros, 0)):
                found += _split(some, mask | one, prefix | digit, position - 1)
            return found
        found.append((mask | one, prefix | (0 if ones else one)))
    return found


def _allow(names: Iterable[str], *arguments: dict[str, Any]) -> Rule:
    present = [name for name in names if name in NUMBERS]
    return {"names": present, "action": "SCMP_ACT_ALLOW", "args": list(arguments)}


def _masked(index: int, mask: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}

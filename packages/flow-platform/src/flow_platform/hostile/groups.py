"""The 48 groups of attempts. What cannot be tried on a machine alone names the tests that hold it."""

from __future__ import annotations

from typing import Final

SECTIONS: Final = {1: "escape and host", 10: "resources", 24: "network", 30: "identity", 38: "supply chain and agents"}
"""First group of each section."""

GROUPS: Final[dict[int, str]] = {
    1: "read the host: files, processes, memory, environment, core dumps",
    2: "reach a container engine",
    3: "become root: capabilities, setuid, namespaces, mounts",
    4: "kernel interfaces: tracing, bpf, keys, modules, odd sockets",
    5: "kernel switches, cgroups, device nodes, memory of a neighbour",
    6: "leave by an open descriptor or a link",
    7: "change the runtime that later runs load",
    8: "leave something for the next run, find what the last one left",
    9: "the same random numbers in two clones",
    10: "fork and thread bombs",
    11: "memory balloons",
    12: "fill the disk, in bytes and in files",
    13: "open all descriptors, sockets and ports",
    14: "take the processors: spin, priorities, real time",
    15: "floods of logs, endless lines, codes for the terminal",
    16: "floods of events, results that break their reader",
    17: "archives that unpack without end",
    18: "do not die: signals, daemons, blocking calls",
    19: "sleep for ever, also at exit",
    20: "submit oneself, again and again",
    21: "fan out without end",
    22: "two components that call each other",
    23: "run at somebody else's cost",
    24: "metadata services and closed addresses, in every notation",
    25: "the platform's own parts and the host's services",
    26: "names: tunnels, own resolvers, rebinding",
    27: "redirects, names of TLS servers, other protocols",
    28: "an allowed host as a way to another",
    29: "listen, and be reached by another run",
    30: "every route with another organization's ids",
    31: "forged, replayed, ended and other executions' tokens",
    32: "messages of others: read, publish, consume, delete",
    33: "executions of others: ids, logs, what they do",
    34: "rights that were taken away while in use",
    35: "injection by names, paths, headers and logs",
    36: "requests of the platform to closed addresses",
    37: "secrets: print, encode, split, return, name another's",
    38: "packages that run code, or shadow the platform's",
    39: "another lock, or other bytes, than were built",
    40: "expressions and templates as code",
    41: "results that run when they are read",
    42: "tool output that asks for other tools or rights",
    43: "tool servers that change, or send hostile schemas",
    44: "agents that never end, or forge what they used",
    45: "approvals: guessed, replayed, forwarded",
    46: "pages and streams of the platform in a browser",
    47: "slow, huge and countless requests",
    48: "start with a default key or an open address",
}

ELSEWHERE: Final[dict[int, str]] = {
    23: "tests/contract/api/test_api_executions.py: what an execution starts is its child",
    39: "tests/contract/test_build.py: a changed lock and other bytes are refused",
    42: "tests/contract/engine, tools of an agent are frozen when it is published",
    43: "no tool servers yet",
    44: "tests/contract/api/models: limits and metering are the gateway's",
}
"""Groups without an attempt here: where they are held, or that there is nothing to attack yet."""


def section_of(group: int) -> str:
    return SECTIONS[max(first for first in SECTIONS if first <= group)]

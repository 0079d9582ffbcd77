"""Searches all memory that this process can read for secrets of the server, of a neighbour, of an earlier execution."""

from __future__ import annotations

from flow_platform.hostile.inside.trying import Answers

ENOUGH_BYTES = 10_000_000


def main(needles: dict[str, str]) -> Answers:
    """The needles come with every byte changed, so that the input itself is not a hit; a real one ends with "!"."""
    wanted = {name: bytes(byte ^ 1 for byte in bytes.fromhex(needle)) for name, needle in needles.items()}
    answers = dict.fromkeys(wanted, "not found")
    scanned = 0
    for content in mappings():
        scanned += len(content)
        for name, needle in wanted.items():
            position = content.find(needle)
            while position >= 0:
                if content[position + len(needle) : position + len(needle) + 1] == b"!":
                    answers[name] = "OK"
                position = content.find(needle, position + 1)
    answers["all memory was searched"] = "yes" if scanned > ENOUGH_BYTES else f"OK only {scanned} bytes"
    return {"1": answers}


def mappings() -> list[bytes]:
    found: list[bytes] = []
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as memory:  # noqa: PTH123
        for line in maps:
            fields = line.split()
            start, end = (int(part, 16) for part in fields[0].split("-"))
            if "r" not in fields[1] or (len(fields) > 5 and fields[5].startswith("[v")):
                continue
            try:
                memory.seek(start)
                found.append(memory.read(end - start))
            except (OSError, ValueError, OverflowError):
                continue
    return found

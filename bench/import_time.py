"""How long the SDK takes to import, beyond its HTTP library. Prints one JSON line; run it with the project's Python.

Each figure is the median over fresh processes: wall and CPU milliseconds of the import statement alone. httpx, where it
comes along, is imported before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

IMPORTS = {
    "flow_sdk_alone": ("", "import flow_sdk"),
    "flow_sdk_beyond_httpx": ("import httpx, asyncio", "import flow_sdk"),
    "client_beyond_httpx": ("import httpx, asyncio", "from flow_sdk import PlatformClient"),
    "httpx_itself": ("", "import httpx, asyncio"),
}

PROGRAM = """
import sys, time
{before}
wall, cpu = time.perf_counter(), time.process_time()
{statement}
print((time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000, len(sys.modules))
"""


def measure(before: str, statement: str, runs: int) -> dict[str, float]:
    program = PROGRAM.format(before=before, statement=statement)
    samples: list[list[float]] = []
    for _ in range(runs + 1):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        samples.append([float(word) for word in done.stdout.split()])
    wall, cpu, modules = (statistics.median(column) for column in zip(*samples[1:], strict=True))  # The first warms up.
    return {"wall_ms": round(wall, 1), "cpu_ms": round(cpu, 1), "modules": modules}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    print(json.dumps({name: measure(*statements, runs) for name, statements in IMPORTS.items()}))


if __name__ == "__main__":
    main()

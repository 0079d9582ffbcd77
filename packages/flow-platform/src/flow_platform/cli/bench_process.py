"""CPU and memory of a whole process tree, and the size of what is installed: what the benchmark counts."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
from collections import defaultdict
from pathlib import Path

_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """A process and all its descendants."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            children[int(fields[1])].append(int(entry.name))
    found: list[int] = []
    pending = [root]
    while pending:
        process = pending.pop()
        found.append(process)
        pending += children[process]
    return found


def cpu_ms(root: int) -> float:
    """CPU time of the tree so far; what ended and was waited for counts through its parent."""
    total = 0
    for process in tree(root):
        if fields := _stat(process):
            total += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime. Source: proc(5).
    return total * _TICK_MS


def memory_mib(root: int) -> tuple[float, int]:
    """Proportional memory of the tree (shared pages are divided among those who share), and its processes."""
    total, count = 0, 0
    for process in tree(root):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
            if found := re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE):
                total += int(found[1])
                count += 1
    return total / 1024, count


def installed_mib(name: str = "flow-platform") -> float:
    """Size of a distribution with everything that it requires, bytecode included."""
    pending, seen, files = [name], set[str](), set[Path]()
    while pending:
        wanted = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        if wanted in seen:
            continue
        seen.add(wanted)
        try:
            distribution = importlib.metadata.distribution(wanted)
        except importlib.metadata.PackageNotFoundError:
            continue  # Required elsewhere only: another system, another Python.
        for file in distribution.files or ():
            files.add(Path(str(distribution.locate_file(file))).resolve())
        own = (requirement for requirement in distribution.requires or () if "extra ==" not in requirement)
        pending += [found[0] for requirement in own if (found := re.match(r"[A-Za-z0-9._-]+", requirement))]
    for package in ("flow_platform", "flow_sdk"):  # Installed as links to a checkout, they list no files.
        folder = Path(__file__).parents[2] / package
        folder = folder if folder.exists() else Path(__file__).parents[4] / "flow-sdk" / "src" / package
        files |= {path.resolve() for path in folder.rglob("*") if path.is_file()}
    return sum(path.stat().st_blocks * 512 for path in files if path.is_file()) / (1 << 20)


def _stat(process: int) -> list[str]:
    """The fields of /proc/PID/stat behind the command's name."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []

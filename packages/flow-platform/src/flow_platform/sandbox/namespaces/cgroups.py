"""Limits and counters by cgroups: version 2 where it is delegated to us, else version 1, else none.

Every container has a group of its own, made while it waits in the pool. Joining one waits for an RCU grace period of
the kernel (12 ms when done rarely), so that happens in a thread, never on the event loop and before work comes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from flow_platform.sandbox.base import Usage
from flow_sdk.wire.runner import Limits

_PERIOD_MICROSECONDS: Final = 100_000  # The kernel's own default, in both versions.
_V1_CONTROLLERS: Final = ("memory", "pids", "cpu", "cpuacct")
_MAIN: Final = "flow-main"  # Where our own processes move, as version 2 allows none beside groups with controllers.
_REMOVE_TRIES: Final = 400
_REMOVE_PAUSE_SECONDS: Final = 0.005


class Group(Protocol):
    """The group of one container."""

    def attach(self, process: int) -> None:
        """Moves the process in. Slow: run it in a thread."""
        ...

    def limit(self, limits: Limits) -> None: ...

    def usage(self) -> Usage: ...

    def oom_kills(self) -> int:
        """That counter of `usage` alone, for a quarter of the price."""
        ...

    def memory_bytes(self) -> int:
        """What it holds now, without the files of others that it has read."""
        ...

    def forget_peak(self) -> None:
        """Has `max_rss_bytes` count from now on, where the kernel can."""
        ...

    def remove(self) -> None:
        """Once no process is left; waits a little for the kernel to notice. Run it in a thread."""
        ...


class Groups(Protocol):
    """Attributes:
    kind: `v2`, `v1` or `none`.
    """

    kind: str

    def create(self, name: str) -> Group: ...

    def close(self) -> None: ...


def open_groups() -> Groups:
    """The strongest that works here, tried for real. Removes what dead processes left."""
    mounts = _mounts()
    for maker in (_open_v2, _open_v1):
        with contextlib.suppress(OSError, KeyError, LookupError):
            return maker(mounts)
    return _NoGroups()


def group_of(process: int) -> Group | None:
    """The group that somebody else made for a process; None where this process cannot see, or not change it."""
    try:
        mounts, own = _mounts(), _own_groups(process)
        if "memory" in own:
            paths = {name: f"{mounts[name].path}{own[name]}" for name in _V1_CONTROLLERS}
            needed = {"memory": "limit_in_bytes", "pids": "max", "cpu": "cfs_quota_us", "cpuacct": "usage"}
            files = [f"{paths[name]}/{name}.{file}" for name, file in needed.items()]
            group: Group = _GroupV1(paths)
        else:
            path = f"{mounts['unified'].path}{own['unified']}"
            files = [f"{path}/memory.max", f"{path}/pids.max", f"{path}/cpu.max"]
            group = _GroupV2(path)
    except (OSError, KeyError):
        return None
    return group if all(os.access(file, os.R_OK | os.W_OK) for file in files) else None


@dataclass
class _Mount:
    path: Path
    root: str


def _mounts() -> dict[str, _Mount]:
    """Controller (`unified` for version 2) -> where it is mounted."""
    mounts: dict[str, _Mount] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        fields = left.split()
        mount = _Mount(path=Path(fields[4]), root=fields[3])
        if kind == "cgroup2":
            mounts.setdefault("unified", mount)
        elif kind == "cgroup":
            for name in options.split(","):
                if name in _V1_CONTROLLERS:
                    mounts.setdefault(name, mount)
    return mounts


def _own_groups(process: int | str = "self") -> dict[str, str]:
    own: dict[str, str] = {}
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(",") if controllers else ["unified"]:
            own[name] = path
    return own


def _folder_name() -> str:
    return f"flow-{os.getpid()}-{_started(os.getpid())}"


def _started(process: int) -> str:
    """When the process started, in ticks: a process id alone may be somebody else's by now."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]


def _remove_stale(parent: Path) -> None:
    for folder in parent.glob("flow-*-*"):
        _, process, started = folder.name.split("-", 2)
        try:
            if process.isdigit() and _started(int(process)) == started:
                continue
        except OSError:
            pass  # No such process.
        for group in (*folder.glob("*/"), folder):
            with contextlib.suppress(OSError):
                group.rmdir()


def _write(path: str, value: object) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096).decode()
    finally:
        os.close(descriptor)


def _counter(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _remove_folder(path: str) -> None:
    for _ in range(_REMOVE_TRIES):
        try:
            os.rmdir(path)  # noqa: PTH106
        except FileNotFoundError:
            return
        except OSError as exc:
            if exc.errno != errno.EBUSY:
                raise
            time.sleep(_REMOVE_PAUSE_SECONDS)
        else:
            return


# --- version 2 ---


def _open_v2(mounts: dict[str, _Mount]) -> Groups:
    own = mounts["unified"].path / _own_groups()["unified"].lstrip("/")
    if own.name == _MAIN:
        own = own.parent
    if not {"memory", "pids"} <= set((own / "cgroup.controllers").read_text().split()):
        raise LookupError("the memory and pids controllers are not available here")
    _delegate(own)
    _remove_stale(own)
    folder = own / _folder_name()
    folder.mkdir(exist_ok=True)
    (folder / "cgroup.subtree_control").write_text("+memory +pids +cpu")
    return _GroupsV2(folder)


def _delegate(own: Path) -> None:
    control = own / "cgroup.subtree_control"
    if {"memory", "pids", "cpu"} <= set(control.read_text().split()):
        return
    try:
        control.write_text("+memory +pids +cpu")
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise
        (own / _MAIN).mkdir(exist_ok=True)
        for process in (own / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                _write(str(own / _MAIN / "cgroup.procs"), process)
        control.write_text("+memory +pids +cpu")


class _GroupsV2:
    kind = "v2"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, name: str) -> Group:
        path = f"{self._folder}/{name}"
        os.mkdir(path)  # noqa: PTH102
        group = _GroupV2(path)
        _write(f"{path}/memory.oom.group", 1)
        with contextlib.suppress(OSError):  # No such file in a kernel without swap.
            _write(f"{path}/memory.swap.max", 0)
        group.limit(Limits())
        return group

    def close(self) -> None:
        _remove_folder(str(self._folder))


class _GroupV2:
    def __init__(self, path: str) -> None:
        self._path = path

    def attach(self, process: int) -> None:
        _write(f"{self._path}/cgroup.procs", process)

    def limit(self, limits: Limits) -> None:
        _write(f"{self._path}/memory.max", limits.memory_bytes)
        _write(f"{self._path}/pids.max", limits.pids)
        quota = max(1000, round(limits.cpus * _PERIOD_MICROSECONDS))
        _write(f"{self._path}/cpu.max", f"{quota} {_PERIOD_MICROSECONDS}")

    def usage(self) -> Usage:
        try:
            peak = int(_read(f"{self._path}/memory.peak"))
        except FileNotFoundError:  # Before kernel 5.19.
            peak = int(_read(f"{self._path}/memory.current"))
        return Usage(
            cpu_ms=_counter(_read(f"{self._path}/cpu.stat"), "usage_usec") / 1000,
            max_rss_bytes=peak,
            oom_kills=self.oom_kills(),
            pids_limit_hits=_counter(_read(f"{self._path}/pids.events"), "max"),
        )

    def oom_kills(self) -> int:
        return _counter(_read(f"{self._path}/memory.events"), "oom_kill")

    def memory_bytes(self) -> int:
        stat = _read(f"{self._path}/memory.stat")
        return _counter(stat, "anon") + _counter(stat, "shmem") + _counter(stat, "kernel")

    def forget_peak(self) -> None:
        return  # `memory.peak` forgets for one open file alone.

    def remove(self) -> None:
        _remove_folder(self._path)


# --- version 1 ---


def _open_v1(mounts: dict[str, _Mount]) -> Groups:
    own = _own_groups()
    folders: dict[str, Path] = {}
    try:
        for controller in _V1_CONTROLLERS:
            mount = mounts[controller]
            folders[controller] = _first_that_works(
                [mount.path / own[controller].lstrip("/"), mount.path], folders.values()
            )
    except (OSError, LookupError):
        for folder in set(folders.values()):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    return _GroupsV1({controller: str(folder) for controller, folder in folders.items()})


def _first_that_works(parents: list[Path], existing: object) -> Path:
    for parent in parents:
        try:
            _remove_stale(parent)
            folder = parent / _folder_name()
            folder.mkdir(exist_ok=True)
        except OSError:
            continue
        return folder
    raise LookupError(f"no group can be made in any of {[str(parent) for parent in parents]!r}, beside {existing!r}")


class _GroupsV1:
    kind = "v1"

    def __init__(self, folders: dict[str, str]) -> None:
        self._folders = folders

    def create(self, name: str) -> Group:
        # Two controllers may share a mount (cpu,cpuacct).
        paths = {controller: f"{folder}/{name}" for controller, folder in self._folders.items()}
        for path in set(paths.values()):
            os.mkdir(path)  # noqa: PTH102
        group = _GroupV1(paths)
        group.limit(Limits())
        return group

    def close(self) -> None:
        for folder in set(self._folders.values()):
            _remove_folder(folder)


class _GroupV1:
    def __init__(self, paths: dict[str, str]) -> None:
        self._paths = paths

    def attach(self, process: int) -> None:
        for path in set(self._paths.values()):
            _write(f"{path}/cgroup.procs", process)

    def limit(self, limits: Limits) -> None:
        memory = self._paths["memory"]
        with_swap = f"{memory}/memory.memsw.limit_in_bytes"  # Missing in a kernel without swap accounting.
        try:
            _write(f"{memory}/memory.limit_in_bytes", limits.memory_bytes)
        except OSError:
            _write(with_swap, limits.memory_bytes)  # It may never be the smaller one, so it goes first on the way up.
            _write(f"{memory}/memory.limit_in_bytes", limits.memory_bytes)
        with contextlib.suppress(FileNotFoundError):
            _write(with_swap, limits.memory_bytes)
        _write(f"{self._paths['pids']}/pids.max", limits.pids)
        _write(f"{self._paths['cpu']}/cpu.cfs_quota_us", max(1000, round(limits.cpus * _PERIOD_MICROSECONDS)))

    def usage(self) -> Usage:
        memory = self._paths["memory"]
        return Usage(
            cpu_ms=int(_read(f"{self._paths['cpuacct']}/cpuacct.usage")) / 1e6,
            max_rss_bytes=int(_read(f"{memory}/memory.max_usage_in_bytes")),
            oom_kills=self.oom_kills(),
            pids_limit_hits=_counter(_read(f"{self._paths['pids']}/pids.events"), "max"),
        )

    def oom_kills(self) -> int:
        return _counter(_read(f"{self._paths['memory']}/memory.oom_control"), "oom_kill")

    def memory_bytes(self) -> int:
        memory = self._paths["memory"]
        stat = _read(f"{memory}/memory.stat")
        return _counter(stat, "rss") + _counter(stat, "shmem") + int(_read(f"{memory}/memory.kmem.usage_in_bytes"))

    def forget_peak(self) -> None:
        _write(f"{self._paths['memory']}/memory.max_usage_in_bytes", 0)

    def remove(self) -> None:
        for path in set(self._paths.values()):
            _remove_folder(path)


class _NoGroups:
    kind = "none"

    def create(self, name: str) -> Group:
        raise LookupError(f"no cgroups here, asked for {name!r}")

    def close(self) -> None:
        return

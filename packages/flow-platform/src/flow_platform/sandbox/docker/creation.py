"""What a container is made with: everything that keeps it in, in one request to the engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from flow_platform.sandbox.base import CORE_BYTES
from flow_sdk.harness import container as inside
from flow_sdk.wire.runner import Limits

INODES: Final = 4096
PERIOD_MICROSECONDS: Final = 100_000
HOST_NAME: Final = "flow"
COMMAND_LABEL: Final = "flow.command"
"""Of an image: how its first program is started, as a JSON list. Without it: Python of its search path, and the SDK."""

DEFAULT_COMMAND: Final = ("python3", "-I", "-B", "-X", "utf8", "-m", "flow_sdk.harness.container")
ENVIRON: Final = {
    "LANG": "C.UTF-8",
    "HOME": "/tmp",  # noqa: S108
    "TMPDIR": "/tmp",  # noqa: S108
    "PYTHONDONTWRITEBYTECODE": "1",
    # One thread each: a container sees all cores of the machine but may use few, and few processes.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
_PROCESSES: Final = (
    8192  # Of one user; the limit of the container is lower. Podman sets one that it may not set itself.
)
_ULIMITS: Final = {
    "core": CORE_BYTES,
    "nofile": 512,
    "nproc": _PROCESSES,
    "memlock": 64 << 10,
    "msgqueue": 0,
    "stack": 8 << 20,
}
_OOM_SCORE: Final = 500  # Containers die before anything of the host.
_EARLY_WORDS: Final = {"Type": "json-file", "Config": {"max-size": "64k", "max-file": "1"}}

# Beside the engine's own list. A masked file is /dev/null, a masked folder an empty one that cannot be written.
_MASKED: Final = (
    *("/proc/acpi", "/proc/asound", "/proc/bus", "/proc/cgroups", "/proc/cmdline", "/proc/config.gz", "/proc/cpuinfo"),
    *("/proc/diskstats", "/proc/driver", "/proc/fs", "/proc/interrupts", "/proc/iomem", "/proc/ioports", "/proc/irq"),
    *("/proc/kallsyms", "/proc/kcore", "/proc/key-users", "/proc/keys", "/proc/kmsg", "/proc/kpagecount"),
    *("/proc/latency_stats", "/proc/modules", "/proc/mtrr", "/proc/partitions", "/proc/sched_debug", "/proc/scsi"),
    *("/proc/softirqs", "/proc/stat", "/proc/swaps", "/proc/sys", "/proc/sysrq-trigger", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/vmallocinfo", "/proc/vmstat", "/proc/zoneinfo", "/sys"),
)
_MASKED_DEVICES: Final = (
    "/dev/mqueue",
    "/dev/pts",
    "/dev/ptmx",
    "/dev/tty",
    "/dev/console",
    "/dev/fuse",
    "/.dockerenv",
)


@dataclass(frozen=True)
class Recipe:
    """What containers of one kind are made with.

    Attributes:
        image: Its id, so that all containers of a pool are of the same.
        seccomp: The profile: its text for Docker, the path of a file with it for Podman.
        labels: By which ours are found again.
        hardens: Whether root closes what is left of /proc from outside: then nothing of it need be masked.
    """

    image: str
    command: tuple[str, ...]
    seccomp: str
    environment: str = ""
    certificates: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    hardens: bool = False
    is_podman: bool = False


def body(recipe: Recipe, user: int, entrance: str, limits: Limits) -> dict[str, Any]:
    """The request that makes one container.

    Args:
        user: Its user and group id, as the engine counts them.
        entrance: The folder on this machine that holds its socket.
    """
    return {
        "Image": recipe.image,
        "Entrypoint": [recipe.command[0]],
        "Cmd": list(recipe.command[1:]),
        "User": f"{user}:{user}",
        "WorkingDir": "/",
        "Hostname": HOST_NAME,
        "Env": [f"{name}={value}" for name, value in ENVIRON.items()],
        "Labels": dict(recipe.labels),
        "Healthcheck": {"Test": ["NONE"]},
        "Volumes": {},
        "AttachStdin": False,
        "OpenStdin": False,
        "Tty": False,
        "HostConfig": {**_host(recipe, entrance, limits), **resources(limits)},
    }


def resources(limits: Limits) -> dict[str, Any]:
    """What can also be changed later, by the engine's `update`."""
    return {
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,  # Both together: no swap.
        "PidsLimit": limits.pids,
        "CpuPeriod": PERIOD_MICROSECONDS,
        "CpuQuota": max(1000, round(limits.cpus * PERIOD_MICROSECONDS)),
    }


def _host(recipe: Recipe, entrance: str, limits: Limits) -> dict[str, Any]:
    return {
        "NetworkMode": "none",  # Only its own loopback.
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "ReadonlyRootfs": True,
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true", f"seccomp={recipe.seccomp}", *_podman_masks(recipe)],
        "Mounts": _mounts(recipe, entrance),
        "Tmpfs": {"/tmp": _tmp(recipe, limits)},  # noqa: S108
        "ShmSize": limits.tmp_bytes,
        "Ulimits": [{"Name": name, "Soft": value, "Hard": value} for name, value in _ULIMITS.items()],
        "Sysctls": {"net.ipv4.ping_group_range": "1 0"},  # Nobody.
        "MaskedPaths": [*_MASKED_DEVICES, "/sys"] if recipe.hardens else [*_MASKED_DEVICES, *_MASKED],
        "ReadonlyPaths": [],
        "OomScoreAdj": _OOM_SCORE,
        "LogConfig": _EARLY_WORDS,
        "RestartPolicy": {"Name": "no"},
    }


def _podman_masks(recipe: Recipe) -> list[str]:
    """It does not listen to the list of masked paths, and has mounts of its own under /proc."""
    return ["mask=" + ":".join((*_MASKED_DEVICES, *_MASKED))] if recipe.is_podman else []


def _tmp(recipe: Recipe, limits: Limits) -> str:
    inodes = "" if recipe.is_podman else f",nr_inodes={INODES}"  # Podman knows no such option: see `hardening`.
    return f"rw,nosuid,nodev,exec,size={limits.tmp_bytes}{inodes},mode=1777"


def _mounts(recipe: Recipe, entrance: str) -> list[dict[str, Any]]:
    places = {
        str(PurePosixPath(inside.SOCKET).parent): entrance,
        inside.ENVIRONMENT: recipe.environment,
        "/etc/ssl/certificates.pem": recipe.certificates,
    }
    return [_bind(source, target) for target, source in places.items() if source]


def _bind(source: str, target: str) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
    }


def command_of(image: Mapping[str, Any]) -> tuple[str, ...]:
    """How the first program of an image is started."""
    config: Mapping[str, Any] = image.get("Config") or {}
    labels: Mapping[str, str] = config.get("Labels") or {}
    written: Sequence[str] = json.loads(labels[COMMAND_LABEL]) if COMMAND_LABEL in labels else DEFAULT_COMMAND
    return tuple(written)

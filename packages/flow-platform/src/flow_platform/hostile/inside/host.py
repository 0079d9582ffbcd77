"""Looks for the host: its files, its processes, its container engines, its secrets."""

from __future__ import annotations

import errno
import os
import stat

from flow_platform.hostile.inside.trying import Answers, attempt, write

FILES = (
    *("/etc/shadow", "/root", "/home", "/sys/kernel", "/sys/firmware", "/proc/kcore", "/proc/kallsyms", "/proc/keys"),
    *("/proc/kmsg", "/proc/modules", "/proc/config.gz", "/proc/2/environ", "/proc/timer_list", "/proc/sched_debug"),
    *("/var/lib/dpkg/status", "/boot", "/mnt", "/srv", "/opt", "/dev/mem", "/dev/kmsg", "/dev/port", "/dev/sda"),
    *("/dev/vda", "/dev/nvme0n1", "/dev/fuse", "/dev/net/tun", "/dev/kvm", "/dev/vhost-net", "/dev/tty", "/dev/ptmx"),
    *("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/acpi", "/proc/scsi", "/proc/interrupts"),
)
ENGINES = (
    *("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock"),
    *("/run/crio/crio.sock", "/run/systemd/private", "/run/dbus/system_bus_socket", "/var/lib/kubelet"),
    *("/var/run/secrets/kubernetes.io/serviceaccount/token", "/run/user", "/var/lib/docker", "/.dockerenv"),
)
NEUTRAL = {
    *("LANG", "HOME", "TMPDIR", "PATH", "PYTHONDONTWRITEBYTECODE"),
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
}


SET_BY_ENGINES = ("HOSTNAME=flow", "TERM=xterm", "container=podman")
"""The same for all containers."""


def main(canary_path: str) -> Answers:
    paths = (*FILES, canary_path, "/proc/1/root" + canary_path, "/proc/self/cwd/../.." + canary_path)
    return {
        "1": {
            **{path: attempt(look, path) for path in paths},
            **environment(),
            **processes(),
        },
        "2": {path: attempt(look, path) for path in ENGINES},
        "5": {path: attempt(write, path, b"1") for path in KERNEL_SWITCHES},
        "6": descriptors(),
    }


KERNEL_SWITCHES = (
    *("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory"),
    *("/proc/sysrq-trigger", "/proc/self/uid_map", "/sys/fs/cgroup/cgroup.procs"),
    *("/sys/fs/cgroup/release_agent", "/sys/kernel/uevent_helper", "/proc/self/attr/current"),
)


def look(path: str) -> os.stat_result:
    """What is there. Engines mask a file with /dev/null, and a folder with an empty one: then nothing is."""
    found = os.stat(path)  # noqa: PTH116 - as everything here, the call itself.
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat("/dev/null").st_rdev:  # noqa: PTH116
        raise FileNotFoundError(errno.ENOENT, "masked", path)
    if stat.S_ISDIR(found.st_mode) and not os.listdir(path):  # noqa: PTH208
        raise FileNotFoundError(errno.ENOENT, "masked", path)
    return found


def environment() -> dict[str, str]:
    """Variables that nobody gave us."""
    answers = {f"variable {name}": "OK" for name in os.environ.keys() - NEUTRAL}
    with open("/proc/self/environ") as file:  # noqa: PTH123
        started = file.read().split("\0")
    return answers | {
        f"variable at start {name}": "OK"
        for name in started
        if name and name.split("=")[0] not in NEUTRAL and name not in SET_BY_ENGINES
    }


def processes() -> dict[str, str]:
    listed = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]  # noqa: PTH208
    found = {f"signal process {process}": "OK" for process in range(2, 3000) if attempt(os.kill, process, 0) != "ESRCH"}
    return {
        "list processes": f"OK {listed}" if listed else "only our own",
        "signal all processes": attempt(os.kill, -1, 0),
        "memory of process 2": attempt(os.open, "/proc/2/mem", os.O_RDONLY),
        **found,
    }


def descriptors() -> dict[str, str]:
    """Files and sockets that somebody left open: a way out by /proc/self/fd."""
    answers: dict[str, str] = {}
    sockets: list[str] = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        target = attempt(os.readlink, f"/proc/self/fd/{name}")
        kind = stat.S_IFMT(os.fstat(int(name)).st_mode) if target.startswith("OK") else 0
        if kind == stat.S_IFSOCK:
            sockets.append(name)
        elif kind not in (0, stat.S_IFIFO) and not any(word in target for word in ("/dev/null", "/proc/1/fd")):
            answers[f"descriptor {name}"] = target
        answers[f"files beside descriptor {name}"] = attempt(os.listdir, f"/proc/self/fd/{name}/../../etc/shadow")
    answers["sockets"] = "one, the harness's" if sockets == ["3"] else f"OK {sockets}"
    return answers

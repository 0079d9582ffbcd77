"""Tries to become somebody else, to gain rights, to be served before others, and to change what later runs use."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import struct
import subprocess
from pathlib import Path

from flow_platform.hostile.inside.trying import Answers, attempt, call, write

PROGRAMS = (
    *("/python/bin/python3", "/python/x", "/flow/sdk/flow_sdk/__init__.py", "/flow/packages/sitecustomize.py"),
    *("/flow/packages/evil.pth", "/flow/sdk/usercustomize.py", "/env/x", "/etc/passwd", "/etc/ld.so.preload"),
    *("/etc/ssl/certificates.pem", "/dev/x", "/lib/x", "/usr/lib/x", "/build/x", "/x", "/proc/self/cgroup"),
)


def main() -> Answers:
    return {"3": {**status(), **rights()}, "7": overwrites(), "14": priorities(), "1": core_dumps()}


def status() -> dict[str, str]:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd")
    answers = {name: "none" if int(lines[name], 16) == 0 else f"OK {lines[name]}" for name in names}
    # gVisor's kernel has no ambient set, and shows no_new_privs to who asks for it alone.
    ambient = lines.get("CapAmb", "0").strip()
    answers["CapAmb"] = "none" if int(ambient, 16) == 0 else f"OK {ambient}"
    answers["no_new_privs"] = "set" if ctypes.CDLL(None).prctl(39, 0, 0, 0, 0) == 1 else "OK"
    answers["seccomp"] = "set" if lines["Seccomp"].strip() == "2" else "OK"
    mine = os.getuid()
    ordinary = mine == os.geteuid() == os.getgid() >= 1000 and os.getgroups() in ([], [65534], [mine])
    return {**answers, "user": "ordinary" if ordinary else f"OK {os.getresuid()} {os.getgroups()}"}


def rights() -> dict[str, str]:
    return {
        "setuid": attempt(os.setuid, 0),
        "setgid": attempt(os.setgid, 0),
        "setgroups": attempt(os.setgroups, [0]),
        "capset": call((126, 91), struct.pack("II", 0x20080522, 0), struct.pack("6I", *[0xFFFFFFFF] * 6)),
        "chown": attempt(os.chown, "/tmp", 0, 0),  # noqa: S108
        "sethostname": attempt(socket.sethostname, "x"),
        "uid_map": attempt(write, "/proc/self/uid_map", b"0 0 1"),
        "a setuid program": set_user_id_program(),
    }


def set_user_id_program() -> str:
    path = Path("/tmp/program")  # noqa: S108
    path.write_text("#!/python/bin/python3\nimport os\nprint(os.geteuid())\n")
    path.chmod(0o6755)
    said = subprocess.run([str(path)], capture_output=True, text=True, check=False).stdout.strip()
    path.unlink()
    return "OK" if said == "0" else f"runs as {said}"


def overwrites() -> dict[str, str]:
    """What the next run would load."""
    answers = {path: attempt(Path(path).write_text, "x") for path in PROGRAMS}
    for folder in ("/", "/python", "/flow/sdk/flow_sdk/harness", "/env", "/usr/lib"):
        answers[f"rename {folder}"] = attempt(os.rename, folder, folder + ".old")
        answers[f"hard link out of {folder}"] = attempt(os.link, "/python/bin/python3", f"{folder}/linked")
    answers["hard link of a program"] = attempt(os.link, "/python/bin/python3", "/tmp/linked")  # noqa: S108
    answers["times of a program"] = attempt(os.utime, "/python/bin/python3")
    answers["attribute of a program"] = attempt(os.setxattr, "/python/bin/python3", "user.x", b"x")
    return answers


def priorities() -> dict[str, str]:
    real_time = os.sched_param(50)
    return {
        "real time": attempt(os.sched_setscheduler, 0, os.SCHED_FIFO, real_time),
        "round robin": attempt(os.sched_setscheduler, 0, os.SCHED_RR, real_time),
        "nice -5": attempt(os.nice, -5),
        "priority -20": attempt(os.setpriority, os.PRIO_PROCESS, 0, -20),
        "real-time input and output": call((251, 30), 1, 0, 1 << 13),
        "more descriptors": attempt(resource.setrlimit, resource.RLIMIT_NOFILE, (100_000, 100_000)),
        "more locked memory": attempt(resource.setrlimit, resource.RLIMIT_MEMLOCK, (1 << 30, 1 << 30)),
        "not to be killed for memory": attempt(write, "/proc/self/oom_score_adj", b"-1000"),
    }


def core_dumps() -> dict[str, str]:
    """A crash hands its memory to the host's `core_pattern`, unless the limit is exactly 1 and stays so."""
    limit = resource.getrlimit(resource.RLIMIT_CORE)
    return {
        "dump core": "limit 1, no core" if limit == (1, 1) else f"OK {limit}",
        "change the limit of core dumps": attempt(resource.setrlimit, resource.RLIMIT_CORE, (0, 0)),
        "change it, the old way": call((160, 164), resource.RLIMIT_CORE, struct.pack("QQ", 0, 0)),
    }

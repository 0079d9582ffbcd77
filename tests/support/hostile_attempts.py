"""Components that try to break out, each returning what happened to every single attempt.

An answer that begins with "OK" is a success of the attacker.
"""

from __future__ import annotations

from typing import Final

PRELUDE: Final = """
import ctypes, errno, os, signal, socket, struct, subprocess, sys, time

libc = ctypes.CDLL(None, use_errno=True)

def attempt(function, *arguments):
    try:
        return "OK %.60r" % (function(*arguments),)
    except OSError as exc:
        return errno.errorcode.get(exc.errno, str(exc))
    except BaseException as exc:
        return type(exc).__name__

def write(path, content):
    return os.write(os.open(path, os.O_WRONLY), content)

def call(number, *arguments):
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if libc.syscall(ctypes.c_long(number), *values) >= 0:
        return "OK"
    return errno.errorcode[ctypes.get_errno()]
"""

# Every value of the returned dict must be a refusal.
ATTEMPTS: Final[dict[str, str]] = {
    "host files": """
def main(canary_path, **_):
    paths = ["/etc/shadow", "/root", "/home", "/sys/kernel", "/proc/kcore", "/proc/kallsyms", "/proc/sysrq-trigger",
             "/proc/sys/kernel/core_pattern", "/var/run/docker.sock", "/run/containerd/containerd.sock",
             "/var/lib/dpkg/status", canary_path, "/proc/1/root" + canary_path, "/proc/self/cwd/../.." + canary_path,
             "/proc/2/environ", "/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/fuse", "/dev/net/tun"]
    return {path: attempt(os.stat, path) for path in paths}
""",
    "other processes": """
def main(**_):
    seen = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
    found = {f"signal {p}": "OK" for p in range(2, 3000) if attempt(os.kill, p, 0) != "ESRCH"}
    return {"listed": "OK %r" % seen if seen else "none", "all": attempt(os.kill, -1, 0), **found}
""",
    "namespaces and mounts": """
def main(**_):
    new_user, new_net, new_mount = 0x10000000, 0x40000000, 0x20000
    return {
        "mount": call(165, b"t", b"/tmp", b"tmpfs", 0, None), "umount": call(166, b"/proc", 2),
        "pivot_root": call(155, b"/", b"/"), "chroot": call(161, b"/tmp"), "fsopen": call(430, b"tmpfs", 0),
        "open_tree": call(428, -100, b"/usr", 1), "move_mount": call(429, 0, b"", -100, b"/tmp", 4),
        "unshare user": call(272, new_user), "unshare net": call(272, new_net), "unshare mount": call(272, new_mount),
        "setns": call(308, 0, 0), "clone3": call(435, 0, 0), "clone new user": call(56, new_user | 17, 0, 0, 0, 0),
        "mknod": call(133, b"/tmp/device", 0o60666, 0x801), "name_to_handle": call(303, -100, b"/", 0, 0, 0),
    }
""",
    "kernel interfaces": """
def main(**_):
    return {
        "ptrace": call(101, 16, 1, 0, 0), "process_vm_readv": call(310, 1, 0, 0, 0, 0, 0),
        "pidfd_getfd": call(438, 0, 0, 0), "kcmp": call(312, 1, 1, 0, 0, 0), "bpf": call(321, 0, 0, 0),
        "perf_event_open": call(298, 0, 0, -1, -1, 0), "userfaultfd": call(323, 0), "io_uring": call(425, 8, 0),
        "keyctl": call(250, 0, -3, 0), "add_key": call(248, 0, 0, 0, 0, 0), "init_module": call(175, 0, 0, 0),
        "kexec": call(246, 0, 0, 0, 0), "open_by_handle": call(304, 0, 0, 0), "memfd_secret": call(447, 0),
        "personality": call(135, 0x40000), "swapon": call(167, 0, 0), "reboot": call(169, 0, 0, 0, 0),
        "syslog": call(103, 3, 0, 0), "settimeofday": call(164, 0, 0), "iopl": call(172, 3), "acct": call(163, 0),
        "shmget": call(29, 0, 4096, 0o1666), "msgget": call(68, 0, 0o1666), "semget": call(64, 0, 1, 0o1666),
        "seccomp": call(317, 1, 0, 0), "quotactl": call(179, 0, 0, 0, 0), "vhangup": call(153),
    }
""",
    "sockets": """
def main(**_):
    kinds = {"packet": (17, 3, 0), "raw": (2, 3, 1), "ping": (2, 2, 1), "netlink": (16, 3, 0), "vsock": (40, 1, 0),
             "alg": (38, 5, 0), "bluetooth": (31, 3, 1), "xdp": (44, 3, 0), "tipc": (30, 1, 0), "can": (29, 3, 1)}
    return {name: attempt(socket.socket, *kind) for name, kind in kinds.items()}
""",
    "network": """
def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(3)
        connection.connect(address)

def main(host_port, abstract_name, **_):
    targets = {
        "host loopback": (socket.AF_INET, ("127.0.0.1", host_port)),
        "127/8": (socket.AF_INET, ("127.9.9.9", host_port)),
        "metadata": (socket.AF_INET, ("169.254.169.254", 80)), "decimal metadata": (socket.AF_INET, ("2852039166", 80)),
        "private": (socket.AF_INET, ("10.0.0.1", 80)), "public": (socket.AF_INET, ("192.0.2.1", 80)),
        "loopback 6": (socket.AF_INET6, ("::1", host_port)), "metadata 6": (socket.AF_INET6, ("fd00:ec2::254", 80)),
        "abstract socket": (socket.AF_UNIX, "\\0" + abstract_name),
    }
    answers = {name: attempt(connect, *target) for name, target in targets.items()}
    answers["name"] = attempt(socket.getaddrinfo, "metadata.google.internal", 80)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        answers["dns by hand"] = attempt(query.sendto, b"x", ("8.8.8.8", 53))
    return answers
""",
    "privileges": """
def main(**_):
    import resource
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    answers = {name: ("none" if int(status[name], 16) == 0 else "OK " + status[name])
               for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    answers["no_new_privs"] = "set" if status["NoNewPrivs"].strip() == "1" else "OK"
    answers["seccomp"] = "set" if status["Seccomp"].strip() == "2" else "OK"
    answers |= {
        "setuid": attempt(os.setuid, 0), "setgid": attempt(os.setgid, 0), "setgroups": attempt(os.setgroups, [0]),
        "rlimit": attempt(resource.setrlimit, resource.RLIMIT_NOFILE, (100000, 100000)),
        "real time": attempt(os.sched_setscheduler, 0, 1, os.sched_param(50)), "nice": attempt(os.nice, -5),
        "chown": attempt(os.chown, "/tmp", 0, 0), "sethostname": attempt(socket.sethostname, "x"),
        "capset": call(126, struct.pack("II", 0x20080522, 0), struct.pack("6I", *[0xFFFFFFFF] * 6)),
        "uid_map": attempt(write, "/proc/self/uid_map", b"0 0 1"),
        "oom_score_adj": attempt(write, "/proc/self/oom_score_adj", b"-1000"),
        "user": "none" if os.getuid() == os.geteuid() == 1000 and os.getgroups() in ([], [65534], [1000]) else "OK",
    }
    return answers
""",
    "writes outside of /tmp": """
def main(**_):
    paths = ["/x", "/etc/passwd", "/python/bin/python3", "/python/x", "/flow/sdk/flow_sdk/__init__.py", "/flow/x",
             "/flow/packages/sitecustomize.py", "/env/x", "/dev/x", "/lib/x", "/usr/lib/x", "/build/x",
             "/proc/1/mem/x", "/proc/self/cgroup"]

    return {path: attempt(open, path, "w") for path in paths}
""",
    "environment and descriptors": """
def main(**_):
    neutral = {"LANG", "HOME", "TMPDIR", "PATH", "PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS",
               "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"}
    answers = {"environment " + name: "OK" for name in os.environ.keys() - neutral}
    started = open("/proc/self/environ").read().split(chr(0))
    answers |= {"start " + name: "OK" for name in started if name and name.split("=")[0] not in neutral}
    for name in os.listdir("/proc/self/fd"):
        target = attempt(os.readlink, "/proc/self/fd/" + name)
        if target != "ENOENT" and not any(word in target for word in ("/dev/null", "pipe:", "socket:")):
            answers["descriptor " + name] = target
    targets = {name: attempt(os.readlink, "/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")}
    sockets = [name for name, target in targets.items() if "socket" in target]
    answers["sockets"] = "one" if sockets == ["3"] else "OK %r" % sockets
    return answers
""",
    "secrets in memory": """
def main(needles, **_):
    # The needles come with every byte changed, so that the input itself is not a hit.
    wanted = [bytes(byte ^ 1 for byte in bytes.fromhex(needle)) for needle in needles]
    answers, scanned = {}, 0
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in maps:
            fields = line.split()
            start, end = (int(part, 16) for part in fields[0].split("-"))
            if "r" not in fields[1] or (len(fields) > 5 and fields[5].startswith("[v")):
                continue
            try:
                memory.seek(start)
                content = memory.read(end - start)
            except (OSError, ValueError, OverflowError):
                continue
            scanned += len(content)
            for index, needle in enumerate(wanted):
                position = content.find(needle)
                while position >= 0:
                    # Our own needle objects do not count: nothing follows them.
                    if content[position + len(needle):position + len(needle) + 1] == b"!":
                        answers[f"needle {index} at {start + position:x}"] = "OK"
                    position = content.find(needle, position + 1)
    answers["scanned"] = "enough" if scanned > 10_000_000 else "OK only %d" % scanned
    return answers
""",
}

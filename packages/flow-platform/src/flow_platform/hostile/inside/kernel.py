"""Asks the kernel for what containers are broken with: namespaces, mounts, tracing, keys, old and new interfaces."""

from __future__ import annotations

import fcntl
import os
import socket

from flow_platform.hostile.inside.trying import Answers, attempt, call

NEW_USER, NEW_NET, NEW_MOUNT, NEW_CGROUP = 0x10000000, 0x40000000, 0x20000, 0x02000000
F_SETLEASE, F_NOTIFY = 1024, 1026
AT_FDCWD = -100


def main() -> Answers:
    return {
        "3": {**namespaces(), **mounts()},
        "4": {**interfaces(), **sockets()},
        "5": devices(),
        "8": {
            "shmget": call((29, 194), 0, 4096, 0o1666),
            "msgget": call((68, 186), 0, 0o1666),
            "semget": call((64, 190), 0, 1, 0o1666),
            "mq_open": call((240, 180), b"name", 0o102, 0o666, 0),
        },
        "33": watches(),
    }


def namespaces() -> dict[str, str]:
    return {
        "unshare user": call((272, 97), NEW_USER),
        "unshare net": call((272, 97), NEW_NET),
        "unshare mount": call((272, 97), NEW_MOUNT),
        "unshare cgroup": call((272, 97), NEW_CGROUP),
        "clone a user namespace": call((56, 220), NEW_USER | 17, 0, 0, 0, 0),
        "clone3": call((435, 435), 0, 0),
        "setns": call((308, 268), 0, 0),
    }


def mounts() -> dict[str, str]:
    return {
        "mount": call((165, 40), b"t", b"/tmp", b"tmpfs", 0, None),
        "umount": call((166, 39), b"/proc", 2),
        "pivot_root": call((155, 41), b"/", b"/"),
        "chroot": call((161, 51), b"/tmp"),
        "fsopen": call((430, 430), b"tmpfs", 0),
        "open_tree": call((428, 428), AT_FDCWD, b"/usr", 1),
        "move_mount": call((429, 429), 0, b"", AT_FDCWD, b"/tmp", 4),
        "mount_setattr": call((442, 442), AT_FDCWD, b"/", 0, bytes(32), 32),
        "remount writable": call((165, 40), None, b"/", None, 32 | 4096, None),
    }


def interfaces() -> dict[str, str]:
    return {
        "ptrace": call((101, 117), 16, 1, 0, 0),
        "process_vm_readv": call((310, 270), 1, 0, 0, 0, 0, 0),
        "process_madvise": call((440, 440), 0, 0, 0, 0, 0),
        "pidfd_getfd": call((438, 438), 0, 0, 0),
        "kcmp": call((312, 272), 1, 1, 0, 0, 0),
        "bpf": call((321, 280), 0, 0, 0),
        "perf_event_open": call((298, 241), 0, 0, -1, -1, 0),
        "userfaultfd": call((323, 282), 0),
        "io_uring": call((425, 425), 8, 0),
        "io_setup": call((206, 0), 1, 0),
        "keyctl": call((250, 219), 0, -3, 0),
        "add_key": call((248, 217), 0, 0, 0, 0, 0),
        "request_key": call((249, 218), 0, 0, 0, 0),
        "init_module": call((175, 105), 0, 0, 0),
        "finit_module": call((313, 273), 0, 0, 0),
        "kexec_load": call((246, 104), 0, 0, 0, 0),
        "open_by_handle_at": call((304, 265), 0, 0, 0),
        "name_to_handle_at": call((303, 264), AT_FDCWD, b"/", 0, 0, 0),
        "memfd_secret": call((447, 447), 0),
        "personality": call((135, 92), 0x40000),
        "modify_ldt": call((154, -1), 0, 0, 0),
        "swapon": call((167, 224), 0, 0),
        "reboot": call((169, 142), 0, 0, 0, 0),
        "syslog": call((103, 116), 3, 0, 0),
        "settimeofday": call((164, 170), 0, 0),
        "clock_settime": call((227, 112), 0, 0),
        "iopl": call((172, -1), 3),
        "ioperm": call((173, -1), 0, 8, 1),
        "acct": call((163, 89), 0),
        "quotactl": call((179, 60), 0, 0, 0, 0),
        "vhangup": call((153, 58)),
        "lookup_dcookie": call((212, 18), 0, 0, 0),
        "move_pages": call((279, 239), 0, 0, 0, 0, 0, 0),
        "fanotify_init": call((300, 262), 0, 0),
        "seccomp": call((317, 277), 1, 0, 0),
    }


def sockets() -> dict[str, str]:
    kinds = {
        "packet socket": (17, 3, 0),
        "raw socket": (2, 3, 1),
        "raw socket 6": (10, 3, 58),
        "ping socket": (2, 2, 1),
        "netlink socket": (16, 3, 0),
        "audit socket": (16, 3, 9),
        "vsock": (40, 1, 0),
        "kernel crypto socket": (38, 5, 0),
        "bluetooth socket": (31, 3, 1),
        "xdp socket": (44, 3, 0),
        "tipc socket": (30, 1, 0),
        "can socket": (29, 3, 1),
        "key socket": (15, 3, 2),
    }
    return {name: attempt(socket.socket, *kind) for name, kind in kinds.items()}


def devices() -> dict[str, str]:
    answers = {
        "make a block device": attempt(os.mknod, "/tmp/device", 0o60666, 0x801),  # noqa: S108
        "make a character device": attempt(os.mknod, "/tmp/device", 0o20666, 0x101),  # noqa: S108
        "push into a terminal": attempt(fcntl.ioctl, 1, 0x5412, b"x"),
    }
    for name in ("null", "zero", "urandom"):
        answers[f"times of /dev/{name}"] = attempt(os.utime, f"/dev/{name}")
        answers[f"mode of /dev/{name}"] = attempt(os.chmod, f"/dev/{name}", 0o600)
    return answers


def watches() -> dict[str, str]:
    """The files of the root are the same for all containers: who may watch them sees what others open."""
    folder = os.open("/python/lib", os.O_RDONLY)
    return {
        "watch files (inotify)": call((294, 26), 0),
        "watch files (inotify, old)": call((253, -1)),
        "watch a folder (F_NOTIFY)": attempt(fcntl.fcntl, folder, F_NOTIFY, 1),
        "hold a lease on a file": attempt(fcntl.fcntl, folder, F_SETLEASE, fcntl.F_WRLCK),
        "what is in the page cache": call((451, 451), folder, 0, 0, 0),
    }

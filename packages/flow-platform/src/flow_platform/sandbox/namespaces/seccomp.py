"""The seccomp filter: an allow-list, assembled to BPF here, so that no library is needed.

It is installed in two stages. The template installs the first (the allow-list plus the calls that set a container up);
its forks inherit that compiled, which saves 0.4 ms each. A container then installs the second, a short list that takes
the set-up calls away. The kernel applies the strictest answer of all filters.

What is refused answers EPERM, not death, because programs probe. A call of another instruction set (x32, 32-bit) kills.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from typing import Final

from flow_platform.sandbox.namespaces.syscall_numbers import MACHINE, NUMBERS

# Calls with an effect on the container alone. Not here on purpose: everything of System V IPC and POSIX message queues
# (memory that no limit of ours counts without cgroups), asynchronous I/O, ptrace and the reading of another's memory,
# keys, bpf, perf, userfaultfd, io_uring, modules, personality: none is needed by Python, each had exploits. Nor what
# watches files (inotify, leases, cachestat): the files of the root are the same for all containers of the machine, so
# that one would see which of them its neighbours open.
_ALLOWED_NAMES: Final = """
accept accept4 access alarm arch_prctl bind brk capget chdir chmod chown clock_getres clock_gettime
clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat
faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr
flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait
futex_waitv futex_wake futimesat get_robust_list getcpu getcwd getdents getdents64 getegid geteuid getgid
getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid
getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr ioprio_get
ioprio_set kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek lsetxattr
lstat madvise map_shadow_stack membarrier memfd_create mincore mkdir mkdirat mlock mlock2 mlockall mmap mprotect
mremap mseal msync munlock munlockall munmap nanosleep newfstatat open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2
prlimit64 pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg
removexattr rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield select sendfile sendmmsg sendmsg
sendto set_robust_list set_tid_address setitimer setpgid setpriority setrlimit setsid setsockopt setxattr
shutdown sigaltstack signalfd signalfd4 splice stat statfs statx symlink symlinkat sync_file_range sysinfo tee
tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create
timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat utime utimensat utimes vfork
wait4 waitid write writev
"""
_SET_UP_NAMES: Final = """
mount umount2 unshare setns fsopen fsconfig fsmount move_mount open_tree mount_setattr sethostname keyctl setgroups
setresuid setresgid setuid setgid setreuid setregid setfsuid setfsgid capset seccomp pivot_root chroot
"""

ALLOWED: Final = frozenset(_ALLOWED_NAMES.split())
SET_UP: Final = frozenset(_SET_UP_NAMES.split())
"""Only until a container is sealed."""

_ALLOW: Final = 0x7FFF0000
_KILL_PROCESS: Final = 0x80000000
_FAMILIES: Final = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)  # Not vsock: no network namespace binds it.
_SOCK_RAW: Final = 3
NEW_NAMESPACE_FLAGS: Final = 0x7E020080  # Every CLONE_NEW* that clone can carry.
TERMINAL_INJECTION: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type into a terminal of somebody else.
WATCHES: Final = (1024, 1026)  # F_SETLEASE, F_NOTIFY
CORE: Final = 4  # RLIMIT_CORE
_AUDIT_MACHINE: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32: Final = 0x40000000

# Offsets in struct seccomp_data; the low halves of the arguments on little-endian machines.
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND, _THIRD = 0, 4, 16, 24, 32

Instruction = tuple[int, int, int, int]


def inherited_filter(without: Iterable[str] = ()) -> bytes:
    """Stage 1: the allow-list and the set-up calls, everything else EPERM.

    Args:
        without: Further names to refuse, where no cgroup bounds what they take.
    """
    allowed = (ALLOWED | SET_UP) - set(without)
    program = _check_architecture()
    # Programs that find clone3 missing fall back to clone, whose flags a filter can read.
    program += _answer("clone3", _error(errno.ENOSYS))
    program += _check_clone() + _check_sockets() + _check_ioctl() + _check_fcntl() + _check_core_limit()
    for first, last in _ranges(NUMBERS[name] for name in allowed if name in NUMBERS):
        program += [_jump(_GREATER_EQUAL, first, 0, 2), _jump(_GREATER, last, 1, 0), _return(_ALLOW)]
    return _assemble([*program, _return(_error(errno.EPERM))])


def sealing_filter() -> bytes:
    """Stage 2: takes the set-up calls away."""
    program = [_load(_NUMBER)]
    for first, last in _ranges(NUMBERS[name] for name in SET_UP if name in NUMBERS):
        program += [
            _jump(_GREATER_EQUAL, first, 0, 2),
            _jump(_GREATER, last, 1, 0),
            _return(_error(errno.EPERM)),
        ]
    return _assemble([*program, _return(_ALLOW)])


_EQUAL, _GREATER, _GREATER_EQUAL, _ANY_BIT = 0x15, 0x25, 0x35, 0x45


def _load(offset: int) -> Instruction:
    return (0x20, 0, 0, offset)


def _jump(test: int, value: int, if_true: int, if_false: int) -> Instruction:
    return (test, if_true, if_false, value)


def _return(value: int) -> Instruction:
    return (0x06, 0, 0, value)


def _error(number: int) -> int:
    return 0x00050000 | number


def _answer(name: str, action: int) -> list[Instruction]:
    return [_jump(_EQUAL, NUMBERS[name], 0, 1), _return(action)]


def _check_architecture() -> list[Instruction]:
    program = [
        _load(_ARCHITECTURE),
        _jump(_EQUAL, _AUDIT_MACHINE[MACHINE], 1, 0),
        _return(_KILL_PROCESS),
        _load(_NUMBER),
    ]
    if MACHINE == "x86_64":
        program += [_jump(_GREATER_EQUAL, _X32, 0, 1), _return(_KILL_PROCESS)]
    return program


def _check_clone() -> list[Instruction]:
    body = [_load(_FIRST), _jump(_ANY_BIT, NEW_NAMESPACE_FLAGS, 0, 1), _return(_error(errno.EPERM)), _return(_ALLOW)]
    return [_jump(_EQUAL, NUMBERS["clone"], 0, len(body)), *body]


def _check_sockets() -> list[Instruction]:
    families: list[Instruction] = [
        _jump(_EQUAL, family, len(_FAMILIES) - index, 0) for index, family in enumerate(_FAMILIES)
    ]
    body = [_load(_FIRST), *families, _return(_error(errno.EAFNOSUPPORT)), _load(_SECOND), (0x54, 0, 0, 0xF)]
    body += [_jump(_EQUAL, _SOCK_RAW, 0, 1), _return(_error(errno.EPERM)), _return(_ALLOW)]
    program: list[Instruction] = []
    for name in ("socket", "socketpair"):
        program += [_jump(_EQUAL, NUMBERS[name], 0, len(body)), *body]
    return program


def _check_ioctl() -> list[Instruction]:
    body = [_load(_SECOND)]
    for request in TERMINAL_INJECTION:
        body += [_jump(_EQUAL, request, 0, 1), _return(_error(errno.EPERM))]
    body += [_return(_ALLOW)]
    return [_jump(_EQUAL, NUMBERS["ioctl"], 0, len(body)), *body]


def _check_fcntl() -> list[Instruction]:
    body = [_load(_SECOND)]
    for command in WATCHES:
        body += [_jump(_EQUAL, command, 0, 1), _return(_error(errno.EPERM))]
    body += [_return(_ALLOW)]
    return [_jump(_EQUAL, NUMBERS["fcntl"], 0, len(body)), *body]


def _check_core_limit() -> list[Instruction]:
    """Keeps the limit on core dumps as it was set: see `base.CORE_BYTES`."""
    setting = [_load(_FIRST), _jump(_EQUAL, CORE, 0, 1), _return(_error(errno.EPERM)), _return(_ALLOW)]
    # A null pointer to the new limit only reads it; filters see pointers in halves.
    both = [
        *(_load(_SECOND), _jump(_EQUAL, CORE, 1, 0), _return(_ALLOW)),
        *(_load(_THIRD), _jump(_EQUAL, 0, 1, 0), _return(_error(errno.EPERM))),
        *(_load(_THIRD + 4), _jump(_EQUAL, 0, 1, 0), _return(_error(errno.EPERM))),
        _return(_ALLOW),
    ]
    program = [_jump(_EQUAL, NUMBERS["prlimit64"], 0, len(both)), *both]
    if "setrlimit" in NUMBERS:
        program += [_jump(_EQUAL, NUMBERS["setrlimit"], 0, len(setting)), *setting]
    return program


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Joins neighbours, which makes the program three times shorter."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _assemble(program: list[Instruction]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)

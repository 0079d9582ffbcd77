"""Stage 0: builds a jail around this process, then becomes the program inside it. Runs on the host's Python.

The jail is a user namespace that holds no capability on the host, its own mount, pid, network, ipc and uts namespaces,
and a root in which the host's files do not exist. They are let go of before the first module of the SDK is imported, so
a mistake in any later step fails closed.

Three processes remain: the outer one, which only passes on that its parent died; process 1 of the jail, which only
reaps; and the program, process 2.
The program must not be process 1: each container is process 1 of its own namespace, and
OpenSSL notices a fork only by a changed process id. Were both 1, two containers would draw the same random numbers.

Configuration comes as a message on descriptor 3, never as argument or environment: forks can read those.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from flow_platform.sandbox.namespaces import seal, seccomp, syscalls

CONTROL: Final = 3
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "shm": seal.SHARED_MEMORY,
}
_BUILD_AT: Final = "/tmp"  # noqa: S108 - any folder that is always there; mounted over in a namespace of our own.
_COMMAND_USER: Final = 1000

Config = Mapping[str, Any]
Trees = list[tuple[str, int]]


def main() -> NoReturn:
    """Entered by a fresh interpreter with nothing but the control socket open."""
    syscalls.die_with_parent()
    control = socket.socket(fileno=CONTROL)
    config: Config = json.loads(control.recv(1 << 18))
    try:
        _build(config, control)
    except OSError as exc:
        control.send(json.dumps({"error": str(exc.strerror or exc)}).encode())
    except subprocess.SubprocessError as exc:
        control.send(json.dumps({"error": str(exc)}).encode())
    os._exit(1)


def _build(config: Config, control: socket.socket) -> None:
    os.umask(0o022)
    privileged: bool = config["privileged"]
    # Root clones the trees first, because the paths may be closed to the user it becomes. Anybody else needs the
    # capabilities in the new namespace to clone at all.
    trees = _clone_trees(config) if privileged else []
    _enter_user_namespace(config)
    syscalls.unshare(syscalls.NEW_MOUNT | syscalls.NEW_IPC | syscalls.NEW_UTS | syscalls.NEW_NET | syscalls.NEW_PID)
    syscalls.make_mounts_private()
    trees = trees or _clone_trees(config)
    syscalls.die_with_parent()  # Again: a change of user resets it.
    child = os.fork()
    if child:
        control.close()
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    syscalls.die_with_parent()
    _assemble_root(config, trees)
    socket.sethostname("flow")
    os.setsid()
    syscalls.join_empty_keyring()
    if config["command"] is not None:
        _become_command(config["command"], control)
    program = os.fork()
    if program:
        control.close()
        _reap_until_gone(program)
    syscalls.die_with_parent()
    os.set_inheritable(CONTROL, True)
    os.execve(config["program"][0], config["program"], config["environ"])  # noqa: S606


def _clone_trees(config: Config) -> Trees:
    trees: Trees = [
        (inside, syscalls.clone_tree(host, read_only=not writable)) for host, inside, writable in config["binds"]
    ]
    return trees + [(f"/dev/{name}", syscalls.clone_device(f"/dev/{name}")) for name in _DEVICES]


def _enter_user_namespace(config: Config) -> None:
    """Enters a new user namespace; a fork that stays behind writes the maps, which takes rights out there."""
    maps: Mapping[str, Sequence[Sequence[int]]] = config["maps"]
    owner = os.getpid()
    read_end, write_end = os.pipe()
    mapper = os.fork()
    if mapper == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(_write_maps(owner, maps, config["mapper"]))
    syscalls.unshare(syscalls.NEW_USER)
    os.close(read_end)
    os.close(write_end)  # Wakes the mapper.
    _, status = os.waitpid(mapper, 0)
    if status:
        raise OSError(1, f"writing the user and group maps {dict(maps)!r} by {config['mapper']!r} was refused")
    inside = config["user"]
    if config["mapper"] != "self":
        os.setgroups([])
        os.setresgid(inside, inside, inside)
        os.setresuid(inside, inside, inside)
    syscalls.set_dumpable(True)


def _write_maps(owner: int, maps: Mapping[str, Sequence[Sequence[int]]], mapper: str) -> int:
    if mapper == "newuidmap":
        for program, name in (("newuidmap", "uid"), ("newgidmap", "gid")):
            numbers = [str(number) for line in maps[name] for number in line]
            if subprocess.run([program, str(owner), *numbers], check=False, stdout=subprocess.DEVNULL).returncode:
                return 1
        return 0
    try:
        if mapper == "self":
            _write(f"/proc/{owner}/setgroups", "deny")
        for name in ("uid", "gid"):
            _write(f"/proc/{owner}/{name}_map", "\n".join(" ".join(map(str, line)) for line in maps[name]))
    except OSError:
        return 1
    return 0


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _assemble_root(config: Config, trees: Trees) -> None:
    """Builds the new root and lets go of the old one."""
    root = _BUILD_AT
    if config["command"] is not None:
        # A command wants mount points that the runtime root does not have.
        syscalls.mount_tmpfs(root, "size=1m,mode=755")
    for inside, tree in trees:
        target = root if inside == "/" else root + inside
        if inside == "/dev/null":
            _make_dev(f"{root}/dev")
        if config["command"] is not None and not inside.startswith("/dev/"):
            _make_mount_point(target, tree)
        syscalls.attach_tree(tree, target)
    syscalls.make_read_only(f"{root}/dev")
    settings, proc = syscalls.new_file_system(
        "proc", {"hidepid": "2", **config["proc"]}, syscalls.NO_SETUID | syscalls.NO_DEVICES | syscalls.NO_EXEC
    )
    os.close(settings)
    if config["command"] is not None:
        for target, link in config["command"]["links"].items():
            os.symlink(link, root + target)  # noqa: PTH211
        for name in ("proc", "tmp"):
            os.makedirs(os.path.join(root, name), exist_ok=True)  # noqa: PTH103, PTH118
        syscalls.mount_tmpfs(
            os.path.join(root, "tmp"),  # noqa: PTH118
            f"size={config['command']['tmp_bytes']},mode=1777",
        )
    syscalls.attach_tree(proc, f"{root}/proc")
    if config["command"] is not None:
        syscalls.make_read_only(root)
    syscalls.swap_root(root)


def _make_dev(folder: str) -> None:
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    syscalls.mount_tmpfs(folder, "size=64k,mode=755")
    for name in _DEVICES:
        os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY, 0o644))
    for name, target in _LINKS.items():
        os.symlink(target, f"{folder}/{name}")  # noqa: PTH211


def _make_mount_point(target: str, tree: int) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
    if os.path.isdir(f"/proc/self/fd/{tree}"):  # noqa: PTH112
        os.makedirs(target, exist_ok=True)  # noqa: PTH103
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))


def _become_command(command: Config, control: socket.socket) -> NoReturn:
    """Seals this process and executes the command, once the host has put it into its cgroup."""
    syscalls.bring_loopback_up()
    listeners = [seal.listen(port) for port in command["ports"]]
    seal.pass_on(control, b'{"ready": true}', [listener.fileno() for listener in listeners])
    for listener in listeners:
        listener.close()
    if control.recv(16) != b"go":
        os._exit(1)
    control.close()
    for name, value in command["rlimits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    syscalls.drop_capabilities()
    syscalls.forbid_new_privileges()
    syscalls.install_filter(seccomp.inherited_filter(command["refuse"]))
    syscalls.install_filter(seccomp.sealing_filter())
    os.chdir(command["folder"])
    try:
        os.execve(command["argv"][0], command["argv"], command["environ"])  # noqa: S606
    except OSError as exc:
        os.write(2, f"{command['argv'][0]}: {exc.strerror}\n".encode())
        os._exit(127)


def _reap_until_gone(program: int) -> NoReturn:
    """Process 1 of the jail: its end is the end of everything in it."""
    while True:
        try:
            process, status = os.wait()
        except ChildProcessError:
            os._exit(0)
        if process == program:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)

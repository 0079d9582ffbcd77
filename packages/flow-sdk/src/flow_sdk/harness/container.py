"""The first program of a container that an engine (Docker, Podman) started: gets ready, then waits for work.

    python -I -m flow_sdk.harness.container

The image is anybody's that holds the SDK. The engine has made the namespaces, the limits and the read-only root; what
is left is done here, before any code of a component is seen:

    container -> runner   connects to the socket at `SOCKET`, which only this container has
    runner -> container   one line of JSON {ports, environment, modules, filter}, with three descriptors: stdout, stderr
                          and a socket without a name, which takes the place of the first one: the kernel lists names
    container -> runner   one line {python, machine, sdk}, with its listeners on loopback, by the order of the ports;
                          or {error}

From then on that socket carries the harness's frames. A listener lives in the network namespace that it was made in:
the runner accepts on it out there, and the container holds nothing of another network.
"""

from __future__ import annotations

import array
import base64
import ctypes
import importlib
import json
import os
import platform
import site
import socket
import struct
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Final, NoReturn

SOCKET: Final = "/run/flow/socket"
ENVIRONMENT: Final = "/env"
"""Where the packages of the component's environment are mounted."""

HARNESS: Final = 3
"""The descriptor of the socket, as in every container."""

_LINE_BYTES: Final = 1 << 18
_LAST_DESCRIPTOR: Final = 1 << 16
_FREE_DESCRIPTOR: Final = 64  # Python has opened far fewer when it gets here.
_BACKLOG: Final = 64
_MODULE_NAMES: Final = """
asyncio encodings.idna inspect json linecache random ssl tempfile traceback uuid pydantic httpx nats nats.js
flow_sdk flow_sdk.calling flow_sdk.platform_client flow_sdk.declare flow_sdk.harness.main flow_sdk.harness.rehearsal
"""
_NOT_OURS: Final = ("HOSTNAME", "TERM", "container")  # Variables that engines set.
_SET_NO_NEW_PRIVILEGES: Final = 38
_SET_SECCOMP, _FILTER = 22, 2


def main() -> NoReturn:
    """Serves one execution and ends the process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as entrance:
        entrance.connect(SOCKET)
        told = _receive(entrance)
    if told is None:
        os._exit(0)
    runner = _take_places(*told[1])
    try:
        listeners = _prepare(told[0])
    except (OSError, ImportError, RuntimeError) as exc:
        runner.sendall(json.dumps({"error": f"{type(exc).__name__}: {exc}"}).encode() + b"\n")
        os._exit(1)
    _send(runner, _about(), listeners)
    for listener in listeners:
        listener.close()
    sys.modules["flow_sdk.harness.main"].run(runner)
    os._exit(0)


def _receive(entrance: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The runner's line and its descriptors; None when it went away."""
    line = bytearray()
    descriptors = array.array("i")
    while not line.endswith(b"\n"):
        data, ancillary, _, _ = entrance.recvmsg(_LINE_BYTES, socket.CMSG_SPACE(3 * descriptors.itemsize))
        if not data or len(line) > _LINE_BYTES:
            return None
        line += data
        for _, _, content in ancillary:
            descriptors.frombytes(content)
    return json.loads(line), list(descriptors)


def _take_places(out: int, err: int, channel: int) -> socket.socket:
    """Puts nothing, the two streams and the socket on descriptors 0 to 3, and closes all others."""
    nothing = os.open("/dev/null", os.O_RDONLY)
    # Above all places first: each of them may be where another is still needed.
    high = [os.dup2(number, _FREE_DESCRIPTOR + place) for place, number in enumerate((nothing, out, err, channel))]
    for place, number in enumerate(high):
        os.dup2(number, place, inheritable=place < HARNESS)
    os.closerange(HARNESS + 1, _LAST_DESCRIPTOR)
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, HARNESS)


def _prepare(told: dict[str, Any]) -> list[socket.socket]:
    for name in _NOT_OURS:
        os.environ.pop(name, None)
    for name in _MODULE_NAMES.split():
        importlib.import_module(name)
    if told["environment"]:
        _enter_environment()
    for name in told["modules"]:
        importlib.import_module(name)
    sys.modules["flow_sdk.harness.rehearsal"].rehearse()
    listeners = [_listen(port) for port in told["ports"]]
    os.chdir("/tmp")  # noqa: S108
    _install(base64.b64decode(told["filter"]))
    return listeners


def _enter_environment() -> None:
    """After the standard library, before the SDK's own packages; the SDK itself is imported, so nothing shadows it."""
    packages = [*site.getsitepackages(), "/flow/packages"]
    first = next((index for index, path in enumerate(sys.path) if path in packages), len(sys.path))
    sys.path.insert(first, ENVIRONMENT)


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    return listener


def _install(program: bytes) -> None:
    """Adds the runner's own seccomp filter to the engine's: whatever the engine's profile is, this holds too."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    for option, argument, extra in ((_SET_NO_NEW_PRIVILEGES, 1, None), (_SET_SECCOMP, _FILTER, header)):
        if libc.prctl(option, ctypes.c_ulong(argument), extra, 0, 0) < 0:
            raise OSError(ctypes.get_errno(), f"prctl({option}): {os.strerror(ctypes.get_errno())}")


def _about() -> dict[str, Any]:
    try:
        version = metadata.version("flow-sdk")
    except metadata.PackageNotFoundError:
        version = ""  # Copied into the image, not installed.
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"python": python, "machine": platform.machine(), "sdk": version}


def _send(runner: socket.socket, document: dict[str, Any], passed: Sequence[socket.socket]) -> None:
    rights = array.array("i", [one.fileno() for one in passed])
    message = json.dumps(document).encode() + b"\n"
    runner.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if passed else [])


if __name__ == "__main__":
    main()

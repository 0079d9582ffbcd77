"""The commands of docs/rings.md, one after the other, print what the page says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.flow_program import FLOW, clean_environment, eventually, flow, running

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "rings.md").read_text()
STEPS = re.findall(r"^```sh\n(.*?)^```\n```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """As the folder of the repository, for a reader who says `flow up` in it."""
    with running(tmp_path) as started:
        (started.folder / ".flow").symlink_to(started.data)
        (started.folder / "examples").symlink_to(ROOT / "examples")
        monkeypatch.chdir(started.folder)
        yield started.folder


def test_the_page_has_steps() -> None:
    assert len(STEPS) >= 10
    assert PAGE.count("```sh\n") == len(STEPS), "each block of commands has its output"


def test_the_commands_of_the_page_print_what_it_says(folder: Path) -> None:
    for commands, expected in STEPS:
        wanted = _plain(expected)
        if "flow deployments" in commands:  # The rollback before it takes place within a second.
            eventually(lambda commands=commands, wanted=wanted: _said(commands, folder) == wanted)
        assert _said(commands, folder) == wanted, commands


def _said(commands: str, folder: Path) -> list[str]:
    """What the commands print as data, and their errors."""
    said: list[str] = []
    for command in commands.splitlines():
        program, *arguments = shlex.split(command)
        done: Any = flow(*arguments) if program == "flow" else _in_a_shell(command, folder)
        said += [line for line in done.stderr.splitlines() if line.startswith("error:")]
        said += done.stdout.splitlines()
    return _plain("\n".join(said))


def _in_a_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{FLOW.parent}{os.pathsep}{os.environ['PATH']}"
    environment = clean_environment(PATH=path)
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=100
    )


def _plain(text: str) -> list[str]:
    """Without what differs from run to run: ids, ages, and the widths that follow from them."""
    text = re.sub(r"(?<= )\d+[smhd](?= )", "AGE", _ID.sub("ID", text))
    return [re.sub(r" {2,}", "  ", line).rstrip() for line in text.splitlines()]

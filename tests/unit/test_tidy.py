"""What no linter checks: how large files and functions are, and which file names say nothing."""

from __future__ import annotations

import ast
import statistics
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES = 500
MAX_MEDIAN_LINES = 150
MAX_FUNCTION_LINES = 70
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}


def sources() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = [ROOT / name for name in listed.split()]
    assert len(found) > 100
    return [path for path in found if path.exists()]


def lines_of(path: Path) -> int:
    return path.read_text().count("\n")


def test_no_file_is_too_long() -> None:
    assert {str(path): lines_of(path) for path in sources() if lines_of(path) > MAX_FILE_LINES} == {}


def test_the_median_file_can_be_read_in_one_sitting() -> None:
    product = [lines_of(path) for path in sources() if "packages" in path.parts and path.name != "__init__.py"]
    assert statistics.median(product) <= MAX_MEDIAN_LINES


def test_no_function_of_the_product_is_too_long() -> None:
    assert (
        long_functions(*[path for path in sources() if "packages" in path.parts and "versions" not in path.parts]) == []
    )


def long_functions(*paths: Path) -> list[str]:
    found = []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or 0) - node.lineno + 1
                if size > MAX_FUNCTION_LINES:
                    found.append(f"{path}:{node.lineno} {node.name} has {size} lines")
    return found


def test_every_file_is_named_by_an_idea() -> None:
    assert [str(path) for path in sources() if path.stem in EMPTY_NAMES] == []


def test_the_check_sees_a_long_function(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES)
    assert len(long_functions(path)) == 1


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX"])
def test_nothing_is_left_for_later(word: str) -> None:
    left = [str(path) for path in sources() if path != Path(__file__) and f"# {word}" in path.read_text()]
    assert left == []

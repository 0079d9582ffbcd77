"""What the documents say exists, and what exists is in the documents."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections import Counter
from pathlib import Path

import pytest
import typer

from flow_platform.cli.program import COMMANDS, build
from flow_platform.settings import Settings, documentation, variable_of
from flow_sdk import declare
from flow_sdk.platform_client import PlatformClient
from tests.docs.documents import DOCS, DOCUMENTS, ROOT, blocks, read, section, without_blocks
from tests.docs.error_codes import SOURCES, error_codes

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FILE = re.compile(r"`([\w.*-]+(?:/[\w.*-]+)+\.(?:py|sh|toml))`")
_PLACES = ("", "packages/flow-sdk/src", *(f"packages/flow-platform/src/{place}" for place in ("", "flow_platform")))
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(("where", "code"), blocks("python"), ids=[where for where, _ in blocks("python")])
def test_python_compiles(where: str, code: str) -> None:
    # `async with` and `await` at the top: excerpts of what stands in a function.
    compile(code, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(path: Path) -> None:
    broken = []
    for target in _LINK.findall(without_blocks(path.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, fragment = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        headings = _HEADING.findall(without_blocks(file.read_text())) if file.is_file() else []
        anchors = {anchor(heading) for heading in headings}
        if not file.is_file() or (fragment and fragment not in anchors):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("path", sorted({*DOCUMENTS, *ROOT.glob("*.md")}), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(path: Path) -> None:
    named = set(_FILE.findall(path.read_text()))
    assert [name for name in sorted(named) if not any(any((ROOT / place).glob(name)) for place in _PLACES)] == []


def test_every_document_is_found_from_the_readme() -> None:
    found, left = set(), [ROOT / "README.md"]
    while left:
        path = left.pop()
        if path in found or path.suffix != ".md" or not path.is_file():
            continue
        found.add(path)
        targets = (target.partition("#")[0] for target in _LINK.findall(without_blocks(path.read_text())))
        left += [(path.parent / target).resolve() for target in targets if target and ":" not in target]
    assert set(DOCS.glob("*.md")) <= found


def test_every_error_code_is_documented() -> None:
    documented = set(re.findall(r"`([a-z_]+)`", read("errors.md")))
    assert not {code: files for code, files in error_codes().items() if code not in documented}


def test_documented_error_codes_exist() -> None:
    """The first cell of each row is a code, or several."""
    rows = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \|", read("errors.md"), re.MULTILINE)
    documented = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}
    assert documented - set(error_codes()) == set()


def test_settings_are_those_of_the_code() -> None:
    """The rows of the table are what `flow doctor --settings` prints."""
    rows = re.findall(r"^\| `(FLOW_[A-Z_]+)` \| (?:`(.*?)`)? ?\| (.+) \|$", read("operating.md"), re.MULTILINE)
    cache = variable_of("cache_dir")  # Its default depends on who asks.
    expected = [(name, "" if name == cache else default, doc) for name, default, doc in documentation()]
    assert [(name, "" if name == cache else default, doc) for name, default, doc in rows] == expected
    assert len(rows) == len(dataclasses.fields(Settings))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    about = re.search(rf"^## `flow {name}\b.*?(?=^## |\Z)", read("cli.md"), re.MULTILINE | re.DOTALL)
    assert about, f"docs/cli.md has no section for flow {name}"
    command = typer.main.get_command(build([name]))
    command = getattr(command, "commands", {name: command})[name]
    known = {option for parameter in command.params for option in parameter.opts if option.startswith("-")}
    # Options stand in the first cells of tables; the connection's in one row.
    rows = re.findall(r"^\| (.+) \|$", about[0], re.MULTILINE)
    cells = [row if row.startswith("connection") else row.split(" | ")[0] for row in rows]
    documented = {option for cell in cells for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", cell)}
    assert documented == known
    assert "```text" in about[0], "an example of its output"


def test_no_command_is_made_up() -> None:
    documented = set(re.findall(r"^## `flow ([a-z-]+)", read("cli.md"), re.MULTILINE))
    assert documented == set(COMMANDS)
    mentioned = {
        (path.name, command)
        for path in DOCUMENTS
        for command in re.findall(r"`flow ([a-z-]+)", without_blocks(path.read_text()))
        if command not in COMMANDS
    }
    assert not mentioned


def test_options_of_declarations_are_documented() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", section("components.md", "Options"), re.MULTILINE))
    assert documented == set(declare.TransformOptions.__annotations__) | set(declare.Options.__annotations__)


def test_keys_of_retries_are_documented() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", section("components.md", "Retries"), re.MULTILINE))
    assert documented == set(declare.Retry.__annotations__)


def test_methods_of_the_client_are_documented_with_their_signatures() -> None:
    rows = dict(re.findall(r"^\| `(\w+)\((.*?)\)` \|", read("client.md"), re.MULTILINE))
    methods = {
        name: function
        for name, function in vars(PlatformClient).items()
        if inspect.iscoroutinefunction(function) and not name.startswith("_")
    }
    assert set(rows) == set(methods)
    for name, function in methods.items():
        assert rows[name] == _signature(function), name


def test_construction_of_the_client_is_documented() -> None:
    assert f"`PlatformClient({_signature(PlatformClient.__init__)})`" in read("client.md")


def _signature(function: object) -> str:
    """Names and defaults, as a caller writes them."""
    shown = []
    for parameter in list(inspect.signature(function).parameters.values())[1:]:  # type: ignore[arg-type]
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}".replace("'", '"')
        shown.append(parameter.name + default)
    return ", ".join(shown)


def test_constants_of_the_limits_table_exist() -> None:
    limits = section("operating.md", "Limits")
    named = {name for name in re.findall(r"`([A-Z][A-Z_]+)`", limits) if not name.startswith("FLOW_")}
    sources = "\n".join(path.read_text() for path in SOURCES)
    assert named
    assert not named - set(re.findall(r"^([A-Z][A-Z_]+): Final", sources, re.MULTILINE))
    words = Counter(re.findall(r"\b[A-Z][A-Z_]+\b", sources))
    assert not {name for name in named if words[name] < 2}, "a limit that nothing obeys"

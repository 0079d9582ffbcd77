"""The README's first steps, the examples of the documents and the list of routes, against a platform that runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.docs.documents import DOCS, ROOT, blocks, read
from tests.support.flow_program import Platform, clean_environment, running

WORKSPACE = "/api/v1/orgs/{org_id}/workspaces/{workspace_id}"
README = ROOT / "README.md"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """With the README's file published; the folder also has it as `.flow`, where a reader's own has its data."""
    with running(tmp_path_factory.mktemp("documents")) as started:
        (started.folder / ".flow").symlink_to(started.data)
        (hello,) = [code for _, code in blocks("python", README) if "@workflow" in code]
        (started.folder / "hello.py").write_text(hello)
        yield started


def test_first_steps(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(platform.folder)
    (script,) = [code for _, code in blocks("sh", README) if "flow publish" in code]
    said = []
    for line in script.splitlines():
        done = platform.flow(*shlex.split(line.removeprefix(".venv/bin/flow ")))
        assert done.returncode == 0, (line, done.stderr)
        said.append(done.stdout)
    assert re.fullmatch(r"code-blocks/slug: \w+ v\d\nworkflows/index: \w+ v\d\n", said[0])
    assert json.loads(said[1]) == "hello-world"
    assert json.loads(said[2]) == {"One Two": "one-two", "Three Four": "three-four"}
    assert said[3].count("completed") >= 4

    # The client's example, as a program of its own in the same folder.
    _, program = blocks("python", DOCS / "client.md")[0]
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=platform.folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.stdout == "completed hello-world\n", ran.stderr


def test_components_of_the_documents_can_be_published(platform: Platform, tmp_path: Path) -> None:
    examples = [code for _, code in blocks("python", DOCS / "components.md")]
    assert len(examples) > 5
    for number, code in enumerate(examples):
        file = tmp_path / f"example_{number}.py"
        file.write_text(code)
        published = platform.flow("publish", file)
        assert published.returncode == 0, (code, published.stderr)
        tests = re.findall(r"^def (test_\w+)", code, re.MULTILINE)
        for name in tests:
            namespace: dict[str, object] = {}
            exec(compile(code, str(file), "exec"), namespace)  # noqa: S102 - our own documents.
            namespace[name]()  # type: ignore[operator]
    assert platform.output_of("run", "workflows/squares", "--input", '{"numbers": [2, 3]}') == [4, 9]
    assert platform.output_of("run", "workflows/shop", "--input", '{"numbers": [2]}') == [4]
    assert platform.output_of("run", "code-blocks/count", "--input", '{"until": 2}') == 2


def test_every_route_is_documented(platform: Platform) -> None:
    ready = json.loads(platform.ready_file.read_text())
    document = httpx.get(ready["base_url"] + "/api/v1/openapi.json", trust_env=False).json()
    routes = {
        _short_method(method.upper(), _short(path)) for path, methods in document["paths"].items() for method in methods
    }
    sections = dict(re.findall(r"^### `(.+?)`\n(.*?)(?=^##|\Z)", read("api.md"), re.MULTILINE | re.DOTALL))
    assert set(sections) == routes
    for heading, text in sections.items():
        method = heading.partition(" ")[0]
        assert re.search(rf"```http\n{method} .*?```\n```http\n[23]\d\d\n", text, re.DOTALL), f"{heading}: no example"


def _short(path: str) -> str:
    """As the document writes it: all kinds in one."""
    short = path.replace(WORKSPACE, "{W}")
    short = short.replace("/services/{service_id}/v{version}/", "/services/{service_id}/")  # All versions, too.
    short = re.sub(r"^\{W\}/(models|prompts|tools|schemas|states)(?=/|$)", "{W}/<part>", short)
    return re.sub(r"/(code-blocks|transforms|workflows|agents)(?=/|$)", "/<kind>", short)


def _short_method(method: str, short: str) -> str:
    """Where several methods mean the same, the document shows one."""
    return f"POST {short}" if short.endswith(("/services/{service_id}/{path}", "/mcp")) else f"{method} {short}"

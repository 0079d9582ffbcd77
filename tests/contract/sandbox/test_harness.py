"""What a component's author meets: how input is bound, output made, errors told. In real containers."""

from __future__ import annotations

from typing import Any

import pytest

from flow_platform.sandbox.base import Sandbox
from tests.support.component_runs import run_component

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.fixture
def sandbox(namespaces: Sandbox) -> Sandbox:
    """One is enough: the harness is the same program in all of them."""
    return namespaces


@pytest.mark.parametrize(
    ("kind", "code", "input_data", "output"),
    [
        ("code_block", "def main(a, b=2, **more):\n    return [a, b, more]", {"a": 1, "c": 3}, [1, 2, {"c": 3}]),
        ("code_block", "def main(data):\n    return data", {"data": 1}, 1),
        ("code_block", "async def main(n: int):\n    return n + 1", {"n": "41"}, 42),
        (
            "code_block",
            "import datetime\ndef main(day: datetime.date):\n    return day + datetime.timedelta(1)",
            {"day": "2026-01-31"},
            "2026-02-01",
        ),
        (
            "code_block",
            "from pydantic import BaseModel\nclass User(BaseModel):\n    name: str\n"
            "def main(user: User) -> list[User]:\n    return [user, User(name=user.name.upper())]",
            {"user": {"name": "Ada"}},
            [{"name": "Ada"}, {"name": "ADA"}],
        ),
        (
            "code_block",
            "import dataclasses, decimal, enum, uuid\nclass E(enum.Enum):\n    A = 'a'\n"
            "@dataclasses.dataclass\nclass D:\n    u: uuid.UUID\n"
            "def main():\n    return [D(uuid.UUID(int=0)), decimal.Decimal('1.50'), E.A, {1}, (2,)]",
            {},
            [{"u": "00000000-0000-0000-0000-000000000000"}, "1.50", "a", [1], [2]],
        ),
        ("code_block", "def main(context):\n    return context", {}, {"region": "eu"}),
        ("workflow", "def main(data):\n    return data", {"a": 1}, {"a": 1}),
        ("workflow", "def main(order: dict):\n    return order", {"order": {"n": 1}}, {"n": 1}),
        ("workflow", "async def main(titles: list[str]):\n    return titles", {"titles": ["x"]}, ["x"]),
        ("transform", "def main(anything):\n    return anything", [1, 2], [1, 2]),
        ("transform", "def main(x, context):\n    return [x, context]", 1, [1, {"region": "eu"}]),
    ],
)
async def test_input_is_bound_and_output_made(
    sandbox: Sandbox, kind: str, code: str, input_data: Any, output: Any
) -> None:
    run = await run_component(sandbox, code, input_data, kind=kind, context={"region": "eu"})
    assert run.output == output


@pytest.mark.parametrize(
    ("code", "input_data", "field", "words"),
    [
        ("def main(n: int):\n    pass", {"n": "many"}, "n", "'many'"),
        ("def main(n: int):\n    pass", {}, "n", "required"),
        ("def main():\n    pass", {"extra": 1}, "extra", "not permitted"),
        ("def main(n):\n    pass", [1], "input", "expected an object"),
    ],
)
async def test_input_that_does_not_fit_names_the_field(
    sandbox: Sandbox, code: str, input_data: Any, field: str, words: str
) -> None:
    error = (await run_component(sandbox, code, input_data)).error
    assert (error["code"], error["retryable"]) == ("invalid_input", False)
    assert error["details"][0]["field"] == field
    assert words in error["message"]


async def test_a_traceback_shows_the_component_only(sandbox: Sandbox) -> None:
    code = "def helper(n):\n    return 1 / n\n\ndef main():\n    return helper(0)\n"
    error = (await run_component(sandbox, code)).error
    assert (error["code"], error["type"], error["message"]) == (
        "component_error",
        "ZeroDivisionError",
        "division by zero",
    )
    assert [line.strip() for line in error["traceback"].splitlines() if "~" not in line and "^" not in line] == [
        "Traceback (most recent call last):",
        'File "component.py", line 5, in main',
        "return helper(0)",
        'File "component.py", line 2, in helper',
        "return 1 / n",
        "ZeroDivisionError: division by zero",
    ]


async def test_a_failed_call_of_the_client_shows_the_line_that_made_it(sandbox: Sandbox) -> None:
    code = """
        from flow_sdk import PlatformClient
        async def main():
            client = PlatformClient("http://127.0.0.1:9", "t", org_id="o", workspace_id="w")
            try:
                await client.get_service_skills("s")
            except Exception as error:
                raise ValueError("no skills") from error
    """
    error = (await run_component(sandbox, code)).error
    places = [line.split("/")[-1] for line in error["traceback"].splitlines() if line.startswith("  File")]
    assert [place.partition(",")[0].removeprefix('  File "') for place in places] == [
        'component.py"',
        'component.py"',
    ]
    assert "PlatformConnectionError: GET /api/v1/orgs/o/services/s/skills.json had no answer" in error["traceback"]
    assert "direct cause" in error["traceback"]
    assert "httpx.ConnectError" not in error["traceback"].replace("no answer: ConnectError", "")


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("raise SystemExit(3)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("main()", "RecursionError"),
        ("raise ExceptionGroup('several', [ValueError('one')])", "ExceptionGroup"),
    ],
)
async def test_whatever_a_component_raises_is_its_error(sandbox: Sandbox, statement: str, kind: str) -> None:
    error = (await run_component(sandbox, f"def main():\n    {statement}\n")).error
    assert (error["code"], error["type"]) == ("component_error", kind)


@pytest.mark.parametrize(
    ("method", "base"), [("__str__", "Exception"), ("__str__", "MemoryError"), ("__repr__", "SystemExit")]
)
@pytest.mark.parametrize("raised", ["ValueError('no')", "SystemExit(3)"])
async def test_an_error_that_cannot_be_shown_is_told_by_its_class(
    sandbox: Sandbox, method: str, base: str, raised: str
) -> None:
    code = (
        f"class Mute({base}):\n    def {method}(self):\n        raise {raised}\n\n"
        "def main():\n    error = Mute()\n    error.code = error\n    raise error\n"
    )
    error = (await run_component(sandbox, code)).error
    assert error["code"] == ("out_of_memory" if base == "MemoryError" else "component_error")
    assert f"its {method} raised {raised.partition('(')[0]}" in error["message"]
    assert "Mute" in error["message"]
    assert "raise error" in error["traceback"]


async def test_env_is_there_before_the_module_is_loaded(sandbox: Sandbox) -> None:
    code = "import os\nREGION = os.environ['REGION']\ndef main():\n    return REGION\n"
    assert (await run_component(sandbox, code, env={"REGION": "eu"})).output == "eu"


async def test_the_output_limit_names_both_sizes(sandbox: Sandbox) -> None:
    error = (await run_component(sandbox, "def main():\n    return 'x' * 5000", output_bytes=1000)).error
    assert error["code"] == "output_too_large"
    assert "1000" in error["message"]
    assert "50" in error["message"]


async def test_inspecting_gives_schemas_and_description(sandbox: Sandbox) -> None:
    code = 'def main(title: str, n: int = 3) -> list[str]:\n    """Cuts a title."""\n    return [title] * n\n'
    output = (await run_component(sandbox, code, mode="inspect")).output
    assert output["description"] == "Cuts a title."
    assert output["input_schema"]["required"] == ["title"]
    assert output["input_schema"]["properties"]["n"] == {"default": 3, "title": "n", "type": "integer"}
    assert output["output_schema"] == {"items": {"type": "string"}, "type": "array"}


@pytest.mark.parametrize(
    ("code", "error_code", "words"),
    [
        ("def main(:\n    pass", "syntax_error", "line 1"),
        ("def other():\n    pass", "entry_point_missing", "'other'"),
        ("def main(x: 'Missing'):\n    pass", "invalid_signature", "Missing"),
        (
            "def main():\n    pass\nimport nowhere.at.all",
            "component_error",
            "line 3: No module named 'nowhere' (hint: add it to dependencies)",
        ),
        ("LIMIT = {}['x']\ndef main():\n    pass", "component_error", "line 1: KeyError: 'x'"),
    ],
)
async def test_inspecting_refuses_what_cannot_run(sandbox: Sandbox, code: str, error_code: str, words: str) -> None:
    error = (await run_component(sandbox, code, mode="inspect")).error
    assert error["code"] == error_code
    assert words in error["message"]


@pytest.mark.parametrize(
    ("annotation", "shown"),
    [("Socket", "Socket"), ("list[Socket]", "list[Socket]"), ("Callable[[], int]", "Callable[[], int]")],
)
async def test_inspecting_names_the_parameter_whose_type_has_no_json(
    sandbox: Sandbox, annotation: str, shown: str
) -> None:
    code = f"from typing import Callable\nclass Socket:\n    pass\ndef main(n: int, s: {annotation}):\n    pass"
    error = (await run_component(sandbox, code, mode="inspect")).error
    assert (error["code"], error["details"][0]["field"], len(error["details"])) == ("invalid_signature", "s", 1)
    assert error["message"].startswith("parameter 's': no value of ")
    assert f"no value of {shown} can be made from JSON" in error["message"]
    assert "pydantic.dev" not in error["message"]


async def test_only_what_is_not_there_is_a_missing_dependency(sandbox: Sandbox) -> None:
    error = (await run_component(sandbox, "import json.nothing\ndef main():\n    pass", mode="inspect")).error
    assert error["message"] == "line 1: No module named 'json.nothing'"
    assert error["details"] == [{"field": "code", "message": "No module named 'json.nothing'", "line": 1}]


async def test_inspecting_runs_the_examples(sandbox: Sandbox) -> None:
    code = "def main(data):\n    return {'name': data['user']}\n"
    good = {"input": {"user": "Ada"}, "output": {"name": "Ada"}}
    bad = {"input": {"user": "Ada"}, "output": {"name": "Eve"}}
    assert (await run_component(sandbox, code, kind="transform", mode="inspect", examples=[good])).output
    error = (await run_component(sandbox, code, kind="transform", mode="inspect", examples=[good, bad])).error
    assert error["code"] == "example_failed"
    assert [detail["field"] for detail in error["details"]] == ["examples[1]"]
    assert "'Eve'" in error["message"]

from pathlib import Path

import pytest

from flow_platform.cli.declarations import find_components, read_components
from flow_platform.domain.errors import FlowError, InvalidInput


@pytest.fixture
def source(tmp_path):
    def write(text: str, name: str = "components.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_every_way_to_import_a_decorator_is_understood(source):
    found = read_components(
        source(
            "import flow_sdk\nimport flow_sdk as f\nimport flow_sdk.declare\n"
            "from flow_sdk import code_block as cb, declare\n"
            "from flow_sdk.declare import workflow\n\n"
            "@flow_sdk.code_block\ndef one(): ...\n\n@f.transform()\ndef two(data): ...\n\n"
            "@cb(slug='iii')\nasync def three(): ...\n\n@workflow\nasync def four(): ...\n\n"
            "@declare.code_block\ndef five(): ...\n\n@flow_sdk.declare.code_block\ndef six(): ...\n"
        )
    )
    assert [component.label for component in found] == [
        "code-blocks/one",
        "transforms/two",
        "code-blocks/iii",
        "workflows/four",
        "code-blocks/five",
        "code-blocks/six",
    ]


def test_the_file_is_read_and_not_run(source):
    path = source("raise SystemExit('run!')\nfrom flow_sdk import code_block\n@code_block\ndef main(): ...\n")
    assert [component.label for component in read_components(path)] == ["code-blocks/main"]


def test_the_body_carries_the_whole_file_and_the_options(source):
    text = (
        "from flow_sdk import code_block\n\n"
        "@code_block(dependencies=['a>=1'], memory_mb=64, retry={'max_attempts': 3}, tags=['x'], timeout_seconds=5)\n"
        "def my_block(n: int):\n    '''Adds.'''\n"
    )
    (component,) = read_components(source(text))
    assert component.declaration.publish_body(component.code) == {
        "slug": "my-block",
        "code": text,
        "entry_point": "my_block",
        "name": "my-block",
        "description": "Adds.",
        "tags": ["x"],
        "dependencies": ["a>=1"],
        "timeout_seconds": 5,
        "retry": {"max_attempts": 3},
        "limits": {"memory_bytes": 64 << 20},
        "smoke_input": None,
    }


def test_decorators_of_others_with_the_same_name_mean_nothing(source):
    text = "from elsewhere import code_block\n@code_block\ndef one(): ...\n@unknown.code_block(1)\ndef two(): ...\n"
    assert read_components(source(text)) == []


HEAD = "from flow_sdk import agent, code_block, transform\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:\n", r":2: does not parse"),
        (
            "LIMIT = 5\n@code_block(memory_mb=LIMIT)\ndef f(): ...\n",
            r":3: option 'memory_mb' .* is 'LIMIT': exp",
        ),
        ("@code_block(**{})\ndef f(): ...\n", r":2: @code_block cannot take \*\*"),
        ("@code_block('x')\ndef f(): ...\n", r":2: @code_block takes its options by name"),
        ("@code_block(memory=1)\ndef f(): ...\n", r":2: @code_block of 'f': code_block has no option 'memory'"),
        ("@code_block(memory_mb='x')\ndef f(): ...\n", r":2: @code_block of 'f'"),
        ("@transform(timeout_seconds=301)\ndef f(d): ...\n", r":2: @transform of 'f': timeout_seconds 301"),
        ("class A:\n    @code_block\n    def f(self): ...\n", r":4: 'f' is not at the top level"),
        ("def f():\n    agent('y', model='m', prompt='p')\n", r":3: an agent is declared at the top level"),
    ],
)
def test_what_cannot_be_read_is_named_with_file_and_line(source, text: str, message: str):
    with pytest.raises(InvalidInput, match=message) as caught:
        read_components(source(HEAD + text))
    assert "components.py" in caught.value.message


def test_a_file_that_is_not_text_is_no_crash(tmp_path):
    path = tmp_path / "binary.py"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="cannot be read as Python source"):
        read_components(path)


def test_a_file_of_another_kind_is_told_what_was_expected(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("It's no program.\n")
    with pytest.raises(InvalidInput, match=r"README\.md:1: does not parse") as refused:
        read_components(path)
    assert refused.value.hint == "expected a Python file, a *.workflow.json or a folder"


def test_a_folder_is_searched_and_callers_come_last(source, tmp_path):
    head = "from flow_sdk import code_block, transform, workflow\n"
    source(head + "@workflow\nasync def w(): ...\n", "a/flows.py")
    source(head + "@transform\ndef t(d): ...\n@code_block\ndef c(): ...\n", "b/deep/blocks.py")
    source("syntax error\n", ".hidden/x.py")
    source("syntax error\n", "__pycache__/x.py")
    assert [component.label for component in find_components(tmp_path)] == [
        "code-blocks/c",
        "transforms/t",
        "workflows/w",
    ]


def test_the_same_name_twice_is_refused_with_both_places(source, tmp_path):
    for name in ("one.py", "two.py"):
        source("from flow_sdk import code_block\n@code_block\ndef same(): ...\n", name)
    with pytest.raises(InvalidInput, match=r"two\.py:3: code-blocks/same is declared at .*one\.py:3 already"):
        find_components(tmp_path)


def test_nothing_to_publish_says_what_was_expected(source, tmp_path):
    with pytest.raises(FlowError, match="does not exist"):
        find_components(tmp_path / "absent.py")
    with pytest.raises(FlowError, match="declares no component") as caught:
        find_components(source("x = 1\n"))
    assert "@code_block" in caught.value.hint


def test_the_example_means_the_same_read_and_imported():
    import importlib.util

    path = Path(__file__).parents[3] / "examples" / "code_census" / "census.py"
    spec = importlib.util.spec_from_file_location("census", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for component in read_components(path):
        assert getattr(module, component.declaration.entry_point).declaration == component.declaration


def test_agents_are_read_with_what_they_call_and_come_after_it(tmp_path: Path) -> None:
    (tmp_path / "blocks.py").write_text("from flow_sdk import code_block\n@code_block\ndef pay_back(n: int): ...\n")
    (tmp_path / "agents.py").write_text(
        "import flow_sdk as f\nfrom blocks import pay_back as refund\n"
        "@f.transform\ndef clean(d): ...\n"
        "boss = f.agent('boss', model='test/echo', prompt='p', tools=[helper, 'mcp:s/t'], conversations=True)\n"
        "helper = f.agent('helper', model='test/echo', prompt='p', output=list[int],\n"
        "    tools=[clean, f.tool(refund, approval=True)], limits={'turns': 3})\n"
    )

    found = find_components(tmp_path)

    assert [one.label for one in found][-2:] == ["agents/helper", "agents/boss"]
    helper, boss = [one.body for one in found[-2:]]
    assert helper["tools"] == ["transform/clean", {"ref": "code_block/pay-back", "approval": True}]
    assert (helper["output_type"], helper["limits"]) == ("list[int]", {"turns": 3})
    assert "helper = f.agent" in helper["code"]
    assert boss["tools"] == ["agent/helper", "mcp:s/t"]
    assert "code" not in boss


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = agent('y', model='m', prompt='p', tools=[nobody])\n", r":2: tool 'nobody' is no component"),
        ("x = agent('y', model='m', prompt=str(1))\n", r":2: option 'prompt' of agent is 'str\(1\)'"),
        ("x = agent('y', model='m', prompt='p', limits={'turn': 1})\n", r":2: agent: limits has no option 'turn'"),
        ("x = agent('Y', model='m', prompt='p')\n", r":2: agent: slug 'Y'"),
        ("x = agent('y', model='m', prompt='p', tools=[f()])\n", r":2: a tool is 'f\(\)'"),
    ],
)
def test_an_agent_that_cannot_be_read_is_named_with_file_and_line(source, text: str, message: str):
    with pytest.raises(InvalidInput, match=message):
        find_components(source(HEAD + text))

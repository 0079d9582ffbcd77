"""How what is typed is understood, without a platform."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from flow_platform.cli import output, program
from flow_platform.cli.bench import _counts, _medians
from flow_platform.cli.connection import claims_of, find_connection
from flow_platform.cli.demo import stdlib_sources
from flow_platform.cli.remote import _server_sent
from flow_platform.cli.run import parse_component, read_input
from flow_platform.cli.starting import FLAGS, plain_flags
from flow_platform.domain.errors import FlowError, InvalidInput


def token(**claims) -> str:
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{part}.signature"


WIDE = token(org="o", ws=None)


def test_plain_flags_are_read_and_everything_else_is_left_to_the_library():
    assert plain_flags([]) == {}
    assert plain_flags(["--port", "0", "--data=/x=y", "--allow-public"]) == {
        "port": "0",
        "data_dir": "/x=y",
        "allow_public": True,
    }
    for others in (["--help"], ["--port"], ["extra"], ["--allow-public=yes"], ["-h"], ["--prot", "1"]):
        assert plain_flags(others) is None


def test_the_quick_way_and_the_library_know_the_same_options():
    command = program._load("up", "up")
    import inspect

    options = {
        (parameter.annotation.__metadata__[0].param_decls or ("--" + name.replace("_", "-"),))[0]
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
    }
    assert options == {*FLAGS, "--allow-public"}


@pytest.mark.parametrize("name", program.COMMANDS)
def test_every_command_can_be_loaded(name):
    assert callable(program._load(program.COMMANDS[name][0], name))


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("code-blocks/a", ("code-blocks", "a")),
        ("code_block/a", ("code-blocks", "a")),
        ("workflow/a", ("workflows", "a")),
        ("transforms/a/b", ("transforms", "a/b")),
    ],
)
def test_components_are_named_by_kind_and_slug(text, parsed):
    assert parse_component(text) == parsed


@pytest.mark.parametrize("text", ["", "a", "/a", "code-blocks/", "people/ada"])
def test_what_is_no_component_says_what_was_expected(text):
    with pytest.raises(InvalidInput, match="is not KIND/SLUG: expected a kind of code-blocks"):
        parse_component(text)


def test_input_is_json_from_three_places(tmp_path, monkeypatch):
    assert read_input('{"a": 1}') == {"a": 1}
    (tmp_path / "i.json").write_text("[1]")
    assert read_input(f"@{tmp_path / 'i.json'}") == [1]
    monkeypatch.setattr("sys.stdin", io.StringIO("null"))
    assert read_input("-") is None
    with pytest.raises(InvalidInput, match="--input is not JSON: Expecting value: line 1 column 1"):
        read_input("nonsense")


def test_a_connection_is_made_of_options_before_variables_and_the_token_names_the_rest():
    environ = {"FLOW_URL": "http://b/", "FLOW_TOKEN": token(org="o", ws="w")}
    found = find_connection(environ=environ)
    assert (found.base_url, found.org_id, found.workspace_id) == ("http://b", "o", "w")
    assert find_connection(url="http://a", org="p", environ=environ).org_id == "p"
    with pytest.raises(FlowError, match="no token for http://b"):
        find_connection(environ={"FLOW_URL": "http://b"})
    with pytest.raises(FlowError, match="did you mean FLOW_TOKEN"):
        find_connection(environ={"FLOW_TOKEM": "x"})


@contextmanager
def platform_of(*workspaces: str) -> Iterator[str]:
    """A server that knows one organization."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = {"org_id": "o", "workspaces": [{"id": name, "name": f"the {name}"} for name in workspaces]}
            found = self.path == "/api/v1/auth/whoami" and self.headers["Authorization"] == f"Bearer {WIDE}"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_the_platform_is_asked_for_the_workspace_of_a_token_that_names_none():
    with platform_of("w") as url:
        found = find_connection(url=url, token=WIDE, environ={})
        assert (found.base_url, found.org_id, found.workspace_id) == (url.rstrip("/"), "o", "w")
        with pytest.raises(FlowError, match="not one of the organization 'p'"):
            find_connection(url=url, token=WIDE, org="p", environ={})
    with platform_of("w", "v") as url:
        assert find_connection(url=url, token=WIDE, workspace="v", environ={}).workspace_id == "v"
        with pytest.raises(FlowError, match=r"reaches 2 workspaces: w \(the w\), v \(the v\)") as caught:
            find_connection(url=url, token=WIDE, environ={})
        assert "--workspace" in caught.value.hint


@pytest.mark.parametrize("text", ["", "a.b", "a.!!.c", "a.W10.c", "a.bm8.c"])
def test_what_is_no_token_has_no_claims(text):
    assert claims_of(text) == {}


def test_a_data_folder_without_a_platform_says_how_to_start_one(tmp_path):
    with pytest.raises(FlowError, match="no platform runs over the data folder") as caught:
        find_connection(data=tmp_path, environ={})
    assert "flow up" in caught.value.hint


def test_server_sent_events_are_parsed_with_comments_and_several_lines():
    lines = [": hi", "", "id: 1", "event: log", "data: a", "data:b", "", "data: c", "", "event: end", "data: {}", ""]
    assert list(_server_sent(iter(lines))) == [("log", "a\nb"), ("message", "c"), ("end", "{}")]


def test_the_modules_of_the_demo_are_real_and_of_some_size():
    sources = stdlib_sources(40)
    assert len(sources) == 40
    assert all(15_000 <= len(source.encode()) <= 120_000 for source in sources.values())
    assert not [name for name in sources if "test" in name.split(".") or "site-packages" in name]
    assert stdlib_sources(40) == sources


def test_medians_go_into_what_is_nested():
    rows = [
        {"n": 1, "a": 1.0, "s": {"x": 1.0}},
        {"n": 1, "a": 3.0, "s": {"x": 5.0}},
        {"n": 1, "a": 2.0, "s": {"x": 2.0}},
    ]
    assert _medians(rows) == {"n": 1, "a": 2.0, "s": {"x": 2.0}}


def test_counts_are_checked():
    assert _counts("w1=5")["w1"] == 5
    for wrong in ("w9=1", "w1", "w1=x", "w1=0"):
        with pytest.raises(InvalidInput, match="--n"):
            _counts(wrong)


def test_a_table_without_a_terminal_is_aligned_text(capsys):
    output.show_table(("id", "status"), [("a", "completed"), ("long", None)])
    assert capsys.readouterr().out == "ID    STATUS\na     completed\nlong\n"


def test_long_values_are_cut_with_their_size():
    assert output.compact({"a": "x" * 300}, 20).endswith("… (309 characters)")
    assert output.compact("two\nlines") == "two lines"

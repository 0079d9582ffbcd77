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
from flow_platform.cli.connection import Connection, claims_of, find_connection
from flow_platform.cli.demo import stdlib_sources
from flow_platform.cli.ending import shown_errors
from flow_platform.cli.remote import Remote, _server_sent
from flow_platform.cli.run import parse_component, read_input, submit
from flow_platform.cli.starting import FLAGS, plain_flags
from flow_platform.domain.errors import FlowError, InvalidInput


def token(**claims) -> str:
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{part}.signature"


WIDE = token(org="o", ws=None)
DETAIL = {"field": "a", "message": "is missing"}


def test_words_of_other_platforms_are_answered_with_ours(capsys):
    assert not program.OTHER_WORDS.keys() & program.COMMANDS.keys()
    assert set(program.OTHER_WORDS.values()) <= program.COMMANDS.keys()
    with pytest.raises(SystemExit, match="2"):
        program.build(["logs", "-f"])
    assert capsys.readouterr().err.splitlines() == [
        "error: there is no command 'logs'",
        "hint: it is called here: flow events",
    ]


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
    with pytest.raises(InvalidInput, match="--input is not JSON: Expecting value: line 1 column 1") as refused:
        read_input("nonsense")
    assert refused.value.hint.startswith("expected JSON, for example --input '{")
    with pytest.raises(InvalidInput, match=r"--input @/absent\.json: cannot be read: No such file or directory$"):
        read_input("@/absent.json")
    with pytest.raises(InvalidInput, match="NaN is no number of JSON"):
        read_input("[NaN]")


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


@contextmanager
def refusing_platform(*answers: tuple[int, bytes]) -> Iterator[tuple[Remote, list[tuple[str, str]]]]:
    """A server that gives these answers in turn; and what it was asked, as body and idempotency key."""
    left, asked = list(answers), list[tuple[str, str]]()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            asked.append((body, self.headers["Idempotency-Key"]))
            status, answer = left.pop(0)
            if not status:
                return  # Cuts the connection.
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Remote(Connection(f"http://127.0.0.1:{server.server_port}", "t", "o", "w")) as remote:
            yield remote, asked
        server.shutdown()
        thread.join()


def test_a_submit_is_repeated_under_one_key_and_without_a_timeout_of_its_own():
    accepted = b'{"execution_id": "e"}'
    with refusing_platform((0, b""), (503, b""), (202, accepted), (202, accepted)) as (remote, asked):
        assert submit(remote, "code-blocks", "slug", {"a": "\ud800"}, "r", None) == "e"
        assert [json.loads(body) for body, _ in asked] == [{"input_parameters": {"a": "\ud800"}, "ring_id": "r"}] * 3
        assert len({key for _, key in asked}) == 1
        assert submit(remote, "workflows", "index", [1], "r", 5) == "e"
        assert json.loads(asked[3][0]) == {"input_data": [1], "ring_id": "r", "timeout_seconds": 5}
        assert asked[3][1] != asked[0][1]


def test_a_refusal_is_shown_with_one_hint(capsys):
    answer = json.dumps({"code": "not_deployed", "message": "no version in 'dev' (hint: deploy it)"}).encode()
    other = json.dumps({"code": "other", "message": "no (really) (hint: try (b))", "details": [DETAIL]}).encode()
    with refusing_platform((409, answer), (422, other), (200, b"[]")) as (remote, asked):
        with pytest.raises(FlowError) as caught:
            submit(remote, "code-blocks", "slug", {}, "r", None)
        assert caught.value.message == "no version in 'dev'"
        assert caught.value.hint == "deploy it"
        with pytest.raises(SystemExit), shown_errors():
            submit(remote, "code-blocks", "slug", {}, "r", None)
        assert capsys.readouterr().err == "error: no (really)\n       a: is missing\nhint: try (b)\n"
        with pytest.raises(FlowError, match="no JSON object"):
            submit(remote, "code-blocks", "slug", {}, "r", None)
        assert len(asked) == 3


def test_a_detail_that_the_message_has_is_not_repeated(capsys):
    output.show_error(
        "a 4 is not valid: expected 16 (and 1 more)", "", [{"field": "a", "message": "expected 16, got 4"}]
    )
    assert capsys.readouterr().err == "error: a 4 is not valid: expected 16 (and 1 more)\n"
    output.show_error("two problems", "", [DETAIL])
    assert capsys.readouterr().err == "error: two problems\n       a: is missing\n"


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


def test_cells_are_cut_on_a_terminal_and_whole_in_a_pipe(monkeypatch):
    assert output.cell("x" * 300, 60) == "x" * 300
    assert output.cell("two\nlines", 60) == "two lines"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert output.cell("x" * 300, 60) == "x" * 60 + "… (300 characters)"

"""Secrets on a whole platform: containers read theirs, and nothing else anywhere has them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.support.flow_program import Platform, flow, running
from tests.support.web_server import WebServer

pytestmark = pytest.mark.slow

COMPONENTS = Path(__file__).with_name("secret_components.py")
TOKEN = "flowCanary/1+9f8e7d6c5b4a39281706"
PHRASE = 'pässwörd "number" & nine'


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("secrets"), "--log-level", "debug", FLOW_EGRESS_ALLOW="127.0.0.2") as started:
        for name, value in (("E2E_TOKEN", TOKEN), ("E2E_PASSPHRASE", PHRASE)):
            done = started.flow("secret", "set", name, stdin=value + "\n")
            assert done.returncode == 0, done.stderr
            assert value not in done.stdout + done.stderr
        published = started.flow("publish", COMPONENTS)
        assert published.returncode == 0, published.stderr
        yield started


def run(platform: Platform, slug: str) -> tuple[int, str]:
    """Exit code, and all that a person sees of the execution."""
    done = platform.flow("run", f"code-blocks/{slug}", "--follow")
    execution_id = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", done.stderr)
    assert execution_id, done.stderr
    shown = platform.flow("show", execution_id[0], "--json").stdout
    events = platform.flow("events", execution_id[0], "--json").stdout
    return done.returncode, done.stdout + done.stderr + shown + events


def test_a_container_reads_its_secrets_and_nothing_that_it_says_has_them(platform: Platform) -> None:
    code, seen = run(platform, "leaks")

    assert code == 0, seen
    assert hashlib.sha256(TOKEN.encode()).hexdigest() in seen, "the container had the true value"
    assert "[redacted]" in seen
    assert "Bearer [redacted]" in seen
    assert "one by one: [redacted]" in seen
    require_no_trace(seen.encode(), "what people see")


def test_an_error_does_not_show_them_either(platform: Platform) -> None:
    code, seen = run(platform, "raises")

    assert code != 0
    assert "401 for '[redacted]'" in seen
    assert "Traceback" in seen
    require_no_trace(seen.encode(), "what people see")


PAYS = """
import os, urllib.request
from flow_sdk import code_block

@code_block(
    network=["127.0.0.2:PORT"],
    secrets=[
        {
            "name": "E2E_TOKEN",
            "inject": {"host": "127.0.0.2:PORT", "header": "Authorization", "format": "Bearer {value}", "tls": False},
        }
    ],
)
def pays() -> dict:
    with urllib.request.urlopen("http://127.0.0.2:PORT/charge") as answer:
        return {"answer": answer.read().decode(), "variables": dict(os.environ)}
"""


def test_a_secret_is_added_to_requests_and_never_enters_the_container(platform: Platform, tmp_path: Path) -> None:
    with WebServer(host="127.0.0.2") as server:  # What goes to 127.0.0.1 takes no proxy.
        source = tmp_path / "pays.py"
        source.write_text(PAYS.replace("PORT", str(server.port)))
        published = platform.flow("publish", source)
        assert published.returncode == 0, published.stderr

        said = platform.output_of("run", "code-blocks/pays")

        assert said["answer"].startswith("GET /charge")
        assert [head["authorization"] for head in server.heads] == [f"Bearer {TOKEN}"]
    assert "E2E_TOKEN" not in said["variables"]
    require_no_trace(json.dumps(said).encode(), "the container")


def test_a_component_gets_no_secret_that_it_did_not_name(platform: Platform) -> None:
    assert platform.output_of("run", "code-blocks/sees") == []


def test_a_missing_secret_ends_the_execution_at_once_and_says_how_to_set_it(platform: Platform) -> None:
    done = platform.flow("run", "code-blocks/needs")

    assert done.returncode != 0
    assert "'E2E_UNSET'" in done.stderr
    assert "flow secret set E2E_UNSET" in done.stderr
    shown = platform.output_of("show", done.stderr.split()[1], "--json")
    assert (shown["status"], shown["attempt"], shown["error"]["code"]) == ("failed", 1, "secret_missing")


def test_a_ring_has_a_value_of_its_own(platform: Platform) -> None:
    assert platform.flow("secret", "set", "E2E_PLACE", stdin="everywhere").returncode == 0
    assert platform.output_of("run", "code-blocks/place") == len("everywhere")

    assert platform.flow("secret", "set", "E2E_PLACE", "--ring", "dev", stdin="in dev alone").returncode == 0
    assert platform.output_of("run", "code-blocks/place") == len("in dev alone")

    assert platform.flow("secret", "delete", "E2E_PLACE", "--ring", "dev").returncode == 0
    assert platform.output_of("run", "code-blocks/place") == len("everywhere")
    listed = platform.output_of("secret", "list", "--json")
    assert [(each["name"], each["ring_id"], each["version"]) for each in listed if each["name"] == "E2E_PLACE"] == [
        ("E2E_PLACE", None, 1)
    ]


def test_a_command_that_lacks_or_has_a_name_too_much_says_so(platform: Platform) -> None:
    for arguments in (("set",), ("delete",), ("list", "E2E_PLACE"), ("rotate", "E2E_PLACE")):
        done = platform.flow("secret", *arguments, stdin="a long value")
        assert done.returncode == 1
        assert "name" in done.stderr
    refused = platform.flow("secret", "set", "E2E_PLACE", stdin="tiny")
    assert refused.returncode == 1
    assert "at least 6 characters" in refused.stderr
    assert "tiny" not in refused.stderr


def test_an_api_key_made_on_the_command_line_is_a_credential(platform: Platform) -> None:
    key = platform.flow("token", "--api-key", "ci", "--role", "viewer").stdout.strip()
    url = json.loads(platform.ready_file.read_text())["base_url"]

    assert key.startswith("fl_")
    assert flow("ps", "--url", url, "--token", key).returncode == 0
    assert "may not" in flow("secret", "list", "--url", url, "--token", key).stderr


def test_nothing_on_disk_has_them(platform: Platform) -> None:
    """The canary: database with its log, streams, logs of all processes, whatever else is in the folder."""
    run(platform, "leaks")
    ready = json.loads(platform.ready_file.read_text())
    with httpx.Client(base_url=ready["base_url"]) as client:
        require_no_trace(client.get("/metrics").content, "/metrics")

    contents = read_below(platform.folder)

    for path, content in contents.items():
        require_no_trace(content, str(path))
    assert any(b"E2E_TOKEN" in content for content in contents.values()), "names are in the database: it was read"
    assert any("jetstream" in path.parts for path in contents)
    assert stat.S_IMODE((platform.data / "master.key").stat().st_mode) == 0o600


def read_below(folder: Path) -> dict[Path, bytes]:
    """All files, but those that the platform, which runs, takes away meanwhile."""
    contents: dict[Path, bytes] = {}
    for where, _, names in os.walk(folder):
        for path in (Path(where, name) for name in names):
            if path.is_file() and not path.is_symlink():
                with contextlib.suppress(FileNotFoundError):
                    contents[path] = path.read_bytes()
    return contents


def test_the_master_key_rotates_and_values_stay(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        assert platform.flow("secret", "set", "E2E_PLACE", stdin="before the rotation").returncode == 0
        assert platform.flow("publish", COMPONENTS).returncode == 0
    assert platform.flow("secret", "rotate").returncode == 0

    with running(tmp_path) as platform:
        assert platform.output_of("run", "code-blocks/place") == len("before the rotation")
        assert "a data key was encrypted anew" in (platform.data / "logs" / "server.log").read_text()


def require_no_trace(content: bytes, where: str) -> None:
    """Written without the product's own list of forms."""
    for value in (TOKEN, PHRASE):
        data = value.encode()
        traces = [data, data.hex().encode(), data.hex().upper().encode(), quote(value, safe="").encode()]
        traces += [json.dumps(value)[1:-1].encode(), data[: len(data) // 2], data[len(data) // 2 :]]
        traces += [base64.b64encode(before + data)[4:-8] for before in (b"", b"x", b"xy")]
        for trace in traces:
            assert trace not in content, f"{trace!r} is in {where}"

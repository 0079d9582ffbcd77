"""The commands against a running platform, as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from tests.e2e.conftest import COMPONENTS
from tests.support.flow_program import FLOW, Platform, clean_environment, eventually, flow, flow_process

pytestmark = pytest.mark.slow


def test_publishing_again_changes_nothing(platform: Platform) -> None:
    done = platform.flow("publish", COMPONENTS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "code-blocks/hello: unchanged v1",
        "code-blocks/fails: unchanged v1",
        "code-blocks/sleeper: unchanged v1",
        "transforms/increment: unchanged v1",
        "workflows/greetings: unchanged v1",
    ]


def test_a_changed_component_gets_a_new_version_that_runs(platform: Platform, tmp_path) -> None:
    source = tmp_path / "changing.py"
    text = "from flow_sdk import code_block\n\n@code_block\ndef changing() -> int:\n    return {}\n"
    for number, change in ((1, "created v1"), (2, "updated v2")):
        source.write_text(text.format(number))
        done = platform.flow("publish", source)
        assert done.stdout == f"code-blocks/changing: {change}\n", done.stderr
        assert platform.output_of("run", "code-blocks/changing") == number


def test_publishing_to_another_ring_says_that_it_was_deployed(platform: Platform, tmp_path) -> None:
    source = tmp_path / "moving.py"
    source.write_text("from flow_sdk import code_block\n\n@code_block\ndef moving() -> int:\n    return 1\n")
    for ring, change in (
        ("dev", "created v1"),
        ("staging", "unchanged v1, deployed to staging"),
        ("staging", "unchanged v1"),
    ):
        done = platform.flow("publish", source, "--ring", ring)
        assert done.stdout == f"code-blocks/moving: {change}\n", done.stderr


def test_a_component_that_does_not_parse_is_refused_with_its_line(platform: Platform, tmp_path) -> None:
    source = tmp_path / "broken.py"
    source.write_text("from flow_sdk import code_block\n\n@code_block\ndef broken(:\n")
    done = platform.flow("publish", source)
    assert done.returncode == 1
    assert f"{source}:4: does not parse" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_prints_the_output_alone_on_stdout(platform: Platform) -> None:
    given = ("--input", '{"name": "Ada"}', "--follow", "--data", platform.data)
    done = flow_process("run", "code-blocks/hello", *given)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"hello": "Ada"}
    assert "saying hello to Ada" in done.stderr
    assert "completed" in done.stderr


@pytest.mark.parametrize("kind", ["code-blocks", "code-block", "code_block"])
def test_the_kind_may_be_written_as_people_write_it(platform: Platform, kind: str) -> None:
    assert platform.output_of("run", f"{kind}/hello") == {"hello": "you"}


def test_input_from_a_file_and_from_stdin(platform: Platform, tmp_path) -> None:
    given = tmp_path / "input.json"
    given.write_text('{"n": 41}')
    assert platform.output_of("run", "transforms/increment", "--input", f"@{given}") == {"n": 42}
    assert platform.output_of("run", "workflows/greetings", "--input", "-", stdin='{"names": ["Ada", "Bob"]}') == [
        {"hello": "Ada"},
        {"hello": "Bob"},
    ]


def test_a_failed_execution_exits_with_one_and_says_why(platform: Platform) -> None:
    done = platform.flow("run", "code-blocks/fails", "--input", '{"reason": "no disk"}')
    assert done.returncode == 1
    assert done.stdout == ""
    assert "error: ValueError: it fails: no disk" in done.stderr
    assert "hint: flow show " in done.stderr


def test_a_package_that_is_missing_when_it_runs_is_to_be_declared(platform: Platform, tmp_path) -> None:
    source = tmp_path / "absent.py"
    source.write_text("from flow_sdk import code_block\n@code_block\ndef absent():\n    import no_such_package\n")
    assert platform.flow("publish", source).returncode == 0
    done = platform.flow("run", "code-blocks/absent")
    assert "error: ModuleNotFoundError: No module named 'no_such_package'" in done.stderr
    assert "hint: name its package in dependencies=[...] of the component" in done.stderr


def test_wrong_arguments_name_the_field(platform: Platform) -> None:
    done = platform.flow("run", "code-blocks/fails", "--input", '{"raison": 1}')
    assert done.returncode == 1
    assert "reason: Field required" in done.stderr


def test_a_timeout_of_the_caller_ends_the_execution(platform: Platform) -> None:
    done = platform.flow("run", "code-blocks/sleeper", "--input", '{"seconds": 60}', "--timeout", "1")
    assert done.returncode == 1
    assert "timeout" in done.stderr


def test_the_declared_timeout_counts_when_the_caller_says_none(platform: Platform, tmp_path) -> None:
    source = tmp_path / "impatient.py"
    source.write_text(
        "import time\nfrom flow_sdk import code_block\n\n"
        "@code_block(timeout_seconds=1)\ndef impatient() -> None:\n    time.sleep(60)\n"
    )
    assert platform.flow("publish", source).returncode == 0
    done = platform.flow("run", "code-blocks/impatient")
    assert done.returncode == 1
    assert "error: Not finished 1 s after it was accepted" in done.stderr


def test_an_undeclared_package_is_named_with_its_line(platform: Platform, tmp_path) -> None:
    source = tmp_path / "undeclared.py"
    source.write_text("from flow_sdk import code_block\nimport nowhere\n\n@code_block\ndef undeclared(): ...\n")
    done = platform.flow("publish", source)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {source}:5: code-blocks/undeclared: line 2: No module named 'nowhere'\nhint: add it to dependencies\n"
    )


def test_a_limit_is_refused_in_the_unit_that_was_written(platform: Platform, tmp_path) -> None:
    source = tmp_path / "small.py"
    source.write_text("from flow_sdk import code_block\n\n@code_block(memory_mb=4)\ndef small(): ...\n")
    done = platform.flow("publish", source)
    assert done.stderr == (
        f"error: {source}:3: @code_block of 'small': memory_mb 4 is not valid: expected 16 to 65536 MiB\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "hello"), "'hello' is not KIND/SLUG"),
        (("run", "code-blocks/nobody"), "not found\nhint: published code-blocks: "),
        (("run", "code-blocks/helo"), "not found\nhint: did you mean code-blocks/hello?"),
        (("cancel", "nobody"), "not found"),
        (("ps", "--url", "nowhere", "--token", "t", "--org", "o", "--workspace", "w"), "'nowhere' is no address"),
        (("run", "code-blocks/hello", "--input", "{"), "--input is not JSON"),
        (("run", "code-blocks/hello", "--input", "@/nowhere.json"), "cannot be read"),
        (("run", "code-blocks/hello", "--ring", "moon"), "no ring 'moon': expected one of dev, production, staging"),
        (("show", "nothing"), "not found"),
        (("ps", "--status", "happy"), "--status 'happy': expected one of queued"),
        (("cancel",), "expected either ids or a filter"),
        (("cancel", "--status", "completed"), "has ended"),
        (("publish", "/nowhere.py"), "does not exist"),
        (("token", "--role", "king"), "king"),
        (("ps", "--token", "a.b.c"), "token"),
    ],
)
def test_bad_input_is_an_error_of_one_line_and_no_traceback(platform: Platform, arguments, message: str) -> None:
    done = platform.flow(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_ps_show_and_events_tell_of_an_execution(platform: Platform) -> None:
    execution_id = platform.flow("run", "code-blocks/hello", "--detach").stdout.strip()
    platform.flow("events", execution_id, "--follow")
    listed = platform.output_of("ps", "--component", "code-blocks/hello", "--status", "completed", "--json")
    assert execution_id in [document["execution_id"] for document in listed]
    shown = platform.output_of("show", execution_id, "--json")
    assert shown["status"] == "completed"
    assert shown["output"] == {"hello": "you"}
    table = platform.flow("show", execution_id).stdout
    assert "code-blocks/hello v1" in table
    events = platform.flow("events", execution_id, "--json").stdout.splitlines()
    assert any("saying hello to you" in line for line in events)
    assert [json.loads(line)["position"] for line in events] == list(range(1, len(events) + 1))


def test_a_tree_shows_what_a_workflow_started(platform: Platform) -> None:
    execution_id = platform.flow("run", "workflows/greetings", "--detach", "-i", '{"names": ["Ada"]}').stdout.strip()
    platform.flow("events", execution_id, "--follow")
    tree = platform.output_of("show", execution_id, "--tree", "--json")
    assert [child["execution"]["component"]["slug"] for child in tree["children"]] == ["hello"]
    assert "code-blocks/hello v1" in platform.flow("show", execution_id, "--tree").stdout


def test_cancel_by_filter_asks_first_and_then_ends_all(platform: Platform) -> None:
    ids = {
        platform.flow("run", "code-blocks/sleeper", "--detach", "-i", '{"seconds": 60}').stdout.strip()
        for _ in range(2)
    }
    chosen = ("cancel", "--component", "code-blocks/sleeper")
    preview = platform.flow(*chosen)
    assert preview.returncode == 1
    assert all(execution_id in preview.stderr for execution_id in ids)
    assert "say --yes" in preview.stderr
    cancelled = platform.output_of(*chosen, "--yes", "--json")
    assert {document["execution_id"] for document in cancelled} == ids
    for execution_id in ids:
        eventually(lambda: platform.output_of("show", execution_id, "--json")["status"] == "cancelled")  # noqa: B023
    again = platform.flow("cancel", *ids)
    assert again.returncode == 0, "cancelling what has ended changes nothing and is no error"


def test_one_unknown_id_does_not_keep_the_others_alive(platform: Platform) -> None:
    known = platform.flow("run", "code-blocks/sleeper", "--detach", "-i", '{"seconds": 60}').stdout.strip()
    done = platform.flow("cancel", "unknown", known)
    assert done.returncode == 1
    assert "unknown: " in done.stderr
    eventually(lambda: platform.output_of("show", known, "--json")["status"] == "cancelled")


def test_a_token_has_the_role_it_was_asked_for(platform: Platform) -> None:
    made = platform.output_of("token", "--role", "viewer", "--ttl", "60", "--json")
    assert made["claims"]["role"] == "viewer"
    base_url = json.loads(platform.ready_file.read_text())["base_url"]
    by_variables = {"FLOW_URL": base_url, "FLOW_TOKEN": made["token"]}
    assert flow("ps", **by_variables).returncode == 0
    refused = flow("run", "code-blocks/hello", **by_variables)
    assert refused.returncode == 1
    assert "'viewer' may not 'submit'" in refused.stderr


def test_without_a_platform_the_way_to_start_one_is_said(tmp_path) -> None:
    done = flow_process("ps", cwd=tmp_path)
    assert done.returncode == 1
    assert "hint: start it with: flow up" in done.stderr
    done = flow("ps", "--url", "http://127.0.0.1:9", "--token", "t", "--org", "o", "--workspace", "w")
    assert done.returncode == 1
    assert "hint: start the platform with: flow up" in done.stderr


def test_ctrl_c_leaves_the_execution_and_says_how_to_find_it(platform: Platform) -> None:
    process = subprocess.Popen(
        [FLOW, "run", "code-blocks/sleeper", "--data", platform.data, "-i", '{"seconds": 60}'],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        line = process.stderr.readline()
        execution_id = line.split()[-1]
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"flow cancel {execution_id}" in words
    assert platform.flow("cancel", execution_id).returncode == 0
    # So that it is not among those that another test cancels.
    eventually(lambda: platform.output_of("show", execution_id, "--json")["status"] == "cancelled")


def test_a_reader_that_goes_away_is_no_crash(platform: Platform) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [FLOW, "ps", "--json", "--data", platform.data],
            env=clean_environment(),
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


def test_the_benchmark_measures_a_running_platform(platform: Platform) -> None:
    document = platform.wait_ready()
    where = {"FLOW_ORG": document["org_id"], "FLOW_WORKSPACE": document["workspace_id"]}
    measured = ("--url", document["base_url"], "--token", document["token"], "--only", "w1,w2,w3,w4")
    done = flow("bench", *measured, "--n", "w1=2,w2=4,w3=1", **where)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["workload"] for row in rows] == ["w1", "w2", "w3"], "submits alone need a platform without runners"
    assert rows[0]["latency_p50_ms"] > 0
    assert {"accept", "commit", "claim", "user_code", "answer"} <= set(rows[0]["stages_ms"])
    assert rows[1]["completed"] == 4
    assert rows[2]["fan50_ms_per_step"] > 0


def test_the_doctor_finds_this_machine_fit(tmp_path) -> None:
    done = flow("doctor", "--data", tmp_path / "data", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert {"python", "uv", "nats-server", "data folder", "database", "port"} < set(checks)
    assert {check["level"] for check in checks.values()} <= {"ok", "weak", "missing", "off"}
    assert done.returncode == ("missing" in {check["level"] for check in checks.values()})
    assert all(check["hint"] for check in checks.values() if check["level"] == "missing")


def test_the_doctor_says_what_is_wrong_and_how_to_mend_it() -> None:
    done = flow("doctor", "--data", "/proc/nowhere", "--json", FLOW_DATABASE_URL="postgresql://x:s-cr-t@127.0.0.1:9/x")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 1
    assert checks["data folder"]["level"] == "missing"
    assert checks["database"]["level"] == "missing"
    assert "s-cr-t" not in done.stdout


def test_an_event_is_kept_for_its_wait_and_an_ended_execution_takes_none(platform: Platform) -> None:
    started = platform.flow("run", "code-blocks/sleeper", "--detach", "-i", '{"seconds": 60}')
    execution_id = started.stdout.strip()
    kept = platform.flow("send", execution_id, "paid", "--input", '{"amount": 3}')
    assert (kept.returncode, "kept" in kept.stderr) == (0, True), kept.stderr
    early = platform.flow("send", execution_id, "ship", "--approve")
    assert (early.returncode, "the answer does not count" in early.stderr) == (1, True), early.stderr
    both = platform.flow("send", execution_id, "paid", "--approve", "--reject")
    assert "expected one of" in both.stderr
    platform.flow("cancel", execution_id)
    eventually(lambda: platform.output_of("show", execution_id, "--json")["status"] == "cancelled")
    late = platform.flow("send", execution_id, "paid")
    assert (late.returncode, "it waits for nothing any more" in late.stderr) == (1, True), late.stderr


def test_a_budget_is_set_shown_and_taken_away(platform: Platform) -> None:
    assert "no budget" in platform.flow("budget").stderr

    made = platform.output_of("budget", "set", "--daily", "2.5", "--monthly", "50", "--warn-only", "--json")
    changed = platform.output_of("budget", "set", "--daily", "none", "--warn", "90", "--json")
    shown = platform.flow("budget", "list")
    removed = platform.output_of("budget", "remove", "--json")

    assert (made["daily_micro_credits"], made["monthly_micro_credits"], made["refuses"]) == (
        2_500_000,
        50_000_000,
        False,
    )
    assert {name: changed[name] for name in changed if name != "periods"} == {
        "daily_micro_credits": None,
        "monthly_micro_credits": 50_000_000,
        "warn_percent": 90,
        "refuses": False,
    }
    day, month = [line.split() for line in shown.stdout.splitlines()[1:]]
    assert (day[0], day[3], month[0], month[3], month[4]) == ("day", "none", "month", "50", "ok")
    assert "warns from 90 % on, refuses nothing" in shown.stderr
    assert removed["periods"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("set",), "expected something to set"),
        (("list", "--daily", "1"), "only `set` takes these options"),
        (("set", "--daily", "-1"), "expected credits such as 2.5"),
        (("set", "--monthly", "0.0000001"), "expected credits such as 2.5"),
        (("set", "--monthly", "much"), "expected credits such as 2.5"),
        (("set", "--warn", "101"), "warn_percent"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(platform: Platform, arguments: tuple[str, ...], message: str) -> None:
    done = platform.flow("budget", *arguments)

    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr

"""`flow up`: what it promises, how it ends, and what it leaves behind, which is nothing."""

from __future__ import annotations

import os
import signal
import socket
import stat

import httpx
import pytest

from tests.support.flow_program import (
    Platform,
    are_gone,
    eventually,
    flow_process,
    mounts,
    network_namespaces,
    running,
)

pytestmark = pytest.mark.slow

READY_KEYS = {"base_url", "nats_url", "console_url", "org_id", "workspace_id", "rings", "token", "pid"}


def get_rings(document: dict, token: str) -> httpx.Response:
    workspace = f"/api/v1/orgs/{document['org_id']}/workspaces/{document['workspace_id']}"
    return httpx.get(f"{document['base_url']}{workspace}/rings", headers={"Authorization": f"Bearer {token}"})


def test_the_ready_file_says_all_that_a_program_needs(platform: Platform) -> None:
    document = platform.wait_ready()
    assert set(document) == READY_KEYS
    assert document["console_url"] == document["base_url"] + "/"
    assert set(document["rings"]) == {"dev", "staging", "production"}
    assert document["pid"] == platform.process.pid
    listed = get_rings(document, document["token"]).json()["items"]
    assert {ring["name"]: ring["id"] for ring in listed} == document["rings"]
    for private in (platform.ready_file, platform.data / "ready.json", platform.data / "admin-token"):
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(platform.data.stat().st_mode) == 0o700
    assert "Flow is ready at " + document["console_url"] in platform.said


def test_a_second_platform_on_the_same_data_is_refused(platform: Platform) -> None:
    done = flow_process("up", "--port", "0", "--data", platform.data)
    assert done.returncode == 1
    assert f"in use by process {platform.process.pid}" in done.stderr
    assert httpx.get(platform.wait_ready()["base_url"] + "/healthz").status_code == 200


def test_a_taken_port_is_named(platform: Platform, tmp_path) -> None:
    port = platform.wait_ready()["base_url"].rpartition(":")[2]
    done = flow_process("up", "--port", port, "--data", tmp_path / "data")
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "--port 0" in done.stderr


def test_a_public_address_needs_the_flag(tmp_path) -> None:
    done = flow_process("up", "--host", "0.0.0.0", "--port", "0", "--data", tmp_path / "data")
    assert done.returncode == 1
    assert "--allow-public" in done.stderr
    assert not (tmp_path / "data").exists()


def test_all_bad_settings_are_named_at_once(tmp_path) -> None:
    done = flow_process("up", "--data", tmp_path / "data", FLOW_PROT="1", FLOW_SLOTS="many")
    assert done.returncode == 1
    assert "did you mean FLOW_PORT?" in done.stderr
    assert "FLOW_SLOTS='many'" in done.stderr


def test_a_killed_server_comes_back_on_its_port_and_loses_nothing(platform: Platform) -> None:
    base_url = platform.wait_ready()["base_url"]
    server = platform.child("bootstrap server")
    os.kill(server, signal.SIGKILL)
    # Connections queue in the supervisor's socket meanwhile: no request is refused.
    assert platform.output_of("run", "code-blocks/hello") == {"hello": "you"}
    assert platform.child("bootstrap server") != server
    assert platform.wait_ready()["base_url"] == base_url
    assert "the server was killed by SIGKILL; starting it again" in platform.said


def test_a_killed_runner_and_a_killed_nats_come_back(platform: Platform) -> None:
    runner, nats = platform.child("bootstrap runner"), platform.child("nats-server")
    below = platform.processes()
    os.kill(runner, signal.SIGKILL)
    os.kill(nats, signal.SIGKILL)
    assert platform.output_of("run", "code-blocks/hello") == {"hello": "you"}
    assert platform.child("bootstrap runner") != runner
    assert platform.child("nats-server") != nats
    eventually(lambda: are_gone([process for process in below if process not in platform.processes()]))


def test_ctrl_c_drains_and_leaves_nothing(tmp_path) -> None:
    before = mounts(), network_namespaces()
    with running(tmp_path) as platform:
        base_url = platform.wait_ready()["base_url"]
        processes = platform.processes()
        assert len(processes) >= 3
        assert platform.stop() == 0
        eventually(lambda: are_gone(processes))
        assert "draining" in platform.said
        assert not platform.ready_file.exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(base_url.rpartition(":")[2]))) != 0
    assert mounts() - before[0] == set()
    eventually(lambda: network_namespaces() - before[1] == set() or are_gone(processes))


def test_kill_9_of_the_supervisor_leaves_nothing_and_the_data_can_be_used_again(tmp_path) -> None:
    platform = Platform(tmp_path, "--runners", "1")
    platform.wait_ready()
    token = (platform.data / "admin-token").read_text()
    processes = platform.processes()
    platform.process.kill()
    platform.process.wait()
    eventually(lambda: are_gone(processes))
    platform.close()
    platform.ready_file.unlink()
    with running(tmp_path, "--runners", "0") as again:
        assert again.wait_ready()["token"] == token.strip(), "a token that is still good is kept"


def test_a_second_ctrl_c_stops_at_once(tmp_path) -> None:
    with running(tmp_path) as platform:
        source = tmp_path / "forever.py"
        source.write_text(
            "import time\nfrom flow_sdk import code_block\n\n@code_block\ndef forever():\n    time.sleep(600)\n"
        )
        assert platform.flow("publish", source).returncode == 0
        execution_id = platform.flow("run", "code-blocks/forever", "--detach").stdout.strip()
        eventually(lambda: platform.output_of("show", execution_id, "--json")["status"] == "running")
        processes = platform.processes()
        platform.process.send_signal(signal.SIGINT)
        eventually(lambda: "draining" in platform.said)
        assert platform.process.poll() is None
        assert platform.stop() == 0
        eventually(lambda: are_gone(processes))


def test_a_part_that_always_dies_ends_the_platform_with_its_log(tmp_path) -> None:
    done = flow_process(
        "up",
        "--port",
        "0",
        "--data",
        tmp_path / "data",
        "--nats",
        "nats://127.0.0.1:9",
        "--database",
        "sqlite:////proc/none.db",
    )
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert not (tmp_path / "data" / "ready.json").exists()


def test_a_forged_token_gets_401(platform: Platform) -> None:
    document = platform.wait_ready()
    assert get_rings(document, document["token"][:-4] + "AAAA").status_code == 401

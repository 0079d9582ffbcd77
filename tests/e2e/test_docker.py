"""Components in containers of Docker, on a whole platform: over NATS, beside others, calling each other, killed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.docker_daemon import DockerDaemon, docker
from tests.support.flow_program import Platform, eventually, running

__all__ = ["docker"]

pytestmark = pytest.mark.slow

SOURCE = """
import os, time
from flow_sdk import code_block, emit_event, workflow

@code_block(isolation="docker")
def contained(word: str) -> dict:
    emit_event("place", {"word": word})
    print("said from inside")
    return {"word": word.upper(), "user": os.getuid(), "container": os.path.exists("/.dockerenv")}

@code_block
def ordinary() -> bool:
    return os.path.exists("/.dockerenv")

@code_block(isolation="docker")
def lasts() -> str:
    if os.environ["ATTEMPT"] == "1":
        emit_event("place", "in the container that will be killed")
        time.sleep(600)
    return os.environ["ATTEMPT"]

@workflow(isolation="docker")
async def both(word: str) -> list:
    return [await contained.call(word=word), await ordinary.call()]
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, docker: DockerDaemon) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("docker")
    (folder / "contained.py").write_text(SOURCE)
    environment = {"FLOW_ISOLATIONS": "namespaces,docker", "FLOW_DOCKER_HOST": docker.host, "FLOW_POOL_SIZE": "1"}
    with running(folder, "--channel", "nats", **environment) as started:
        published = started.flow("publish", folder / "contained.py")
        assert published.returncode == 0, published.stderr
        yield started
    eventually(lambda: docker.containers() == [])


def test_a_workflow_in_docker_calls_what_is_and_what_is_not(platform: Platform) -> None:
    contained, ordinary = platform.output_of("run", "workflows/both", "--input", '{"word": "hello"}')
    assert (contained["word"], contained["container"], ordinary) == ("HELLO", True, False)
    assert contained["user"] > 0


def test_logs_events_and_isolation_are_in_the_record(platform: Platform) -> None:
    done = platform.flow("run", "code-blocks/contained", "--input", '{"word": "a"}', "--follow")
    assert done.returncode == 0, done.stderr
    assert "said from inside" in done.stdout + done.stderr
    execution_id = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", done.stderr)
    assert execution_id, done.stderr
    assert platform.output_of("show", execution_id[0], "--json")["isolation"] == "docker"
    assert '"place"' in platform.flow("events", execution_id[0], "--json").stdout


def test_an_attempt_whose_container_is_killed_is_repeated(platform: Platform, docker: DockerDaemon) -> None:
    execution = platform.flow("run", "code-blocks/lasts", "--detach").stdout.strip()

    def document() -> dict[str, Any]:
        return platform.output_of("show", execution, "--json")

    # Its status alone does not say that its container has it already: one that dies before is replaced unnoticed.
    eventually(lambda: "will be killed" in platform.flow("events", execution, "--json").stdout)
    with docker.client() as client:
        for container in docker.containers():  # The one that waits, too.
            client.post(f"/containers/{container}/kill")
    ended = eventually(lambda: (shown := document())["status"] == "completed" and shown, 60)
    assert (ended["output"], ended["attempt"]) == ("2", 2)

"""nats-server as a child: it starts, keeps its address, dies with its parent; and what its death does to messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from flow_platform.bus.connection import Bus, Message
from flow_platform.bus.server import NatsServer, find_binary
from flow_platform.domain.errors import BusUnavailable
from flow_sdk.wire import subjects

OUTPUT = subjects.EXEC_OUTPUT


async def eventually(assertion: Callable[[], None], within: float = 60.0) -> None:
    ends = asyncio.get_running_loop().time() + within
    while True:
        try:
            return assertion()
        except AssertionError:
            if asyncio.get_running_loop().time() > ends:
                raise
        await asyncio.sleep(0.01)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def supervised(server: NatsServer) -> AsyncIterator[NatsServer]:
    """Started again whenever it dies."""
    keeping = asyncio.create_task(server.keep_running())
    yield server
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    bus = await Bus.connect(server.url, name="engine")
    await bus.ensure_streams()
    yield bus
    await bus.drain_and_close()


class Recorder:
    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, messages: list[Message]) -> None:
        self.messages += messages

    @property
    def subjects(self) -> list[str]:
        return [message.subject for message in self.messages]


@pytest.fixture
async def recorder(bus: Bus) -> AsyncIterator[Recorder]:
    """Consumes EXEC_OUTPUT."""
    recorder = Recorder()
    consuming = asyncio.create_task(bus.consume("EXEC_OUTPUT", "recorder", recorder))
    yield recorder
    consuming.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await consuming


def kill(server: NatsServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def test_a_restart_keeps_port_and_passwords(server, tmp_path):
    before = server.url, server.runner_url
    await server.stop()
    await server.start()
    assert (server.url, server.runner_url) == before
    await server.stop()
    other = NatsServer(tmp_path / "nats")
    await other.start()
    assert (other.url, other.runner_url) == before
    await other.stop()


async def test_a_port_that_was_taken_meanwhile_is_replaced_by_another(server, tmp_path):
    await server.stop()
    taker = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", server.port)
    other = NatsServer(tmp_path / "nats")
    await other.start()
    assert other.port not in {0, server.port}
    await other.stop()
    # Within one life clients hold the address: then another port is no help, and the reason is told.
    with pytest.raises(BusUnavailable, match="address already in use"):
        await server.start()
    taker.close()
    await taker.wait_closed()


def test_credentials_are_only_the_owners(server, tmp_path):
    password = server.url.split(":")[2].split("@")[0]
    arguments = Path(f"/proc/{server.pid}/cmdline").read_bytes()
    environment = Path(f"/proc/{server.pid}/environ").read_bytes()
    assert password.encode() not in arguments + environment
    holding = [path for path in (tmp_path / "nats").iterdir() if path.is_file() and password in path.read_text()]
    assert {path.name for path in holding} == {"nats.conf", "credentials.json"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in holding)


async def test_a_second_server_over_the_same_store_is_refused(server, tmp_path):
    second = NatsServer(tmp_path / "nats", lock_timeout=0.05)
    with pytest.raises(BusUnavailable, match=f"another nats-server owns the store .*{tmp_path.name}"):
        await second.start()
    assert is_alive(server.pid)


async def test_it_dies_with_its_parent_and_the_store_is_free_again(tmp_path):
    script = (
        "import asyncio, sys, pathlib\n"
        "from flow_platform.bus.server import NatsServer\n"
        "async def main():\n"
        "    server = NatsServer(pathlib.Path(sys.argv[1]))\n"
        "    await server.start()\n"
        "    print(server.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path / "nats"), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    await parent.wait()

    def gone() -> None:
        assert not is_alive(pid)

    await eventually(gone)
    server = NatsServer(tmp_path / "nats")
    await server.start()
    await server.stop()


async def test_a_server_that_does_not_start_says_why(tmp_path, monkeypatch):
    broken = tmp_path / "nats-server"
    broken.write_text("#!/bin/sh\necho 'the store is on fire' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("NATS_SERVER_BIN", str(broken))
    server = NatsServer(tmp_path / "nats")
    with pytest.raises(BusUnavailable, match=r"(?s)status 3.*the store is on fire"):
        await server.start()
    monkeypatch.setenv("NATS_SERVER_BIN", str(tmp_path / "nowhere"))
    with pytest.raises(BusUnavailable, match="nowhere"):
        find_binary()
    monkeypatch.delenv("NATS_SERVER_BIN")
    await server.start()
    await server.stop()


async def test_a_server_that_ignores_sigterm_is_killed(server):
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    await server.stop(grace=0.1)
    assert server.pid is None


async def test_every_acknowledged_message_survives_kill_9_and_each_comes_once(supervised, bus, recorder):
    count = 2000
    acknowledged: dict[str, int] = {}
    kills = 0

    async def publish(number: int) -> None:
        subject = f"{OUTPUT}.{number}"
        acknowledged[subject] = await bus.publish(subject, b"x", message_id=f"output:{number}")

    async def publish_all() -> None:
        for start in range(0, count, 100):
            await asyncio.gather(*(publish(number) for number in range(start, start + 100)))

    publishing = asyncio.create_task(publish_all())
    while not publishing.done() and kills < 3:
        if len(acknowledged) >= kills * count // 4 and supervised.pid is not None and bus.is_connected:
            kill(supervised)
            kills += 1
            await supervised.wait_dead()
        await asyncio.sleep(0.01)
    await publishing
    assert kills > 1
    stored = (await bus.api("STREAM.INFO.EXEC_OUTPUT", {}))["state"]
    assert stored["messages"] == len(acknowledged) == count
    assert len(set(acknowledged.values())) == count

    def all_arrived() -> None:
        assert set(recorder.subjects) == set(acknowledged)

    await eventually(all_arrived)


async def test_services_subscriptions_and_requests_come_back(server, bus):
    runner = await Bus.connect(server.runner_url, name="runner")
    heard: list[bytes] = []

    async def echo(body: bytes) -> bytes:
        return body

    async def cancel(message: Message) -> None:
        heard.append(message.body)

    await bus.serve(subjects.RUNNER_HEARTBEAT, subjects.ENGINE_QUEUE, echo)
    await runner.subscribe(subjects.runner_cancel("r"), cancel)
    for number in range(2):
        kill(server)
        await server.wait_dead()

        def lost() -> None:
            assert not bus.is_connected
            assert not runner.is_connected

        await eventually(lost)
        # Asked while there is no connection: answered as soon as both have one again.
        asked = asyncio.create_task(_answer(runner, b"%d" % number))
        await server.start()
        assert await asked == b"%d" % number
        await bus.request(subjects.RUNNER_HEARTBEAT, b"", timeout=15)
        await bus.publish_core(subjects.runner_cancel("r"), b"%d" % number)

        def was_heard(count: int = number + 1) -> None:
            assert len(heard) == count

        await eventually(was_heard)
    await runner.drain_and_close()


async def _answer(runner: Bus, body: bytes) -> bytes:
    """Asks again while nobody serves: the runner may be connected again before the engine."""
    while True:
        try:
            return await runner.request(subjects.RUNNER_HEARTBEAT, body, timeout=30)
        except BusUnavailable as error:
            if "nobody serves" not in error.message:
                raise
            await asyncio.sleep(0.01)


async def test_publishing_without_a_server_ends_at_the_timeout(server, bus):
    await server.stop()
    with pytest.raises(BusUnavailable, match=r"within 0\.3 s"):
        await bus.publish(f"{OUTPUT}.a", b"x", timeout=0.3)
    with pytest.raises(BusUnavailable, match=r"within 0\.3 s"):
        await bus.request(subjects.RUNNER_CLAIM, b"", timeout=0.3)


async def test_streams_deleted_while_publishing_and_consuming(bus, recorder):
    """What a deleted stream held is lost; what is published after it is not, and the consumer goes on."""

    async def publish(number: int) -> None:
        await bus.publish(f"{OUTPUT}.{number}", b"x")

    for round_number in range(3):
        publishing = asyncio.gather(*(publish(1000 * round_number + number) for number in range(200)))
        await bus.api("STREAM.DELETE.EXEC_OUTPUT", {})
        await publishing
        marker = f"{OUTPUT}.after-{round_number}"
        await bus.publish(marker, b"x")

        def arrived(subject: str = marker) -> None:
            assert subject in recorder.subjects

        await eventually(arrived)


async def test_a_deleted_consumer_and_a_stream_deleted_without_a_publisher(bus, recorder):
    await bus.publish(f"{OUTPUT}.1", b"x")

    def arrived() -> None:
        assert f"{OUTPUT}.1" in recorder.subjects

    await eventually(arrived)
    await bus.api("CONSUMER.DELETE.EXEC_OUTPUT.recorder", {})
    await bus.publish(f"{OUTPUT}.2", b"x")

    def arrived_again() -> None:
        assert f"{OUTPUT}.2" in recorder.subjects

    await eventually(arrived_again)
    await bus.api("STREAM.DELETE.EXEC_OUTPUT", {})
    stream: dict[str, object] = {}

    async def look() -> None:
        stream.update(await bus.api("STREAM.INFO.EXEC_OUTPUT", {}))

    async with asyncio.timeout(60):
        while "config" not in stream:
            await look()


async def test_the_whole_store_gone(supervised, bus, recorder, tmp_path):
    """As after a lost disk: the streams are made again, and everything goes on."""
    await bus.publish(f"{OUTPUT}.1", b"x")
    kill(supervised)
    await supervised.wait_dead()
    store = tmp_path / "nats" / "jetstream"
    store.rename(tmp_path / "lost")
    await bus.publish(f"{OUTPUT}.2", b"x")
    await bus.put_object("o", b"x" * 100)
    assert await bus.get_object("o") == b"x" * 100

    def arrived() -> None:
        assert f"{OUTPUT}.2" in recorder.subjects

    await eventually(arrived)


async def test_a_connection_that_the_client_library_gave_up_is_replaced(server, bus):
    """The server may cut us off with an error on which nats-py closes for good."""
    assert bus._client is not None
    first = bus._client
    await first._process_err("'user authentication revoked'")

    def replaced() -> None:
        assert first.is_closed
        assert bus.is_connected
        assert bus._client is not first

    await eventually(replaced)
    await bus.publish(f"{OUTPUT}.1", b"x")


async def test_closing_without_a_server_is_quick_and_quiet(server):
    bus = await Bus.connect(server.url, name="engine")
    await server.stop()
    async with asyncio.timeout(10):
        await bus.drain_and_close()


async def test_the_configuration_is_made_to_keep_what_it_acknowledges(server, tmp_path):
    configuration = (tmp_path / "nats" / "nats.conf").read_text()
    assert "sync_interval: always" in configuration
    assert json.loads((tmp_path / "nats" / "credentials.json").read_text())["port"] == server.port


FULL_DISK = """
import asyncio, sys
from pathlib import Path
from flow_platform.bus.connection import Bus
from flow_platform.bus.server import NatsServer
from flow_platform.domain.errors import BusUnavailable

async def main(disk):
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(16 << 20))
    server = NatsServer(disk / "nats")
    await server.start()
    keeping = asyncio.create_task(server.keep_running())
    bus = await Bus.connect(server.url, name="engine")
    await bus.ensure_streams()
    stored = 0
    try:
        while stored < 100:
            await bus.publish(f"exec.output.{stored}", bytes(400_000), timeout=1.0 if stored else 30)
            stored += 1
    except BusUnavailable:
        pass
    assert 0 < stored < 100, stored
    late = asyncio.create_task(bus.publish("exec.output.late", b"x", timeout=60))
    ballast.unlink()
    await late
    state = (await bus.api("STREAM.INFO.EXEC_OUTPUT", {}))["state"]
    assert state["messages"] >= stored + 1, (state, stored)
    keeping.cancel()
    await bus.drain_and_close()
    await server.stop()

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.root
@pytest.mark.slow
async def test_a_full_disk_loses_nothing_that_was_acknowledged_and_heals_when_there_is_room(tmp_path):
    mount = 'mount -t tmpfs -o size=28m none "$1" && exec "$2" -c "$3" "$1"'
    private = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
    probe = await asyncio.create_subprocess_exec(*private, "true", stderr=asyncio.subprocess.DEVNULL)
    if await probe.wait() != 0:
        pytest.skip("no mount namespace of our own: a small disk cannot be made here")
    process = await asyncio.create_subprocess_exec(*private, mount, "sh", str(tmp_path), sys.executable, FULL_DISK)
    assert await process.wait() == 0

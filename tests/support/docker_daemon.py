"""A Docker daemon of the tests' own: on a socket in a temporary folder, with its data beside it, ended by its id."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

START_SECONDS = 110.0


@dataclass
class DockerDaemon:
    """Attributes:
    folder: Its data, its socket and its log.
    """

    folder: Path
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        return f"unix://{self.folder / 'socket'}"

    def client(self) -> httpx.Client:
        """Asks it as anybody could who has its socket."""
        # Nobody to verify: reading the certificates takes longer than the question.
        transport = httpx.HTTPTransport(uds=str(self.folder / "socket"), verify=False)
        return httpx.Client(transport=transport, base_url="http://docker", timeout=60)

    def containers(self, label: str = "", *, state: str = "") -> list[str]:
        """Ids of all, or of those with that label, `name=value`, and in that state."""
        filters = {name: [value] for name, value in (("label", label), ("status", state)) if value}
        with self.client() as client:
            found = client.get("/containers/json", params={"all": 1, "filters": json.dumps(filters)})
            return [container["Id"] for container in found.raise_for_status().json()]

    def start(self) -> None:
        """Returns when it answers. It may have been started before: it keeps its images."""
        arguments = [
            *("dockerd", "--data-root", self.folder / "data", "--exec-root", self.folder / "exec"),
            *("--pidfile", self.folder / "pid", "-H", self.host, "--config-file", self.folder / "none.json"),
            *("--iptables=false", "--ip6tables=false", "--bridge=none", *self.options),
        ]
        (self.folder / "none.json").write_text("{}")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log, start_new_session=True)
        give_up = time.monotonic() + START_SECONDS
        while True:
            if self._listens():
                with contextlib.suppress(httpx.HTTPError), self.client() as client:
                    client.get("/_ping").raise_for_status()
                    return
            said = (self.folder / "log").read_text(errors="replace")[-3000:]
            assert self.process.poll() is None, f"dockerd ended: {said}"
            assert time.monotonic() < give_up, f"dockerd does not answer: {said}"
            time.sleep(0.05)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self.folder / "socket")) == 0

    def stop(self) -> None:
        """Ends the daemon, and with it its containers, unless it was started with `--live-restore`."""
        if self.process is None:
            return
        self.process.terminate()
        self.process.wait(60)
        self.process = None

    def close(self) -> None:
        """With its containers, which a daemon that lets them live is asked to remove first."""
        if "--live-restore" in self.options and self.process is not None:
            with self.client() as client:
                for container in self.containers():
                    client.delete(f"/containers/{container}", params={"force": 1})
        self.stop()
        for line in Path("/proc/mounts").read_text().splitlines():  # Of a daemon that did not end in peace.
            if line.split()[1].startswith(str(self.folder)):
                subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def missing() -> str:
    """Why there can be none here; empty: there can."""
    if os.geteuid() != 0:
        return "a Docker daemon of the tests' own needs root"
    if shutil.which("dockerd") is None:
        return "dockerd is not installed: scripts/test-services"
    return ""


@contextlib.contextmanager
def own_daemon(*options: str) -> Generator[DockerDaemon]:
    """One that may be stopped; skips the test where there can be none."""
    if why := missing():
        pytest.skip(why)
    # A short path: the names of sockets have at most 107 bytes.
    daemon = DockerDaemon(Path(tempfile.mkdtemp(prefix="flow-docker-", dir="/var/tmp")), options)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


@pytest.fixture(scope="session")
def docker() -> Iterator[DockerDaemon]:
    """One for all tests that do not stop it."""
    with own_daemon() as daemon:
        yield daemon
